"""Trainings in worker processes on this machine (`leading.py` leads them).

Workers are spawned, not forked: CUDA and threads do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Sequence
from multiprocessing.context import SpawnProcess

from headsearch.processes import ending, strike, without_main
from headsearch.search.executors import TrainingSource
from headsearch.search.executors.leading import Worker, heard, lead
from headsearch.search.executors.placement import Placement
from headsearch.search.executors.worker import work
from headsearch.signals import interrupted_once
from headsearch.training.trial import Evaluate, Training

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
        team = [_Process(place, packed, self._timeout) for place in self._placements]
        with interrupted_once():
            try:
                lead(team, source, lambda: heard(team), max_retries=self._max_retries)
                for worker in team:
                    worker.dismiss()
            finally:
                for worker in team:
                    worker.strike()
                for worker in team:
                    worker.kill()


class _Process(Worker):
    """A process of this machine, which is started when there is work."""

    def __init__(self, placement: Placement, packed: bytes, timeout: float) -> None:
        super().__init__(timeout)
        self._placement = placement
        self._packed = packed
        self._process: SpawnProcess | None = None

    def start(self, training: Training) -> None:
        """Hand over a training."""
        if self.pipe is not None:
            try:
                self.pipe.send(training)
            except OSError:
                # It died while it was idle: nobody's trial is lost.
                self.kill()
        fresh = self.pipe is None
        if self.pipe is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            # Not a daemon, which may have no children: trials start loaders.
            self._process = context.Process(target=work, args=(theirs, self._placement, self._packed))
            with without_main():
                self._process.start()
            theirs.close()
            self.pipe.send(training)
        self.work_on(training, fresh=fresh)

    def dismiss(self) -> None:
        """Let an idle process end."""
        if self.pipe is not None and self._process is not None:
            self.tell(None)
            self._process.join(END_SECONDS)

    def strike(self) -> None:
        """Kill the process and all it has started; do not wait for it."""
        if self._process is not None:
            strike(self._process)

    def kill(self) -> str:
        """End the process and all it has started, now. Returns how it ended, for people."""
        if self._process is None or self.pipe is None or self._process.pid is None:
            return "never started"
        self.strike()
        self._process.join()
        how = ending(self._process)
        self._process.close()
        self.pipe.close()
        self._process = self.pipe = None
        return how
