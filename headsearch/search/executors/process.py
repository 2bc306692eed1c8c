"""Trainings in worker processes on this machine. The coordinating process hands them out, answers at rungs, and writes; workers train.

Workers are spawned, not forked: CUDA and threads do not survive a fork. A worker that dies, or says nothing for too long and is killed,
leaves a checkpoint behind, from which another takes up its training.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from headsearch.processes import ending, strike, without_main
from headsearch.search.executors import Failed, TrainingSource
from headsearch.search.executors.placement import Placement
from headsearch.search.executors.worker import Ended, Message, Progressed, Ready, Reported, Waits, work
from headsearch.signals import interrupted_once
from headsearch.training.trial import Evaluate, Training

START_SECONDS = 300.0
"""A worker that has just been started may take so long, at least, to import what it needs."""
END_SECONDS = 5.0
"""For an idle worker to end by itself."""


class ProcessExecutor:
    """Evaluates trainings in worker processes, one per placement."""

    def __init__(self, placements: Sequence[Placement], *, max_retries: int, timeout: float) -> None:
        """A trial whose worker is lost is given to another `max_retries` times. A worker is lost when it dies, or says nothing for
        `timeout` seconds."""
        self._placements = placements
        self._max_retries = max_retries
        self._timeout = timeout

    def run(self, source: TrainingSource, evaluate: Evaluate) -> None:
        """Evaluate all that `source` hands out. However this ends, no worker outlives it."""
        packed = pickle.dumps(evaluate)
        team = [_Worker(place, packed, self._timeout) for place in self._placements]
        with interrupted_once():
            try:
                self._lead(team, source)
            finally:
                for worker in team:
                    worker.strike()
                for worker in team:
                    worker.kill()

    def _lead(self, team: Sequence[_Worker], source: TrainingSource) -> None:
        again: deque[Training] = deque()
        losses: Counter[int] = Counter()
        while True:
            for worker in team:
                if worker.training is None:
                    training = again.popleft() if again else source.next_training()
                    if training is None:
                        break
                    worker.start(training)
            busy = [worker for worker in team if worker.training is not None]
            if not busy:
                assert source.done, "nobody is at work, so there is nothing to wait for"
                break
            for worker in _heard(busy):
                try:
                    _attend(worker, source)
                except _Gone:
                    self._lose(worker, f"ended unexpectedly ({worker.kill()})", source, again, losses)
            for worker in busy:
                if worker.overdue:
                    worker.kill()
                    self._lose(worker, f"gave no sign of life for {self._timeout:g} s", source, again, losses)
        for worker in team:
            worker.dismiss()

    def _lose(
        self, worker: _Worker, how: str, source: TrainingSource, again: deque[Training], losses: Counter[int]
    ) -> None:
        """Have a lost worker's trial run again, or give it up."""
        training, worker.training = worker.training, None
        assert training is not None, "only busy workers are listened to"
        losses[training.number] += 1
        if losses[training.number] <= self._max_retries:
            source.note(f"trial {training.number}: its worker {how}; another takes it up from its checkpoint")
            again.append(training)
        else:
            times = f", {losses[training.number]} times" if losses[training.number] > 1 else ""
            source.settle(training, Failed(f"its worker {how}{times}", "failed"))


class _Gone(Exception):
    """The process of a worker is no more."""


@dataclass
class _Worker:
    """A place for a process, which is started when there is work, and anew after it was lost."""

    placement: Placement
    packed: bytes
    timeout: float
    training: Training | None = None
    process: SpawnProcess | None = None
    pipe: Connection | None = None
    until: float = 0.0
    """When a busy worker will have been silent for too long, on the monotonic clock."""

    @property
    def overdue(self) -> bool:
        """Whether a busy worker has been silent for too long."""
        if self.training is None or self.pipe is None or time.monotonic() <= self.until:
            return False
        # What it has said may be waiting, where it was the coordinator that had no time.
        return not self.pipe.poll()

    def start(self, training: Training) -> None:
        """Hand over a training."""
        if self.pipe is not None:
            try:
                self.pipe.send(training)
            except OSError:
                # It died while it was idle: nobody's trial is lost.
                self.kill()
        if self.pipe is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            # Not a daemon, which may have no children: trials start loaders.
            self.process = context.Process(target=work, args=(theirs, self.placement, self.packed))
            with without_main():
                self.process.start()
            theirs.close()
            self.pipe.send(training)
            self.until = time.monotonic() + max(self.timeout, START_SECONDS)
        else:
            self.until = time.monotonic() + self.timeout
        self.training = training

    def receive(self) -> Message:
        """The next message. Raises `_Gone`."""
        assert self.pipe is not None
        try:
            message: Message = self.pipe.recv()
        except (EOFError, OSError):
            raise _Gone from None
        self.until = time.monotonic() + self.timeout
        return message

    def answer(self, go_on: bool) -> None:
        """Let the trial go on from a rung, or not."""
        assert self.pipe is not None
        # Where it is gone, the next `receive` says so.
        with contextlib.suppress(OSError):
            self.pipe.send(go_on)

    def dismiss(self) -> None:
        """Let an idle process end."""
        if self.pipe is not None and self.process is not None:
            with contextlib.suppress(OSError):
                self.pipe.send(None)
            self.process.join(END_SECONDS)

    def strike(self) -> None:
        """Kill the process and all it has started; do not wait for it."""
        if self.process is not None:
            strike(self.process)

    def kill(self) -> str:
        """End the process and all it has started, now. Returns how it ended, for people."""
        if self.process is None or self.pipe is None or self.process.pid is None:
            return "never started"
        self.strike()
        self.process.join()
        how = ending(self.process)
        self.process.close()
        self.pipe.close()
        self.process = self.pipe = None
        return how


def _heard(busy: Sequence[_Worker]) -> list[_Worker]:
    """Wait until a worker has something to say, or one is overdue, or so long that a signal is noticed; those that have."""
    pipes = {worker.pipe: worker for worker in busy if worker.pipe is not None}
    patience = min(worker.until for worker in busy) - time.monotonic()
    return [pipes[pipe] for pipe in wait(list(pipes), timeout=max(0.0, min(patience, 1.0)))]  # type: ignore[index]


def _attend(worker: _Worker, source: TrainingSource) -> None:
    """Act on one message. Raises `_Gone`."""
    message = worker.receive()
    training = worker.training
    assert training is not None, "a worker speaks of its training"
    match message:
        case Ready():
            return
        case Waits(why):
            source.waits(training, why)
        case Progressed(epoch, epochs, loss, images_per_second):
            source.progress(training, epoch, epochs, loss, images_per_second)
        case Reported(place, scores):
            worker.answer(source.report(training, place, scores))
        case Ended(outcome):
            worker.training = None
            source.settle(training, outcome)
