"""The conformance suite over every executor there is. What only one of them can do wrong is in its own file."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from headsearch.experiment import RaySpec
from headsearch.search.executors import Executor
from headsearch.search.executors.inline import InlineExecutor
from headsearch.search.executors.placement import Placement, available_cores
from headsearch.search.executors.process import ProcessExecutor
from headsearch.search.executors.ray_cluster import connected
from headsearch.testing import executors
from headsearch.testing.executors import MakeExecutor

pytestmark = pytest.mark.skipif(available_cores() < 2, reason="two workers need two cores")

CHECKS: dict[str, Callable[[MakeExecutor, Path], None]] = {
    "stopping": executors.check_stopping,
    "failures": executors.check_failures,
    "halt": executors.check_halt,
    "interruptions": executors.check_interruptions,
}


def inline(run: Path, max_retries: int) -> AbstractContextManager[Executor]:
    return contextlib.nullcontext(InlineExecutor())


def process(run: Path, max_retries: int) -> AbstractContextManager[Executor]:
    return contextlib.nullcontext(ProcessExecutor([Placement(1)] * 2, max_retries=max_retries, timeout=600.0))


def ray(run: Path, max_retries: int) -> AbstractContextManager[Executor]:
    from headsearch.search.executors.ray import RayExecutor

    return contextlib.nullcontext(RayExecutor(RaySpec(workers=2, max_retries=max_retries), run))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected(RaySpec()):
        yield


@pytest.fixture(params=[inline, process, ray], ids=["inline", "process", "ray"])
def make(request: pytest.FixtureRequest) -> MakeExecutor:
    if request.param is ray:
        request.getfixturevalue("cluster")
    chosen: MakeExecutor = request.param
    return chosen


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_executors_conform(
    make: MakeExecutor, check: Callable[[MakeExecutor, Path], None], tmp_path: Path
) -> None:
    check(make, tmp_path)


def test_scores_do_not_depend_on_the_executor(make: MakeExecutor, tmp_path: Path) -> None:
    executors.check_scores(make, tmp_path, workers=1 if make is inline else 2)


@pytest.mark.parametrize("make", [process, ray], indirect=True, ids=["process", "ray"])
def test_lost_workers_are_replaced(make: MakeExecutor, tmp_path: Path) -> None:
    executors.check_lost_workers(make, tmp_path)
