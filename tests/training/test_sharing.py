"""Trainings on one GPU: what waits for what, and what is given back. The lock needs no GPU; the last tests fill one."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from headsearch.heads.registry import parse_head
from headsearch.search.executors import Failed, attempt
from headsearch.testing.tiny import Context, tiny_experiment, training
from headsearch.training import sharing
from headsearch.training.devices import shared_gpus
from headsearch.training.evaluator import Evaluator
from headsearch.training.sharing import SharedGPU
from headsearch.training.trial import RungScores

FULL = "CUDA out of memory, of which neighbours hold the most"
HEAD = parse_head({"convnext": {"depth": 1, "kernel_size": 3}})
NEIGHBOUR = """
import fcntl, sys
with open(sys.argv[1]) as lock:
    fcntl.flock(lock, fcntl.LOCK_SH)
    print("at work", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where locks lie."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sharing, "LOOK_SECONDS", 0.01)
    return tmp_path


class Filling:
    """A training that finds its GPU full, the first so many times."""

    def __init__(self, times: int = 1) -> None:
        self.left = times
        self.tensors: list[weakref.ref[torch.Tensor]] = []

    def __call__(self) -> str:
        gc.collect()
        assert all(former() is None for former in self.tensors)
        tensor = torch.ones(3)
        self.tensors.append(weakref.ref(tensor))
        self.left -= 1
        if self.left >= 0:
            raise torch.OutOfMemoryError(FULL)
        return "done"


def neighbour(lock: Path) -> subprocess.Popen[str]:
    """A process that is at work on the GPU until it is killed."""
    lock.touch()
    process = subprocess.Popen(
        [sys.executable, "-c", NEIGHBOUR, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    return process


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_training_that_found_its_gpu_full_is_tried_again_when_the_neighbour_has_left(locks: Path) -> None:
    said: list[str] = []
    beside = neighbour(locks / "headsearch-gpu.lock")

    def waits(why: str) -> None:
        said.append(why)
        assert evaluate.left == 0, "it was tried again beside a neighbour"
        if len(said) == 3:
            beside.kill()

    evaluate = Filling()
    assert SharedGPU("gpu", waits).train(evaluate) == "done"
    assert beside.wait(timeout=120) != 0
    assert len(evaluate.tensors) == 2
    assert said[:3] == ["found its GPU full, and waits until it can be tried again alone", "", ""]
    assert set(said[3:]) <= {""}


def test_a_training_that_is_alone_and_finds_its_gpu_full_twice_has_no_room() -> None:
    evaluate = Filling(times=2)
    with pytest.raises(torch.OutOfMemoryError, match=FULL):
        SharedGPU("gpu", pytest.fail).train(evaluate)
    assert len(evaluate.tensors) == 2


def test_neighbours_that_stay_are_not_waited_for_forever(
    locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "ALONE_SECONDS", 0.2)
    beside = neighbour(locks / "headsearch-gpu.lock")
    try:
        with pytest.raises(
            TimeoutError, match=r"the GPU was full, and others did not leave it within 0\.2 s"
        ):
            SharedGPU("gpu", lambda why: None).train(Filling())
        # Whoever comes next is not kept out.
        assert SharedGPU("gpu", pytest.fail).train(lambda: "next") == "next"
    finally:
        beside.kill()
        beside.wait()


def test_trainings_run_side_by_side_until_one_must_be_alone_and_new_ones_wait_for_it() -> None:
    order: list[str] = []
    both = threading.Barrier(2, timeout=120)
    first_may_end, second_tried = threading.Event(), threading.Event()
    second_waits, third_waits = threading.Event(), threading.Event()

    def first() -> None:
        both.wait()
        assert first_may_end.wait(120)
        order.append("first")

    def second() -> None:
        if not second_tried.is_set():
            second_tried.set()
            both.wait()
            raise torch.OutOfMemoryError(FULL)
        assert third_waits.wait(120)
        order.append("second, alone")

    threads = [
        in_thread(lambda: SharedGPU("gpu", lambda why: None).train(first)),
        in_thread(lambda: SharedGPU("gpu", lambda why: second_waits.set()).train(second)),
    ]
    assert second_waits.wait(120)
    threads.append(
        in_thread(
            lambda: SharedGPU("gpu", lambda why: third_waits.set()).train(lambda: order.append("third"))
        )
    )
    assert third_waits.wait(120)
    assert order == []
    first_may_end.set()
    for thread in threads:
        thread.join(120)
    assert order == ["first", "second, alone", "third"]


def test_two_that_found_their_gpu_full_are_tried_again_one_after_the_other() -> None:
    both = threading.Barrier(2, timeout=120)
    at_work: list[int] = []
    most: list[int] = []

    def training_of(number: int) -> Callable[[], None]:
        attempts = iter((True, False))

        def train() -> None:
            if next(attempts):
                both.wait()
                raise torch.OutOfMemoryError(FULL)
            at_work.append(number)
            time.sleep(0.1)
            most.append(len(at_work))
            at_work.remove(number)

        return train

    threads = [
        in_thread(lambda number=number: SharedGPU("gpu", lambda why: None).train(training_of(number)))  # type: ignore[misc]
        for number in range(2)
    ]
    for thread in threads:
        thread.join(120)
    assert most == [1, 1]


def test_another_gpu_is_another_matter(locks: Path) -> None:
    beside = neighbour(locks / "headsearch-other.lock")
    try:
        assert SharedGPU("gpu", pytest.fail).train(Filling()) == "done"
    finally:
        beside.kill()
        beside.wait()


def test_what_a_training_held_is_gone_before_the_lock_is_however_it_ends() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def train() -> None:
        tensor = torch.ones(3)
        held.append(weakref.ref(tensor))
        raise ValueError("no number")

    with pytest.raises(ValueError, match="no number") as caught:
        SharedGPU("gpu", pytest.fail).train(train)
    assert caught.value.__traceback__ is not None
    assert held[0]() is None


def test_a_loader_that_outlives_its_training_does_not_hold_the_lock() -> None:
    loaders: list[multiprocessing.process.BaseProcess] = []

    def train() -> None:
        loaders.append(multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,)))
        loaders[0].start()

    SharedGPU("gpu", pytest.fail).train(train)
    try:
        assert SharedGPU("gpu", pytest.fail).train(Filling()) == "done"
    finally:
        loaders[0].kill()
        loaders[0].join()


def test_another_user_may_take_the_lock_too(locks: Path) -> None:
    SharedGPU("gpu", pytest.fail).train(lambda: None)
    files = sorted(path for path in locks.iterdir() if path.name.startswith("headsearch-"))
    assert [(path.name, oct(path.stat().st_mode & 0o777)) for path in files] == [
        ("headsearch-gpu.gate", "0o644"),
        ("headsearch-gpu.lock", "0o644"),
    ]


def test_the_cpu_is_not_taken_by_turns() -> None:
    assert shared_gpus(torch.device("cpu"), 2, pytest.fail) == []


GREEDY = """
import sys, tempfile
import torch
from headsearch.training.devices import shared_gpus

tempfile.tempdir = sys.argv[1]

def fill():
    held, size = [], 2**30
    while size >= 2**20:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            size //= 2
    print("full", flush=True)
    sys.stdin.read()

(gpu,) = shared_gpus(torch.device("cuda"), 1, print)
gpu.train(fill)
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_a_proxy_on_a_gpu_that_a_neighbour_has_filled_is_trained_when_it_has_left(
    locks: Path, images: Path
) -> None:
    experiment = tiny_experiment(images, proxy={"epochs": 2, "batch_size": 32, "device": "cuda"})
    # The context of this process lies on the GPU before the neighbour fills the rest.
    torch.zeros(1, device="cuda")
    torch.cuda.empty_cache()
    greedy = subprocess.Popen(
        [sys.executable, "-c", GREEDY, str(locks)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert greedy.stdin is not None
    assert greedy.stdout is not None
    try:
        assert greedy.stdout.readline() == "full\n"
        waited: list[str] = []

        class Leaving(Context):
            def waits(self, why: str) -> None:
                waited.append(why)
                if len(waited) == 3:
                    greedy.stdin.close()  # type: ignore[union-attr]

        (result,) = Evaluator(experiment)(training(locks / "trial", HEAD), Leaving()).trials
    finally:
        greedy.kill()
        greedy.wait()
    assert result.state == "complete"
    assert waited[0] == "found its GPU full, and waits until it can be tried again alone"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_a_head_that_does_not_fit_an_empty_gpu_is_infeasible_and_leaves_it_empty(
    locks: Path, images: Path
) -> None:
    evaluator = Evaluator(tiny_experiment(images, proxy={"epochs": 1, "batch_size": 32, "device": "cuda"}))
    torch.cuda.empty_cache()

    class Hungry(Context):
        def report(self, place: int, scores: RungScores) -> None:
            held = torch.empty(2**30, dtype=torch.uint8, device="cuda")
            torch.empty(2**50, dtype=torch.uint8, device=held.device)

    context = Hungry()
    outcome = attempt(
        lambda asked, given: evaluator(asked, context),
        training(locks / "trial", HEAD),
        lambda *_: True,
        lambda *_: None,
        lambda *_: None,
    )
    assert isinstance(outcome, Failed)
    assert outcome.kind == "infeasible"
    assert outcome.reason.startswith("out of memory: CUDA out of memory")
    assert context.waited == []
    # Of the libraries' own memory some stays.
    assert torch.cuda.memory_reserved() < 2**30
