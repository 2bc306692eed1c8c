"""For callbacks that keep one log per trial: what is logged when, and what a trial is described by.

A trial's values have an epoch each: the training loss after every epoch, and at a rung all scores. Heads of a joint screen are logged when
it has ended. A trial that goes on after an interruption goes on in its log.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headsearch.heads.config import Scalar
from headsearch.results.records import State, TrialRecord
from headsearch.search.executors import Job
from headsearch.search.observer import SearchStatus, SilentObserver
from headsearch.training.trial import RungScores


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


Trial = Job | TrialRecord
"""What a log is about: a trial as it starts, or one of a joint screen when it has ended."""


def title(trial: Trial) -> str:
    """For people: `3-convnext-d3-k7-1a2b3c4d`, `0-control-none`; a replicate has `-seed2` behind it."""
    again = f"-seed{trial.replicate + 1}" if trial.replicate else ""
    return f"{trial.number}-{f'control-{trial.control}' if trial.control else trial.head_id}{again}"


def parameters(trial: Trial) -> dict[str, Scalar]:
    """What to compare trials by: family, depth, and the parameters of the stages; those of a head with several by place."""
    stages = trial.config.stages
    described: dict[str, Scalar] = {
        "family": trial.config.family,
        "depth": trial.config.depth,
        "control": trial.control or "",
        "replicate": trial.replicate,
        "stage": trial.stage,
    }
    for place, stage in enumerate(stages, start=1):
        prefix = "" if len(stages) == 1 else f"slot{place}."
        if prefix:
            described[f"{prefix}family"] = stage.family
        described |= {f"{prefix}{name}": value for name, value in stage.params.items()}
    return described


class Tracker(SilentObserver, abc.ABC):
    """Turns what happens into logs of trials."""

    name: str

    def __init__(self) -> None:
        self._epochs: dict[int, int] = {}
        """Of the trials that run, the last one logged."""

    @abc.abstractmethod
    def begin(self, trial: Trial) -> None:
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

    def trial_started(self, job: Job, status: SearchStatus) -> None:
        if job.stage == "screen":
            return
        self._epochs[job.number] = 0
        self.begin(job)

    def trial_progress(
        self, job: Job, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        done = int(epoch)
        if done > self._epochs.get(job.number, done):
            self._epochs[job.number] = done
            self.log(job.number, done, {"train/loss": loss, "train/images_per_second": images_per_second})

    def rung_reached(self, job: Job, scores: RungScores) -> None:
        if job.stage != "screen":
            self.log(job.number, scores.epoch, score_values(scores))

    def trial_ended(self, record: TrialRecord, status: SearchStatus) -> None:
        if record.state != "duplicate":
            self._epochs.pop(record.number, None)
            self.end(record.number, record.state, record.reason)

    def screen_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
        for record in records:
            self.begin(record)
            for scores in record.rungs:
                self.log(record.number, scores.epoch, score_values(scores))
            self.end(record.number, record.state, record.reason)


_SINGLE = ("loss", "discrepancy", "knn", "linear", "rankme_base", "rankme_head", "std_base", "std_head")


def score_values(scores: RungScores) -> dict[str, float]:
    """The scores of a rung by name, what is unknown left out."""
    named = {f"score/{name}": value for name in _SINGLE if (value := getattr(scores, name)) is not None}
    named |= {f"measure/{name}": value for name, value in scores.measures.items()}
    return named | {f"quality/{name}": value for name, value in scores.quality.items()}
