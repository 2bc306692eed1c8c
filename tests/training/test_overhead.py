"""The overhead of a head is that of the work it makes, whatever else the machine does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from headsearch.training.overhead import step_overhead, step_seconds


@pytest.fixture(autouse=True)
def few_pairs() -> None:
    """Here, as many steps are timed as in a search."""


class Working:
    """A trainer whose step is so many multiplications of matrices."""

    def __init__(self, multiplications: int) -> None:
        self.multiplications = multiplications
        self.device = torch.device("cpu")
        self.steps = 1
        self.taken = 0

    def step(self, views: Sequence[Tensor], step: int) -> Tensor:
        self.taken += 1
        x = views[0]
        for _ in range(self.multiplications):
            x = (x @ x).clamp(-1, 1)
        return x


class Busy(Working):
    """A trainer whose step takes so many milliseconds of the processor, and waits for as long as it is told beside."""

    def __init__(self, milliseconds: int, waits: float = 0.0) -> None:
        super().__init__(0)
        self.milliseconds = milliseconds
        self.waits = waits

    def step(self, views: Sequence[Tensor], step: int) -> Tensor:
        until = time.process_time() + self.milliseconds / 1000
        time.sleep(self.waits)
        while time.process_time() < until:
            pass
        return super().step(views, step)


@contextmanager
def a_machine_under_load(processes: int) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.parametrize("load", [0, 4])
def test_it_is_the_work_of_a_step_however_busy_the_machine_is(load: int) -> None:
    # By the clock on the wall, the step without a head takes longer.
    with a_machine_under_load(load):
        found = step_overhead(Busy(30), Busy(20, waits=0.03), [torch.rand(2, 2)])  # type: ignore[arg-type]
    assert found.median == pytest.approx(0.5, abs=0.12)
    assert 0 <= found.spread < 0.2


def test_steps_with_and_without_take_turns_and_slow_ones_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    class Slow(Working):
        def __init__(self, name: str) -> None:
            super().__init__(1)
            self.name = name

        def step(self, views: Sequence[Tensor], step: int) -> Tensor:
            order.append(self.name)
            time.sleep(0.6)
            return super().step(views, step)

    step_overhead(Slow("head"), Slow("none"), [torch.rand(100, 100)])  # type: ignore[arg-type]
    assert order == ["none", "head", "head", "none", "none", "head", "head", "none"]


def test_the_time_of_a_step_is_that_of_the_clock(tmp_path: Path) -> None:
    waited: list[float] = []

    class Waiting(Working):
        def step(self, views: Sequence[Tensor], step: int) -> Tensor:
            begun = time.perf_counter()
            time.sleep(0.05)
            waited.append(time.perf_counter() - begun)
            return views[0]

    found = step_seconds(Waiting(0), [torch.rand(2, 2)])  # type: ignore[arg-type]
    # At most as long as the slowest, and a moment between two looks at the clock.
    assert min(waited) <= found <= 1.5 * max(waited)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerator_is_timed_by_its_own_clock() -> None:
    trainers = Working(30), Working(20)
    for trainer in trainers:
        trainer.device = torch.device("cuda")
    found = step_overhead(*trainers, [torch.rand(4000, 4000, device="cuda")])  # type: ignore[arg-type]
    assert found.median == pytest.approx(0.5, abs=0.05)
