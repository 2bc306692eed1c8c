"""What passes between a search and a training: what is to be trained, what is reported meanwhile, and how it ended. No torch here.

A training has one candidate (a proxy, of a head, a set or a control) or several on one base (a screen), and gives a result for each: a trial.
Every executor calls the same function, `evaluate(training, context) -> TrainingResult`, and forwards what it reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from headsearch.heads.candidate import Candidate
from headsearch.heads.cost import HeadCost

CHECKPOINTS = "checkpoint.*"
"""What a training that can be resumed keeps its state in, as a pattern of names in its folder. The search removes these files, once its end
is written down."""

EMBEDDINGS = "embeddings.safetensors"
"""The file in its folder in which a trial without a head keeps what its base makes of held-out images; it stays."""

TRUNK = "trunk.safetensors"
"""The file in a trunk's folder with the weights of its base, by timm's names; it stays."""

BEGINNING = "checkpoint.trunk.safetensors"
"""A copy of it in the folder of a training that branches from it. It travels with the folder, and is removed with the checkpoints."""

TrialStage = Literal["trunk", "screen", "proxy", "equal-time", "anchor"]
"""How a head was trained: jointly with others on one base and scored without labels, or with a base of its own, and then for a short time or, of an
anchor, for as long as the real pretraining. `equal-time` is a proxy without a head that is given the time of one with the best. A trunk has no head: it is the base that screens and proxies of its replicate begin with."""

EQUAL_TIME = "none-equal-time"
"""What no head is called, as a head and as a control, where it is given the time of the best one."""

BRANCHES: tuple[TrialStage, ...] = ("screen", "proxy", "equal-time")
"""Stages that begin with the trunk, where there is one."""


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
        return vars(self) | {"measures": dict(self.measures), "quality": dict(self.quality)}


@dataclass(frozen=True)
class Trial:
    """A candidate of a training, as the study knows it."""

    number: int
    """In the study."""
    candidate: Candidate
    control: str | None = None
    """Which control this is; None for a searched head."""


@dataclass(frozen=True)
class Training:
    """One training to be done. The same trials, seed and folder again when it is resumed."""

    trials: tuple[Trial, ...]
    """One of each candidate, in the order of their places."""
    seed: int
    """hash(study seed, what is trained, replicate): the same on every executor and in any order."""
    workdir: Path
    """Its own folder: metrics and checkpoints go here and nowhere else. It exists."""
    replicate: int = 0
    stage: TrialStage = "proxy"
    epochs: int | None = None
    """How long, of an anchor and of the control of equal time; None: as the experiment has it for the stage."""

    @property
    def number(self) -> int:
        """What it is called by: the number of its first trial."""
        return self.trials[0].number

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What is trained, by place."""
        return tuple(trial.candidate for trial in self.trials)


@dataclass(frozen=True)
class TrialResult:
    """How a candidate came out of its training."""

    state: Literal["complete", "stopped", "infeasible", "failed"]
    """`complete`: it ran its full budget. `stopped`: ended at a rung, where others did better."""
    rungs: tuple[RungScores, ...]
    """In order of epoch; of a complete trial, the last is at the full budget."""
    cost: HeadCost | None = None
    reason: str | None = None
    """Why it did not stay to the end."""


@dataclass(frozen=True)
class TrainingResult:
    """The end of a training that was not told to stop."""

    trials: tuple[TrialResult, ...]
    """By place."""
    seconds: float
    """Wall time, over all attempts."""
    images_per_second: float | None = None
    """Training throughput, scoring left out."""
    left_out: tuple[str, ...] = ()
    """What a person should know of images that could not be read meanwhile, a line each."""
    notes: tuple[str, ...] = ()
    """What else a person should know, a line each: told of one training, where several say the same."""


class TrainingContext(Protocol):
    """What a training may ask of the executor that runs it."""

    def report(self, place: int, scores: RungScores) -> None:
        """Hand over the scores at a rung of the candidate at `place`. Raises `TrialStopped` when the search wants no more of this training.

        A training that is resumed reports a rung again unless it knows that the search has heard of it."""

    def progress(self, epoch: float, epochs: int, loss: float, images_per_second: float) -> None:
        """Tell how far training is, for people to look at. Cheap enough to call at every step; never raises."""

    def waits(self, why: str) -> None:
        """Tell that the training waits; a sign of life. `why` is for people, a line at first and then empty."""


class Evaluate(Protocol):
    """Scores candidates; the same callable under every executor."""

    def __call__(self, training: Training, context: TrainingContext) -> TrainingResult:
        """Train the base with the candidates on a short schedule and score each of them."""
