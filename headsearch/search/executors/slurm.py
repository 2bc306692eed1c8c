"""Trainings in jobs of a SLURM cluster: each job is a worker, which connects to this process and takes one training after the other (`leading.py`).

A training is handed out when a job has started, not when it is submitted: a queue that lets in fewer jobs than were asked for delays a search,
and nothing else. Trials' folders are written where they belong, in the run directory, which all nodes must see.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import secrets
import shlex
import socket
import struct
import sys
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path

from headsearch.errors import RunError
from headsearch.experiment import SlurmSpec
from headsearch.search.executors import TrainingSource
from headsearch.search.executors.leading import Worker, heard, lead
from headsearch.search.executors.placement import Placement
from headsearch.search.executors.slurm_jobs import (
    CANCEL_SECONDS,
    SubmissionRefused,
    cancel,
    states,
    submit,
    wait_until_over,
)
from headsearch.search.executors.slurm_worker import KEY
from headsearch.signals import interrupted_once
from headsearch.training.trial import Evaluate, Training

LOGS = "slurm"
"""The folder of a run directory with what jobs print."""
END_SECONDS = 10.0
"""For idle workers to end by themselves."""
POLL_SECONDS = 10.0
"""Between two looks at the queue, while jobs wait in it."""
PATIENCE_SECONDS = 60.0
"""A search without any worker for so long says why."""
REFUSED_SECONDS = 60.0
"""Until sbatch is asked again, where it has taken some jobs and not all."""
STALL_SECONDS = 20
"""For the rest of a message that has begun: a node may vanish within one."""


class SlurmExecutor:
    """Evaluates trainings in SLURM jobs."""

    def __init__(self, spec: SlurmSpec, run: Path) -> None:
        """`run` is the run directory that the search writes."""
        self._spec = spec
        self._run = run

    def run(self, source: TrainingSource, evaluate: Evaluate) -> None:
        """Evaluate all that `source` hands out. However this ends, no job outlives it, if SLURM answers."""
        with (
            interrupted_once(),
            contextlib.closing(_Office(self._spec, self._run, source, evaluate)) as office,
        ):
            lead(office.team, source, office.listen, max_retries=self._spec.max_retries)
            office.dismiss()


class _Job(Worker):
    """A place for a job, which is submitted anew after it was lost."""

    number: str | None = None
    """SLURM's."""
    fresh = True
    """Whether it has yet to take its first training."""

    @property
    def ready(self) -> bool:
        """Whether the job has started, and has connected."""
        return self.pipe is not None

    def start(self, training: Training) -> None:
        """Hand over a training."""
        self.tell(training)
        self.work_on(training, fresh=self.fresh)
        self.fresh = False

    def kill(self) -> str:
        """Cancel the job and wait until it has left its node. Returns how it ended, for people."""
        number = self.number
        assert number is not None, "only a job that has connected is killed"
        self.forget()
        cancel([number])
        state = wait_until_over([number], CANCEL_SECONDS)[number]
        self.blameless = state.blameless
        where = f" on {state.reason}" if state.reason else ""
        return f"job {number}{where}: {state.name}"

    def forget(self) -> None:
        """Be without a job."""
        if self.pipe is not None:
            self.pipe.close()
        self.number, self.pipe, self.fresh = None, None, True


