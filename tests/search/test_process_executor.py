"""Trials in worker processes: the scores of an inline search, and what becomes of them when workers or the coordinator die."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from holding import HELD, PatientToy, StoppedClock

from headsearch.cores import cores
from headsearch.errors import ExperimentError, RunError
from headsearch.experiment import Experiment, ProcessSpec, load_experiment
from headsearch.runs.run import read_records
from headsearch.search.executors import TrainingSource, leading
from headsearch.search.executors.placement import (
    Placement,
    divide,
    visible_gpus,
)
from headsearch.search.observer import Observer
from headsearch.search.session import run_search
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import run_toy, scores, toy_experiment
from headsearch.training.trial import Training

two_cores = pytest.mark.skipif(cores() < 2, reason="two workers need two cores")

SLOW_TOY = ToyEvaluator(seconds_per_epoch=0.01)


def processes(executor: dict[str, Any] | None = None, **search: Any) -> Experiment:
    """A search whose heads do not depend on the order in which trials end: all of a grid."""
    kind = {"kind": "process", "workers": 2, **(executor or {})}
    return toy_experiment(
        **{"trials": 12, "finalists": 12, "replicates": 2, "sampler": "grid", "executor": kind, **search}
    )


def workers_of(coordinator: int) -> list[int]:
    """The worker processes of a coordinator, by `/proc`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                is_worker = parent == coordinator and b"spawn_main" in (folder / "cmdline").read_bytes()
            except (OSError, IndexError):
                continue
            if is_worker:
                found.append(int(folder.name))
    return found


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone(found: list[int], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, found)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, found))


def epochs_trained(out: Path) -> int:
    return sum(len((folder / "epochs.txt").read_text().split()) for folder in (out / "trials").iterdir())


@two_cores
def test_workers_are_kept_from_trial_to_trial_and_end_with_the_search(tmp_path: Path) -> None:
    pids: set[int] = set()

    class Watching(Observer):
        def rung_reached(self, training: Training, place: int, reached: object) -> None:
            pids.update(workers_of(os.getpid()))

    run_toy(tmp_path / "run", processes(trials=3, finalists=0, replicates=1), SLOW_TOY, observer=Watching())
    assert len(pids) == 2
    assert gone(list(pids), 0)


def kill_at_random(tmp_path: Path, kills: int) -> None:
    """A search whose workers are killed at random moments while it runs; nothing may be lost, and hardly anything done twice."""
    notes: list[str] = []
    rng = random.Random(1)
    killed: set[int] = set()

    class Killer(Observer):
        def rung_reached(self, *_: object) -> None:
            if len(killed) < kills and rng.random() < 0.5:
                # The worker that speaks is at work; where in their trials all are by now is chance.
                victims = [pid for pid in workers_of(os.getpid()) if pid not in killed]
                if victims:
                    time.sleep(rng.uniform(0, 0.03))
                    victim = rng.choice(victims)
                    os.kill(victim, signal.SIGKILL)
                    killed.add(victim)

        training_progress = rung_reached

        def note(self, text: str) -> None:
            notes.append(text)

    experiment = processes({"max_retries": kills})
    records = run_toy(tmp_path / "run", experiment, SLOW_TOY, observer=Killer())
    assert len(killed) == kills
    lost = [note for note in notes if "ended unexpectedly (signal SIGKILL); another takes it up" in note]
    assert len(lost) >= kills // 2
    undisturbed = run_toy(
        tmp_path / "undisturbed", toy_experiment(trials=12, finalists=12, replicates=2, sampler="grid")
    )
    assert scores(records) == scores(undisturbed)
    budget = 9 * sum(r.state == "complete" for r in records)
    assert budget <= epochs_trained(tmp_path / "run") <= budget + len(lost)
    assert read_records(tmp_path / "run") == records


@two_cores
def test_killed_workers_lose_nothing(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 8)


@two_cores
@pytest.mark.slow
def test_fifty_killed_workers_lose_nothing(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 50)


def test_a_worker_that_hangs_is_replaced_and_its_trial_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = StoppedClock()
    monkeypatch.setattr(leading, "time", clock)
    notes: list[str] = []
    halted: list[int] = []

    class Halting(Observer):
        def rung_reached(self, training: Training, place: int, reached: object) -> None:
            if training.number == 1 and not halted:
                # As a worker that waits for a broken device: it neither ends nor says anything.
                halted.extend(workers_of(os.getpid()))
                os.kill(halted[0], signal.SIGSTOP)
                clock.now += 601

        def note(self, text: str) -> None:
            notes.append(text)

    experiment = processes({"workers": 1, "timeout": 600.0}, trials=1, finalists=0, replicates=1)
    records = run_toy(tmp_path / "run", experiment, observer=Halting())
    assert notes == [
        "trial 1: its worker gave no sign of life for 600 s; another takes it up from its checkpoint"
    ]
    assert gone(halted, 0)
    undisturbed = toy_experiment(trials=1, finalists=0, replicates=1, sampler="grid")
    assert scores(records) == scores(run_toy(tmp_path / "undisturbed", undisturbed))


