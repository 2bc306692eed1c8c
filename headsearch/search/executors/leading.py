"""Trainings handed to workers that speak over a connection, in whatever processes these are. The coordinating process hands out, answers at rungs,
and writes; workers train (`worker.py`).

A worker that dies, or says nothing for too long and is killed, leaves a checkpoint behind, from which another takes up its training.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from socket import socket

from headsearch.search.executors import Failed, TrainingSource
from headsearch.search.executors.worker import Ended, Message, Progressed, Ready, Reported, Waits
from headsearch.training.trial import Training

START_SECONDS = 300.0
"""A worker that has just been started may take so long, at least, to import what it needs."""


class Gone(Exception):
    """A worker is no more."""


class Worker(ABC):
    """A place for a process that trains, which is started anew after it was lost."""

    blameless = False
    """Whether the last process was lost through no fault of its training, which does not count as a try."""

    def __init__(self, timeout: float) -> None:
        """One that says nothing for `timeout` seconds is lost."""
        self.timeout = timeout
        self.training: Training | None = None
        self.pipe: Connection | None = None
        self.until = 0.0
        """When a busy worker will have been silent for too long, on the monotonic clock."""

    @property
    def ready(self) -> bool:
        """Whether an idle worker can be handed a training."""
        return True

    @abstractmethod
    def start(self, training: Training) -> None:
        """Hand over a training."""

    @abstractmethod
    def kill(self) -> str:
        """End the process and all it has started, now. Returns how it ended, for people."""

    @property
    def overdue(self) -> bool:
        """Whether a busy worker has been silent for too long."""
        if self.training is None or self.pipe is None or time.monotonic() <= self.until:
            return False
        # What it has said may be waiting, where it was the coordinator that had no time.
        return not self.pipe.poll()

    def work_on(self, training: Training, *, fresh: bool) -> None:
        """Note that it has the training from now on; `fresh`: it has yet to import what it needs."""
        self.training = training
        self.until = time.monotonic() + (max(self.timeout, START_SECONDS) if fresh else self.timeout)

    def receive(self) -> Message:
        """The next message. Raises `Gone`."""
        assert self.pipe is not None
        try:
            message: Message = self.pipe.recv()
        except (EOFError, OSError):
            raise Gone from None
        self.until = time.monotonic() + self.timeout
        return message

    def tell(self, what: Training | bool | None) -> None:
        """Send a training, whether one goes on from a rung, or that there are no more."""
        assert self.pipe is not None
        # Where it is gone, the next `receive` says so.
        with contextlib.suppress(OSError):
            self.pipe.send(what)


def lead(
    team: Sequence[Worker], source: TrainingSource, listen: Callable[[], list[Worker]], *, max_retries: int
) -> None:
    """Have the workers evaluate all that `source` hands out.

    Args:
        team: the workers.
        source: where trainings come from.
        listen: waits until workers have something to say, but not for long; those that have.
        max_retries: a trial whose worker is lost is given to another so many times.
    """
    again: deque[Training] = deque()
    losses: Counter[int] = Counter()

    def lose(worker: Worker, how: str) -> None:
        """Have a lost worker's trial run again, or give it up."""
        training, worker.training = worker.training, None
        if training is None:
            return
        losses[training.number] += not worker.blameless
        if losses[training.number] <= max_retries:
            source.note(f"trial {training.number}: its worker {how}; another takes it up from its checkpoint")
            again.append(training)
        else:
            times = f", {losses[training.number]} times" if losses[training.number] > 1 else ""
            source.settle(training, Failed(f"its worker {how}{times}", "failed"))

    while True:
        for worker in team:
            if worker.training is None and worker.ready:
                training = again.popleft() if again else source.next_training()
                if training is None:
                    break
                worker.start(training)
        busy = [worker for worker in team if worker.training is not None]
        if not busy and not again:
            # Where no worker is ready yet, whether any will be needed.
            training = source.next_training()
            if training is None:
                assert source.done, "nobody is at work, so there is nothing to wait for"
                return
            again.append(training)
        for worker in listen():
            try:
                _attend(worker, source)
            except Gone:
                how = worker.kill()
                lose(worker, f"ended unexpectedly ({how})")
        for worker in busy:
            if worker.overdue:
                worker.kill()
                lose(worker, f"gave no sign of life for {worker.timeout:g} s")


def heard(team: Sequence[Worker], *doors: socket) -> list[Worker]:
    """Wait until a worker has something to say, somebody is at a door, a worker is overdue, or so long that a signal is noticed; the workers that have."""
    pipes = {worker.pipe: worker for worker in team if worker.pipe is not None}
    now = time.monotonic()
    patience = min(
        (worker.until - now for worker in pipes.values() if worker.training is not None), default=1.0
    )
    found = wait([*pipes, *doors], timeout=max(0.0, min(patience, 1.0)))
    return [worker for pipe, worker in pipes.items() if pipe in found]


def _attend(worker: Worker, source: TrainingSource) -> None:
    """Act on one message. Raises `Gone`."""
    message = worker.receive()
    if isinstance(message, Ready):
        return
    training = worker.training
    assert training is not None, "a worker speaks of its training"
    if isinstance(message, Ended):
        worker.training = None
        source.settle(training, message.outcome)
        return
    go_on = pass_on(message, training, source)
    if go_on is not None:
        worker.tell(go_on)


def pass_on(
    message: Waits | Progressed | Reported, training: Training, source: TrainingSource
) -> bool | None:
    """Tell what a worker says of its training; whether the training goes on, where it waits to be told."""
    match message:
        case Waits(why):
            source.waits(training, why)
        case Progressed(epoch, epochs, loss, images_per_second):
            source.progress(training, epoch, epochs, loss, images_per_second)
        case Reported(place, scores):
            return source.report(training, place, scores)
    return None
