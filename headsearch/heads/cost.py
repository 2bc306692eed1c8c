"""What a head costs, as plain data. `headsearch.scoring.cost` measures it. No torch here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HeadCost:
    """What a head costs during pretraining; afterwards it is thrown away and costs nothing."""

    params: int
    """Learnable numbers of the head."""
    flops: int
    """Floating-point operations of one forward pass for one image, a multiply-add counted as two."""
    overhead: float | None = None
    """Measured time of a training step over that of the same step without a head, minus 1; None when not measured. Median over pairs of steps."""
    overhead_spread: float | None = None
    """Half the distance between the quartiles of those pairs."""