def test_a_trial_that_waits_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StoppedClock()
    monkeypatch.setattr(leading, "time", clock)
    attend = leading._attend

    def slowly(worker: leading.Worker, source: TrainingSource) -> None:
        attend(worker, source)
        clock.now += 500

    monkeypatch.setattr(leading, "_attend", slowly)
    notes: list[str] = []

    class Waiting(Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    experiment = processes({"workers": 1, "timeout": 600.0}, trials=1, finalists=0, replicates=1)
    records = run_toy(tmp_path / "run", experiment, PatientToy(), observer=Waiting())
    assert {record.state for record in records} == {"complete"}
    assert notes == [f"trial {record.number} waits for its turn" for record in records]


SEARCH = """
import os
import signal
import sys
from pathlib import Path
from holding import HoldingToy
from headsearch.testing.toy_search import run_toy, toy_experiment
experiment = toy_experiment(trials=12, finalists=12, replicates=2, sampler="grid", executor={"kind": "process", "workers": 2})
out = Path(sys.argv[1])
if sys.argv[2] == "Ctrl-C while workers are killed":
    kill_group = os.killpg
    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGINT)
        kill_group(*args)
    os.killpg = interrupted
run_toy(out, experiment, HoldingToy(first=3))
"""


@two_cores
@pytest.mark.parametrize(
    "end",
    [
        "SIGKILL",
        "Ctrl-C",
        "Ctrl-C twice",
        "Ctrl-C while workers are killed",
        "SIGTERM",
    ],
)
def test_workers_end_with_the_coordinator_and_the_search_resumes(tmp_path: Path, end: str) -> None:
    out = tmp_path / "run"
    search = subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(out), end],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 300
    while len(list(out.glob(f"trials/*/{HELD}"))) < 2:
        assert search.poll() is None, search.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = workers_of(search.pid)
    assert len(workers) == 2
    with pytest.raises(RunError, match="another headsearch run is at work on it"):
        run_toy(out, processes(), resume=True)
    if end.startswith("Ctrl-C"):
        # As a terminal does it: to the whole group.
        os.killpg(search.pid, signal.SIGINT)
        if end == "Ctrl-C twice":
            os.killpg(search.pid, signal.SIGINT)
    else:
        search.send_signal(signal.Signals[end])
    _, errors = search.communicate(timeout=300)
    assert search.returncode != 0
    assert gone(workers)
    if end == "Ctrl-C":
        assert errors.count("Traceback") == 1, "only the coordinator speaks of it"
    before = read_records(out)
    assert {r.state for r in before} == {"complete", "running"}
    experiment = toy_experiment(trials=12, finalists=12, replicates=2, sampler="grid")
    records = run_toy(out, experiment, resume=True)
    assert [r for r in records if r in before] == [r for r in before if r.state == "complete"]
    assert scores(records) == scores(run_toy(tmp_path / "undisturbed", experiment))


def test_cores_are_divided_and_gpus_given_in_turn() -> None:
    assert divide(ProcessSpec(workers=3), 8, None) == [Placement(2)] * 3
    assert [place.gpu for place in divide(ProcessSpec(workers=2), 4, ["0", "1", "2"])] == ["0", "1"]
    shared = divide(ProcessSpec(workers=4, workers_per_gpu=2), 4, ["5", "7"])
    assert [place.gpu for place in shared] == ["5", "7", "5", "7"]
    assert visible_gpus(2, {"CUDA_VISIBLE_DEVICES": "3, GPU-abc"}) == ["3", "GPU-abc"]
    assert visible_gpus(2, {}) == ["0", "1"]


@pytest.mark.parametrize(("limit", "threads"), [("", "3"), ("2", "2"), ("8", "3")])
def test_a_worker_keeps_to_its_share_of_the_cores(
    limit: str, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "from headsearch.cores import cores; from headsearch.search.executors.placement import Placement; import os; "
    told += "Placement(3).apply(); Placement(3).apply(); print(cores(), os.environ['OMP_NUM_THREADS'])"
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    worker = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert worker.stdout.split() == ["3", threads]


@pytest.mark.parametrize(
    ("spec", "number", "gpus", "message"),
    [
        (
            {"workers": 3},
            2,
            None,
            r"workers: 3 workers, but this machine has 2 core\(s\); expected at most 2",
        ),
        (
            {"workers": 4},
            8,
            ["0"],
            r"4 workers, 1 per GPU, need 4 GPU\(s\), and there are 1; expected at most 1",
        ),
        (
            {"workers": 5, "workers_per_gpu": 2},
            8,
            ["0", "1"],
            r"need 3 GPU\(s\), and there are 2; expected at most 4",
        ),
    ],
)
def test_more_workers_than_the_machine_can_hold_are_refused(
    spec: dict[str, Any], number: int, gpus: list[str] | None, message: str
) -> None:
    with pytest.raises(ExperimentError, match=message):
        divide(ProcessSpec(**spec), number, gpus)


def test_a_machine_that_is_too_small_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="10000 workers, but this machine has"):
        run_toy(tmp_path / "run", processes({"workers": 10_000}))
    experiment = load_experiment("digits", ["search.executor.kind=process", "search.executor.workers=10000"])
    with pytest.raises(ExperimentError, match="10000 workers, but this machine has"):
        run_search(experiment, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
