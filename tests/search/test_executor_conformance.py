"""The conformance suite over every executor there is. What only one of them can do wrong is in its own file."""

import contextlib
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from headsearch.cores import cores
from headsearch.errors import RunError
from headsearch.experiment import RaySpec, SlurmSpec
from headsearch.runs.run import read_records
from headsearch.search.executors import Executor, InlineExecutor
from headsearch.search.executors.placement import Placement
from headsearch.search.executors.process import ProcessExecutor
from headsearch.search.executors.slurm import SlurmExecutor
from headsearch.search.observer import Observer, SearchStatus
from headsearch.testing import executors
from headsearch.testing.executors import MakeExecutor
from headsearch.testing.toy_search import run_toy, scores, toy_experiment
from headsearch.training.trial import Training

pytestmark = pytest.mark.skipif(cores() < 2, reason="two workers need two cores")

CHECKS: dict[str, Callable[[MakeExecutor, Path], None]] = {
    "stopping": executors.check_stopping,
    "failures": executors.check_failures,
    "interruptions": executors.check_interruptions,
}


def inline(run: Path, max_retries: int) -> AbstractContextManager[Executor]:
    return contextlib.nullcontext(InlineExecutor())


def process(run: Path, max_retries: int) -> AbstractContextManager[Executor]:
    return contextlib.nullcontext(ProcessExecutor([Placement(1)] * 2, max_retries=max_retries, timeout=600.0))


def ray(run: Path, max_retries: int) -> AbstractContextManager[Executor]:
    from headsearch.search.executors.ray import RayExecutor

    return contextlib.nullcontext(RayExecutor(RaySpec(workers=2, max_retries=max_retries), run))


def slurm(run: Path, max_retries: int) -> AbstractContextManager[Executor]:
    return contextlib.nullcontext(SlurmExecutor(SlurmSpec(workers=2, max_retries=max_retries), run))


SLOW_ON_CLUSTERS = [
    pytest.param(inline, id="inline"),
    pytest.param(process, id="process"),
    pytest.param(ray, id="ray", marks=pytest.mark.slow),
    pytest.param(slurm, id="slurm", marks=pytest.mark.slow),
]


@pytest.fixture(params=[inline, process, ray, slurm], ids=["inline", "process", "ray", "slurm"])
def make(request: pytest.FixtureRequest) -> MakeExecutor:
    if request.param in (ray, slurm):
        request.getfixturevalue("cluster" if request.param is ray else "slurm")
    chosen: MakeExecutor = request.param
    return chosen


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("make", SLOW_ON_CLUSTERS, indirect=True)
def test_executors_conform(
    make: MakeExecutor, check: Callable[[MakeExecutor, Path], None], tmp_path: Path
) -> None:
    check(make, tmp_path)


@pytest.mark.parametrize("make", SLOW_ON_CLUSTERS, indirect=True)
def test_what_would_end_every_trial_ends_the_search(make: MakeExecutor, tmp_path: Path) -> None:
    executors.check_halt(make, tmp_path)


@pytest.mark.parametrize("make", SLOW_ON_CLUSTERS, indirect=True)
def test_a_trunk_is_trained_once_by_every_executor(make: MakeExecutor, tmp_path: Path) -> None:
    executors.check_trunk(make, tmp_path)


def test_scores_do_not_depend_on_the_executor(make: MakeExecutor, tmp_path: Path) -> None:
    executors.check_scores(make, tmp_path, workers=1 if make is inline else 2)


@pytest.mark.parametrize("make", [process, ray, slurm], indirect=True, ids=["process", "ray", "slurm"])
def test_lost_workers_are_replaced(make: MakeExecutor, tmp_path: Path) -> None:
    executors.check_lost_workers(make, tmp_path)


@pytest.mark.parametrize("make", SLOW_ON_CLUSTERS, indirect=True)
def test_a_disk_that_is_full_ends_the_search_and_the_trial_resumes(
    make: MakeExecutor, tmp_path: Path
) -> None:
    disks: list[Path] = []

    class Filling(Observer):
        def training_started(self, training: Training, status: SearchStatus) -> None:
            if training.number == 2 and not disks:
                # A disk of one page: what was trained fits, the checkpoint beside it does not.
                mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(training.workdir)]
                done = subprocess.run(mount, capture_output=True, text=True)
                if done.returncode:
                    pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
                disks.append(training.workdir)

    experiment = toy_experiment(trials=2, finalists=0, replicates=1, sampler="grid")
    run = tmp_path / "run"
    try:
        with (
            pytest.raises(RunError, match=r"(?i)no space left on (the )?device.*continue with --resume"),
            make(run, 2) as executor,
        ):
            run_toy(run, experiment, observer=Filling(), executor=executor)
    finally:
        for disk in disks:
            subprocess.run(["umount", str(disk)], check=True)
    states = {record.number: record.state for record in read_records(run)}
    assert states[2] == "running"
    assert set(states.values()) == {"complete", "running"}
    resumed = run_toy(run, experiment, resume=True)
    assert scores(resumed) == scores(run_toy(tmp_path / "undisturbed", experiment))
