"""Where trainings run. An executor asks the coordinator for trainings, evaluates them, and hands back how they ended.

The coordinator decides and writes; an executor never sees the study. A training and an outcome are plain data, so that they can travel to
another process or another machine, where `attempt` runs a training just as it does here:

    while (training := source.next_training()) is not None:
        source.settle(training, attempt(evaluate, training, report, progress, waits))

`InlineExecutor` is exactly that loop; `process.py` keeps several worker processes busy, `ray.py` the nodes of a cluster.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from headsearch.errors import HeadError, InfeasibleHead, TrialStopped, UserError
from headsearch.training.sharing import device_was_full
from headsearch.training.trial import Evaluate, RungScores, Training, TrainingResult


@dataclass(frozen=True)
class Stopped:
    """The search wanted no more of this training after a rung. Its scores have been reported."""


@dataclass(frozen=True)
class Failed:
    """The training gave no result."""

    reason: str
    """One line."""
    kind: Literal["infeasible", "failed", "halt"]
    """`infeasible`: the head's own fault (collapsed, not finite, out of memory, cannot be built here); the search goes on.
    `failed`: unexpected; the search goes on, unless nothing works.
    `halt`: nothing is wrong with the head, and every other training would end the same (disk full, data gone); the search ends, and the
    training can be resumed."""
    details: str = ""
    """Traceback, for the training's folder."""


Outcome = TrainingResult | Stopped | Failed


class TrainingSource(Protocol):
    """What an executor sees of the coordinator. To be called from one thread of the coordinating process only."""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to hand out and nothing to wait for."""

    def next_training(self) -> Training | None:
        """A training to run, recorded as running; None when there is none now: `done`, or others must be settled first."""

    def report(self, training: Training, place: int, scores: RungScores) -> bool:
        """Record the scores of a rung of the candidate at `place`; whether the training shall go on."""

    def progress(
        self, training: Training, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        """Pass on how far a training is, for people to look at."""

    def waits(self, training: Training, why: str) -> None:
        """Pass on that a training waits, and at first why; a sign of life."""

    def note(self, text: str) -> None:
        """Pass on something worth a line, e.g. that a worker was lost."""

    def settle(self, training: Training, outcome: Outcome) -> None:
        """Record how a training ended. Raises `RunError` where the search cannot go on."""


class Executor(Protocol):
    """Runs trainings until the source is done."""

    def run(self, source: TrainingSource, evaluate: Evaluate) -> None:
        """Evaluate all that `source` hands out. On KeyboardInterrupt, let go of what runs without settling it."""


Report = Callable[[Training, int, RungScores], bool]
Progress = Callable[[Training, float, int, float, float], None]
Waits = Callable[[Training, str], None]


@dataclass(frozen=True)
class Context:
    """The `TrainingContext` of a training: forwards what it reports."""

    training: Training
    on_report: Report
    on_progress: Progress
    on_waits: Waits

    def report(self, place: int, scores: RungScores) -> None:
        if not self.on_report(self.training, place, scores):
            raise TrialStopped(f"stopped at epoch {scores.epoch}")

    def progress(self, epoch: float, epochs: int, loss: float, images_per_second: float) -> None:
        self.on_progress(self.training, epoch, epochs, loss, images_per_second)

    def waits(self, why: str) -> None:
        self.on_waits(self.training, why)


def attempt(
    evaluate: Evaluate, training: Training, report: Report, progress: Progress, waits: Waits
) -> Outcome:
    """Run a training to its end, whatever that is. KeyboardInterrupt and SystemExit pass through; so does what `report` raises by itself."""
    raised_by_search: list[BaseException] = []

    def guarded(training: Training, place: int, scores: RungScores) -> bool:
        try:
            return report(training, place, scores)
        except BaseException as error:
            raised_by_search.append(error)
            raise

    try:
        return evaluate(training, Context(training, guarded, progress, waits))
    except TrialStopped:
        return Stopped()
    except Exception as error:
        if error in raised_by_search:
            # The study could not be written: that is no outcome of the training.
            raise
        return failure(error)


def failure(error: Exception) -> Failed:
    """What an exception raised by a training says about it."""
    details = "".join(traceback.format_exception(error))
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, InfeasibleHead | HeadError):
        return Failed(reason, "infeasible", details)
    if _out_of_memory(error):
        return Failed(f"out of memory: {reason}"[:300], "infeasible", details)
    if isinstance(error, UserError):
        return Failed(reason, "halt", details)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failed(f"no space left on the device ({error.filename or 'while writing'})", "halt", details)
    return Failed(f"{type(error).__name__}: {reason}"[:300], "failed", details)


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or device_was_full(error):
        return True
    # torch has no type of its own for the host's memory.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


class InlineExecutor:
    """Trainings one after the other in this process: the simplest executor, and the one whose order is always the same."""

    def run(self, source: TrainingSource, evaluate: Evaluate) -> None:
        """Evaluate all that `source` hands out, in that order."""
        while (training := source.next_training()) is not None:
            outcome = attempt(evaluate, training, source.report, source.progress, source.waits)
            source.settle(training, outcome)
        assert source.done, "nothing runs elsewhere, so there is nothing to wait for"
