"""Jobs of a SLURM cluster, by its own commands: sbatch, squeue and scancel."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass

from headsearch.errors import ExperimentError
from headsearch.experiment import SlurmSpec

CANCEL_SECONDS = 60.0
"""For a job that was cancelled to leave its node."""
_NOT_OVER = frozenset(
    [
        "PENDING",
        "CONFIGURING",
        "REQUEUED",
        "REQUEUE_HOLD",
        "SUSPENDED",
        "STOPPED",
        "RUNNING",
        "COMPLETING",
        "STAGE_OUT",
        "SIGNALING",
        "RESIZING",
    ]
)
_BLAMELESS = frozenset({"PREEMPTED", "NODE_FAIL", "BOOT_FAIL"})


class SubmissionRefused(Exception):
    """Why sbatch took no job, in its own words."""


@dataclass(frozen=True)
class State:
    """What SLURM says of a job."""

    name: str
    """RUNNING, PREEMPTED, …"""
    reason: str
    """Why a job waits; where it runs or ran."""

    @property
    def over(self) -> bool:
        """Whether nothing of the job is left on a node."""
        return self.name not in _NOT_OVER

    @property
    def blameless(self) -> bool:
        """Whether the job ended through nothing that ran in it."""
        return self.name in _BLAMELESS


FORGOTTEN = State("ended", "")
"""Of a job that SLURM no longer knows: it keeps those that are over for some minutes."""
UNKNOWN = State("PENDING", "")
"""Of a job while SLURM does not answer."""


def check_programs() -> None:
    """Check that this machine can submit jobs.

    Raises:
        ExperimentError: one of SLURM's commands is missing.
    """
    for program in ("sbatch", "squeue", "scancel"):
        if shutil.which(program) is None:
            raise ExperimentError(
                f"search.executor: kind slurm needs {program}, which is not on the path; expected a machine that submits jobs to SLURM"
            )


def check_options(spec: SlurmSpec) -> None:
    """Check that sbatch takes such jobs, by one that is held back and taken back.

    Raises:
        ExperimentError: it does not, in its own words.
    """
    try:
        cancel([submit(spec, "true", "headsearch-check", "/dev/null", "--hold")])
    except SubmissionRefused as error:
        raise ExperimentError(f"search.executor: {error}") from None


def submit(spec: SlurmSpec, command: str, name: str, output: str, *options: str) -> str:
    """Submit a job that runs a line of shell as `spec` has it. Returns its number.

    Raises:
        SubmissionRefused: sbatch takes no such job.
    """
    asked = [
        f"--job-name={name}",
        f"--output={output}",
        # A job that SLURM starts again by itself would meet the one that was submitted in its place.
        *("--parsable", "--nodes=1", "--ntasks=1", "--no-requeue"),
        f"--cpus-per-task={spec.cpus_per_trial}",
        *([f"--gres=gpu:{spec.gpus_per_trial}"] if spec.gpus_per_trial else []),
        *(
            f"--{key}" if value is True else f"--{key}={value}"
            for key, value in spec.sbatch.items()
            if value is not False
        ),
        *options,
    ]
    done = _run(["sbatch", *asked], f"#!/bin/sh\n{command}\n")
    number = done.stdout.strip().partition(";")[0]
    if done.returncode or not number.isdecimal():
        raise SubmissionRefused(" ".join((done.stderr or done.stdout).split()) or "sbatch said nothing")
    return number


def states(jobs: Collection[str]) -> dict[str, State] | None:
    """What SLURM says of each of the jobs; None where it does not answer."""
    asked = ["squeue", "--noheader", "--states=all", f"--jobs={','.join(jobs)}", "--format=%i|%T|%R"]
    done = _run(asked)
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    rows = [line.strip().split("|", 2) for line in done.stdout.splitlines()]
    found = {number: State(name, reason) for number, name, reason in rows}
    return {job: found.get(job, FORGOTTEN) for job in jobs}


def cancel(jobs: Collection[str]) -> None:
    """Have jobs end, those that wait as well as those at work: by their numbers, or what scancel takes in their place."""
    if jobs:
        _run(["scancel", *jobs])


def wait_until_over(jobs: Collection[str], seconds: float) -> dict[str, State]:
    """Wait until nothing of the jobs is left on a node, but no longer than so. What SLURM says of each then."""
    deadline = time.monotonic() + seconds
    found: dict[str, State] = {}
    while jobs and time.monotonic() < deadline:
        found = states(jobs) or dict.fromkeys(jobs, UNKNOWN)
        if all(state.over for state in found.values()):
            break
        time.sleep(0.2)
    return found


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    # A session of its own: Ctrl-C in the terminal is the coordinator's business.
    return subprocess.run(
        command, input=text, capture_output=True, text=True, start_new_session=True, check=False
    )
