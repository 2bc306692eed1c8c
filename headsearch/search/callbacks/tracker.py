"""For callbacks that keep one log per trial: what is logged when, and what a trial is described by.

A trial's values have an epoch each: the training loss after every epoch, and at a rung all scores. Heads of a joint screen are logged when
it has ended. A trial that goes on after an interruption goes on in its log.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headsearch.heads import Candidate, Scalar
from headsearch.results.records import State, TrialRecord
from headsearch.search.callbacks.broadcast import Callback
from headsearch.search.observer import SearchStatus
from headsearch.training.trial import RungScores, Training, Trial


@dataclass(frozen=True)
class Subject:
    """The search that callbacks are told about."""

    name: str
    """Of the experiment."""
    key: str
    """Of this run alone, the same when it is resumed."""
    folder: Path
    """The run directory."""
    experiment: str
    """The experiment as resolved, as YAML, without passwords."""


@dataclass(frozen=True)
class LoggedTrial:
    """The trial that a log is about."""

    number: int
    candidate: Candidate
    control: str | None
    seed: int
    replicate: int
    stage: str

    @classmethod
    def of(cls, trial: Trial | TrialRecord, training: Training | TrialRecord) -> LoggedTrial:
        """A trial of a training, or a record, which is both."""
        return cls(
            trial.number, trial.candidate, trial.control, training.seed, training.replicate, training.stage
        )

    @property
    def title(self) -> str:
        """For people: `3-convnext-d3-k7-1a2b3c4d`, `0-control-none`; a replicate has `-seed2` behind it."""
        again = f"-seed{self.replicate + 1}" if self.replicate else ""
        return f"{self.number}-{f'control-{self.control}' if self.control else self.candidate.head_id}{again}"

    @property
    def parameters(self) -> dict[str, Scalar]:
        """What to compare trials by: family, depth, and the parameters of the stages; those of a head with several by place."""
        config = self.candidate.config
        described: dict[str, Scalar] = {
            "family": config.family,
            "depth": config.depth,
            "control": self.control or "",
            "replicate": self.replicate,
            "stage": self.stage,
        }
        for place, stage in enumerate(config.stages, start=1):
            prefix = "" if len(config.stages) == 1 else f"slot{place}."
            if prefix:
                described[f"{prefix}family"] = stage.family
            described |= {f"{prefix}{name}": value for name, value in stage.params.items()}
        return described


_NO_SCORES = ("epoch", "measures", "quality")
"""Fields of `RungScores` that are no single score."""


class Tracker(Callback, abc.ABC):
    """Turns what happens into logs of trials."""

    def __init__(self) -> None:
        self._epochs: dict[int, int] = {}
        """Of the trials whose logs are open, the last one logged."""

    @abc.abstractmethod
    def begin(self, trial: LoggedTrial) -> None:
        """A trial starts, or goes on."""

    @abc.abstractmethod
    def log(self, number: int, epoch: int, values: Mapping[str, float]) -> None:
        """Values of a trial after an epoch; all are finite or NaN or infinite numbers."""

    @abc.abstractmethod
    def end(self, number: int, state: State, reason: str | None) -> None:
        """A trial has ended; its log is complete."""

    @abc.abstractmethod
    def close(self) -> None:
        """No more comes for now. Trials that have begun and not ended are resumed by a later search."""

    def training_started(self, training: Training, status: SearchStatus) -> None:
        if training.stage == "screen":
            return
        for trial in training.trials:
            self._epochs[trial.number] = 0
            self.begin(LoggedTrial.of(trial, training))

    def training_progress(
        self, training: Training, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        done, number = int(epoch), training.number
        if done > self._epochs.get(number, done):
            self._epochs[number] = done
            self.log(number, done, {"train/loss": loss, "train/images_per_second": images_per_second})

    def rung_reached(self, training: Training, place: int, scores: RungScores) -> None:
        number = training.trials[place].number
        if number in self._epochs:
            self.log(number, scores.epoch, score_values(scores))

    def training_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
        for record in records:
            if record.state == "duplicate":
                continue
            if self._epochs.pop(record.number, None) is None:
                # Its log has not been begun: it is written as a whole.
                self.begin(LoggedTrial.of(record, record))
                for scores in record.rungs:
                    self.log(record.number, scores.epoch, score_values(scores))
            self.end(record.number, record.state, record.reason)


def score_values(scores: RungScores) -> dict[str, float]:
    """The scores of a rung by name, what is unknown left out."""
    single = {name: value for name, value in vars(scores).items() if name not in _NO_SCORES}
    named = {f"score/{name}": value for name, value in single.items() if value is not None}
    named |= {f"measure/{name}": value for name, value in scores.measures.items()}
    return named | {f"quality/{name}": value for name, value in scores.quality.items()}
