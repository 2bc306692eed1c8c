"""A row of the ranking: one head, averaged over its seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from headsearch.results.records import finite
from headsearch.training.trial import EQUAL_TIME


@dataclass(frozen=True, kw_only=True)
class RankRow:
    """One head, averaged over its replicates. Unknown is None."""

    rank: int | None = None
    """From 1; None for controls that the search did not draw itself, and for infeasible heads."""
    head_id: str
    family: str
    config: dict[str, Any] | list[dict[str, Any]] | None
    """The result of `HeadConfig.to_dict`."""
    control: str | None = None
    """`none`, `same` or `mlp`."""
    stage: str
    """The stage that the scores come from: `proxy`, `screen` or, before any training, `zero-cost`."""
    score: float | None = None
    """The label-free score (`headsearch.scoring.score`)."""
    discrepancy: float | None = None
    discrepancy_sd: float | None = None
    """Sample standard deviation over replicates; None with fewer than two."""
    probe: float | None = None
    """Percent: k-NN accuracy of the frozen base."""
    probe_sd: float | None = None
    knn: float | None = None
    linear: float | None = None
    linear_sd: float | None = None
    epochs: int | None = None
    """Length of the trainings behind the scores; None if none ran its full budget."""
    gain: float | None = None
    """`probe` minus the probe of the control `none` after as many epochs, in points."""
    gain_low: float | None = None
    """95% interval of the gain; None without replicates anywhere."""
    gain_high: float | None = None
    linear_gain: float | None = None
    """The same by the linear probe."""
    linear_gain_low: float | None = None
    linear_gain_high: float | None = None
    simultaneous: bool = False
    """Whether the intervals of the two gains hold at once for all heads that were tried (Dunnett), as they must if the row was picked because it
    is the best. Otherwise they hold for this head alone."""
    shrunk: float | None = None
    """`probe` shrunk towards its expectation given the score, in percent; None if trainings are too short for the probe to order heads."""
    long_gain: float | None = None
    """The measured gain of a training of `search.target_epochs`, in points; None if the head is no anchor."""
    predicted_gain: float | None = None
    """The expected gain after a pretraining of `search.target_epochs`, in points; None if nothing was trained that long."""
    predicted_low: float | None = None
    """95% interval."""
    predicted_high: float | None = None
    params: int | None = None
    flops: int | None = None
    overhead: float | None = None
    replicates: int = 0
    """Trials that ran their full budget."""
    pareto_layer: int | None = None
    """From 1, in (discrepancy, probe) among ranked heads; None without labels and without a rank."""
    feasible: bool = True
    """False if any of its trials was infeasible: a head that collapses with some seeds is not reliable."""
    reason: str | None = None
    """Why it is infeasible, or why the search dropped it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return finite(asdict(self))


def epochs_of(rows: Iterable[RankRow]) -> int | None:
    """Length of the trainings that are compared. The control in equal time is not one of them."""
    return max(
        (row.epochs for row in rows if row.epochs is not None and row.control != EQUAL_TIME), default=None
    )
