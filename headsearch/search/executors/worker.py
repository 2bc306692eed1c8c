"""What runs in a worker process: trainings, one after the other, and messages about them over a pipe. Light until the evaluator is unpacked.

coordinator → worker    a `Training`, then the answer (bool) to each `Reported`; None when there are no more
worker → coordinator    `Ready` once, then per training any number of `Waits`, `Progressed` and `Reported`, and one `Ended`
"""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from headsearch.processes import end_after, parent_ends
from headsearch.search.executors import Outcome, attempt
from headsearch.search.executors.placement import Placement
from headsearch.training.trial import Evaluate, RungScores, Training

PROGRESS_SECONDS = 0.1
"""Between two messages about progress; a trial may tell more often."""


@dataclass(frozen=True)
class Ready:
    """The worker has started."""


@dataclass(frozen=True)
class Waits:
    """The worker's trial waits, and at first why."""

    why: str


@dataclass(frozen=True)
class Progressed:
    """How far the worker's trial is."""

    epoch: float
    epochs: int
    loss: float
    images_per_second: float


@dataclass(frozen=True)
class Reported:
    """A candidate of the worker's training has been scored at a rung; the training waits to be told whether it goes on."""

    place: int
    scores: RungScores


@dataclass(frozen=True)
class Ended:
    """The worker's trial has ended; the worker waits for another."""

    outcome: Outcome


Message = Ready | Waits | Progressed | Reported | Ended


def work(
    pipe: Connection, placement: Placement, packed: bytes, gone: Callable[[], object] = parent_ends
) -> None:
    """Run the trainings that come through `pipe` with the pickled evaluator in `packed`, which is unpacked here: it may import torch.

    `gone` returns when the coordinator is no more.
    """
    end_after(gone)
    placement.apply()
    evaluate: Evaluate = pickle.loads(packed)
    placement.apply()
    with contextlib.suppress(EOFError, ConnectionError):
        _serve(pipe, evaluate)


def _serve(pipe: Connection, evaluate: Evaluate) -> None:
    last = 0.0

    def progress(
        training: Training, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PROGRESS_SECONDS:
            last = now
            pipe.send(Progressed(epoch, epochs, loss, images_per_second))

    def report(training: Training, place: int, scores: RungScores) -> bool:
        pipe.send(Reported(place, scores))
        go_on: bool = pipe.recv()
        return go_on

    def waits(training: Training, why: str) -> None:
        pipe.send(Waits(why))

    pipe.send(Ready())
    while (training := pipe.recv()) is not None:
        pipe.send(Ended(attempt(evaluate, training, report, progress, waits)))