class _Office:
    """Submits jobs, lets in those that start, and notices those that never will."""

    def __init__(self, spec: SlurmSpec, run: Path, source: TrainingSource, evaluate: Evaluate) -> None:
        self.team = [_Job(spec.timeout) for _ in range(spec.workers)]
        self._spec = spec
        self._source = source
        self._name = f"headsearch-{run.absolute().name}-{secrets.token_hex(4)}"
        self._logs = run.absolute() / LOGS
        self._logs.mkdir(exist_ok=True)
        self._door = socket.create_server(("", 0))
        self._door.setblocking(False)
        placement = Placement(spec.cpus_per_trial, None if spec.gpus_per_trial else "")
        self._greeting = pickle.dumps((placement, pickle.dumps(evaluate)))
        self._key = secrets.token_bytes(32)
        where = [spec.host or socket.gethostname(), str(self._door.getsockname()[1])]
        command = [sys.executable, "-m", "headsearch.search.executors.slurm_worker", *where]
        # In the script of the job, which nobody else may read: a command line is seen by all.
        self._line = f"{KEY}={self._key.hex()} exec {shlex.join(command)}"
        self._next_submission = self._next_look = 0.0
        self._told: set[str] = set()
        self._deserted = time.monotonic()
        """Since when there has been no worker; infinite once that has been said."""

    def listen(self) -> list[Worker]:
        """Keep as many jobs as there are places, and wait as `heard` does.

        Raises:
            RunError: no job is taken, or all have ended before they took a training.
        """
        now = time.monotonic()
        if now >= self._next_submission:
            self._submit(now)
        if now >= self._next_look:
            self._next_look = now + POLL_SECONDS
            self._look_at_the_queue(now)
        found = heard(self.team, self._door)
        self._let_in()
        return found

    def dismiss(self) -> None:
        """Let idle workers end, and with them their jobs."""
        at_work = [job for job in self.team if job.ready]
        for job in at_work:
            job.tell(None)
        wait_until_over([job.number for job in at_work if job.number is not None], END_SECONDS)

    def close(self) -> None:
        """Cancel all jobs that are left, and wait until they have left their nodes."""
        self._door.close()
        numbers = [job.number for job in self.team if job.number is not None]
        for job in self.team:
            # A worker that is let go of so ends at once.
            job.forget()
        cancel(numbers)
        # One that was being submitted when Ctrl-C came.
        cancel([f"--name={self._name}"])
        left = wait_until_over(numbers, CANCEL_SECONDS)
        if not all(state.over for state in left.values()):
            self._source.note(f"jobs have not ended yet; look after them: squeue --jobs={','.join(numbers)}")

    def _submit(self, now: float) -> None:
        for job in self.team:
            if job.number is None:
                try:
                    job.number = submit(self._spec, self._line, self._name, f"{self._logs}/%j.log")
                except SubmissionRefused as error:
                    # There may be a limit, or the controller is away.
                    self._go_without(job, f"search.executor: {error}", now)
                    return

    def _go_without(self, job: _Job, why: str, now: float, *, where: str = "") -> None:
        """Go on with a job fewer for a while; where there is no other, not at all."""
        job.forget()
        if all(other.number is None for other in self.team):
            raise RunError(f"{why}{where}; continue with --resume")
        self._next_submission = now + REFUSED_SECONDS
        if why not in self._told:
            self._told.add(why)
            self._source.note(f"one job fewer for now: {why}{where}")

    def _look_at_the_queue(self, now: float) -> None:
        waiting = {job.number: job for job in self.team if job.number is not None and not job.ready}
        found = (states(waiting) if waiting else None) or {}
        for number, state in found.items():
            if state.blameless:
                waiting[number].forget()
            elif state.over:
                log = self._logs / f"{number}.log"
                printed = log.read_text(encoding="utf-8", errors="replace").strip() if log.is_file() else ""
                why = f"SLURM: a job ended before it took a trial ({state.name}): {(printed or 'it printed nothing').splitlines()[-1]}"
                self._go_without(waiting[number], why, now, where=f" ({log})")
        if any(job.ready for job in self.team):
            self._deserted = now
        elif found and now - self._deserted > PATIENCE_SECONDS:
            self._deserted = math.inf
            why = ", ".join(f"job {number} {state.name} {state.reason}" for number, state in found.items())
            self._source.note(f"no job has started yet: {why}")

    def _let_in(self) -> None:
        while True:
            try:
                visitor, _ = self._door.accept()
            except OSError:
                return
            visitor.setblocking(True)
            for side in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                visitor.setsockopt(socket.SOL_SOCKET, side, struct.pack("ll", STALL_SECONDS, 0))
            pipe = Connection(visitor.detach())
            job = self._recognised(pipe)
            if job is None:
                pipe.close()
            else:
                job.pipe = pipe

    def _recognised(self, pipe: Connection) -> _Job | None:
        """The job behind a connection, which has shown that it knows the key, and has been sent what it needs; None for anybody else."""
        with contextlib.suppress(OSError, EOFError, AuthenticationError):
            deliver_challenge(pipe, self._key)
            answer_challenge(pipe, self._key)
            number = pipe.recv()
            for job in self.team:
                if job.number == number and not job.ready:
                    pipe.send_bytes(self._greeting)
                    return job
        return None
