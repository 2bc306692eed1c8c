"""What every measure of discrepancy must do. A new measure is done when `check_measure` passes.

>>> check_measure("cka")
"""

from __future__ import annotations

import math

from headsearch.scoring.discrepancy import KINDS

_SAMPLES = 200
_NEAR = 1e-3


def check_measure(name: str) -> None:
    """Raises an `AssertionError` that names what the measure does wrong."""
    import torch

    measure = KINDS[name]
    measure.check()
    generator = torch.Generator().manual_seed(0)

    def draw(features: int) -> torch.Tensor:
        return torch.randn(_SAMPLES, features, generator=generator)

    x_ND = draw(12)
    rotation, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator))
    same = measure(x_ND, 3.0 * x_ND @ rotation + 5.0)
    assert isinstance(same, float), f"{name} gives {type(same).__name__}, expected a float"
    assert abs(same) < _NEAR, f"{name} of a rotated, scaled and moved copy is {same:.3g}, expected 0"
    nearer, unrelated = measure(x_ND, x_ND + draw(12)), measure(x_ND, draw(12))
    assert 0 < nearer < unrelated, (
        f"{name}: with noise {nearer:.3g}, unrelated {unrelated:.3g}; expected 0 < the first < the second"
    )
    assert math.isfinite(measure(x_ND, draw(7))), f"{name} cannot compare 12 features with 7"
    constant = measure(x_ND, torch.ones(_SAMPLES, 7))
    assert not constant < unrelated / 2, (
        f"{name} takes a side that is constant for like another ({constant:.3g}); expected NaN"
    )
