"""One trial as the study remembers it, as plain data and as a row of `headsearch trials`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from headsearch.files import checked
from headsearch.heads import Candidate, parse_head
from headsearch.heads.config import HeadConfig
from headsearch.heads.cost import HeadCost
from headsearch.scoring.score import head_score
from headsearch.training.trial import RungScores, TrialStage

State = Literal["running", "complete", "stopped", "infeasible", "failed", "duplicate"]
"""`complete` ran its full budget; `stopped` was ended at a rung; `infeasible` collapsed or cannot be built; `failed` broke for a
reason that is not the head's; `duplicate` was answered from an earlier trial."""


Taken = Literal["best", "chance"]
"""How a head of a funnel came to its proxy: as one of the best of the screen, or by chance."""

_MOST_EPOCHS = 10**7


@dataclass(frozen=True)
class TrialRecord:
    """Everything known about one trial."""

    number: int
    """Its number in the study, from 0."""
    state: State
    head_id: str
    """Of the canonical config; trials of one head share it."""
    config: HeadConfig
    control: str | None
    """`none`, `same` or `mlp` where the trial was run as a control; None where the search drew it."""
    seed: int
    replicate: int
    """0 for a head's first trial."""
    rungs: tuple[RungScores, ...]
    """In order of epoch. The last one of a complete trial is at the full budget."""
    cost: HeadCost | None
    seconds: float | None
    """Wall time."""
    images_per_second: float | None
    """Training throughput, scoring left out."""
    reason: str | None
    """Why it is infeasible, stopped or failed, in one line."""
    duplicate_of: int | None
    """Number of the trial that answered a duplicate."""
    stage: TrialStage = "proxy"
    """A head may be screened first and get a proxy of its own later: those are two trials."""
    taken: Taken | None = None
    """Only of a head's first proxy in a funnel, and only in runs that record it."""
    epochs: int | None = None
    """How long it is trained, if that differs from the other trials of its stage (`Training.epochs`); otherwise None."""

    @property
    def candidate(self) -> Candidate:
        """The head of the trial."""
        return Candidate(self.config, self.head_id)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is not finite is null."""
        return finite(
            vars(self)
            | {
                "config": self.config.to_dict(),
                "rungs": [rung.to_dict() for rung in self.rungs],
                "cost": vars(self.cost) if self.cost is not None else None,
            }
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialRecord:
        """The inverse of `to_dict`; a loss that was not finite comes back as NaN.

        Raises:
            HeadError: an unknown head.
            KeyError, TypeError, ValueError: this is not what `to_dict` gave.
        """
        rungs = tuple(map(_rung, data["rungs"]))
        if data["state"] == "complete" and not rungs:
            raise ValueError("complete, and without scores")
        return checked(cls, {**data, "config": parse_head(data["config"], recorded=True), "rungs": rungs})

    @property
    def last(self) -> RungScores | None:
        """Its scores at the last rung it reached."""
        return self.rungs[-1] if self.rungs else None

    @property
    def score(self) -> float | None:
        """The label-free score at the last rung it reached."""
        return None if self.last is None else head_score(self.last.measures, self.last.quality)


def training_of(record: TrialRecord) -> tuple[str, int]:
    """The training that a trial belongs to: its own, or the joint run that it shares with others."""
    return ("screen", record.seed) if record.stage == "screen" else ("proxy", record.number)


TRIAL_COLUMNS: Mapping[str, Callable[[TrialRecord], Any]] = {
    "number": lambda trial: trial.number,
    "state": lambda trial: trial.state,
    "head_id": lambda trial: trial.head_id,
    "family": lambda trial: trial.config.family,
    "control": lambda trial: trial.control,
    "stage": lambda trial: trial.stage,
    "seed": lambda trial: trial.seed,
    "replicate": lambda trial: trial.replicate,
    "rungs": lambda trial: [rung.epoch for rung in trial.rungs],
    "epoch": lambda trial: trial.last and trial.last.epoch,
    "loss": lambda trial: trial.last and trial.last.loss,
    "score": lambda trial: trial.score,
    "discrepancy": lambda trial: trial.last and trial.last.discrepancy,
    "knn": lambda trial: trial.last and trial.last.knn,
    "linear": lambda trial: trial.last and trial.last.linear,
    "seconds": lambda trial: trial.seconds,
    "images_per_second": lambda trial: trial.images_per_second,
    "duplicate_of": lambda trial: trial.duplicate_of,
    "reason": lambda trial: trial.reason,
}
"""The columns of `headsearch trials` by name; scores are those at the last rung reached."""


def trial_rows(records: Iterable[TrialRecord]) -> list[dict[str, Any]]:
    """One flat row per trial, by number: what it was, how far it came, and its scores. Unknown is None."""
    ordered = sorted(records, key=lambda record: record.number)
    return [finite({name: value(trial) for name, value in TRIAL_COLUMNS.items()}) for trial in ordered]


def finite(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same plain data with None in place of every number that is not finite, for JSON."""
    return {key: _finite(value) for key, value in data.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return finite(value)
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _rung(data: Mapping[str, Any]) -> RungScores:
    """Scores that were not finite were written as null. A loss that is null becomes NaN, any other score is unknown."""
    data = dict(data)
    data["loss"] = math.nan if data["loss"] is None else data["loss"]
    for name in ("measures", "quality"):
        if isinstance(data.get(name), Mapping):
            data[name] = {key: value for key, value in data[name].items() if value is not None}
    rung = checked(RungScores, data)
    if not 1 <= rung.epoch <= _MOST_EPOCHS:
        raise ValueError(f"epoch: {rung.epoch} is none")
    return rung
