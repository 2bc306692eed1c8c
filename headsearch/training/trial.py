"""What passes between a search and a trial: the context it runs in, and the scores it gives back. No torch here.

Every executor calls the same function, `evaluate(config, context) -> TrialResult`, and forwards what it reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from headsearch.heads.config import HeadConfig
from headsearch.heads.cost import HeadCost

CHECKPOINTS = "checkpoint.*"
"""What a trial that can be resumed keeps its state in, as a pattern of names in its work directory. The search removes these files, once
the end of the trial is written down."""

EMBEDDINGS = "embeddings.safetensors"
"""The file in its work directory in which a trial without a head keeps what its base makes of held-out images; it stays."""

Stage = Literal["screen", "proxy"]
"""How a head was trained: jointly with others on one base, or with a base of its own."""


@dataclass(frozen=True)
class RungScores:
    """What is measured at a rung. Unknown is None, never 0 or NaN."""

    epoch: int
    """Epochs trained so far."""
    loss: float
    """Mean training loss of the last epoch."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Every discrepancy measure by name, `<measure>.<embedding|tokens>.<output|change>`; empty without a head."""
    discrepancy: float | None = None
    """The measure that the experiment ranks by; None without a head."""
    knn: float | None = None
    """k-NN accuracy of the frozen base in percent; None without labels."""
    linear: float | None = None
    """Linear-probe accuracy in percent; None before the full budget and without labels."""
    rankme_base: float | None = None
    """Effective rank of the base's embeddings."""
    rankme_head: float | None = None
    """Effective rank of the head's embeddings; None without a head."""
    std_base: float | None = None
    """Mean standard deviation over the features of the L2-normalised base embeddings, times sqrt(dim): 1 is isotropic, 0 collapsed."""
    std_head: float | None = None
    """The same for the head's embeddings; None without a head."""
    quality: Mapping[str, float] = field(default_factory=dict)
    """What two views of the same images tell of the representations, without labels: `<retrieval|alignment|uniformity>.<base|head>`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"measures": dict(self.measures), "quality": dict(self.quality)}


@dataclass(frozen=True)
class TrialResult:
    """The end of a trial that ran its full budget."""

    rungs: tuple[RungScores, ...]
    """In order of epoch; the last is at the full budget."""
    cost: HeadCost
    seconds: float
    """Wall time of this trial, over all its attempts."""
    images_per_second: float | None = None
    """Training throughput, scoring left out."""
    left_out: tuple[str, ...] = ()
    """What a person should know of images that could not be read meanwhile, a line each."""

    @property
    def final(self) -> RungScores:
        """Scores at the full budget."""
        return self.rungs[-1]


@dataclass(frozen=True)
class MemberScores(RungScores):
    """What is measured at a rung of one head of a joint run."""

    member: int = 0
    """Its place in the run."""

    def alone(self) -> RungScores:
        """The scores without the place."""
        values = {name: value for name, value in vars(self).items() if name != "member"}
        return RungScores(**values)


@dataclass(frozen=True)
class ScreenedHead:
    """How one head of a joint run ended."""

    state: Literal["complete", "stopped", "infeasible"]
    """`stopped`: dropped at a rung, where others of the run did better."""
    rungs: tuple[RungScores, ...]
    """In order of epoch."""
    cost: HeadCost
    reason: str | None = None
    """Why it did not stay to the end."""


@dataclass(frozen=True)
class ScreenResult:
    """The end of a joint run of many heads on one base."""

    heads: tuple[ScreenedHead, ...]
    """In the order of the config's members."""
    seconds: float
    """Wall time of the whole run, over all its attempts."""
    images_per_second: float | None = None
    """Training throughput, scoring left out."""
    left_out: tuple[str, ...] = ()
    """As in `TrialResult`."""


class TrialContext(Protocol):
    """What a trial may ask of the executor that runs it."""

    @property
    def seed(self) -> int:
        """hash(study seed, head id, replicate): the same on every executor and in any order."""

    @property
    def workdir(self) -> Path:
        """The trial's own folder: metrics and checkpoints go here and nowhere else."""

    @property
    def stage(self) -> Stage:
        """`screen`: the config's heads are trained jointly, each scored on its own; `proxy`: as one candidate."""

    def report(self, scores: RungScores) -> None:
        """Hand over the scores of a rung; in a joint run, of one of its heads (`MemberScores`). Raises `TrialStopped` when the search
        wants no more of this trial.

        A trial that is resumed reports a rung again unless it knows that the search has heard of it."""

    def progress(self, epoch: float, epochs: int, loss: float, images_per_second: float) -> None:
        """Tell how far training is, for people to look at. Cheap enough to call at every step; never raises."""


class Evaluate(Protocol):
    """Scores one head; the same callable under every executor."""

    def __call__(self, config: HeadConfig, context: TrialContext) -> TrialResult | ScreenResult:
        """Train `config`'s head with the base on a short schedule and score it; a `ScreenResult` where the context's stage is `screen`."""
