"""Trials in jobs of a real SLURM cluster, where SLURM is installed: what the conformance suite does not ask of an executor."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from holding import HELD, StoppedClock

from headsearch.errors import ExperimentError, RunError
from headsearch.experiment import Experiment, SlurmSpec
from headsearch.runs.run import read_records
from headsearch.search.checks import check_experiment
from headsearch.search.executors import leading
from headsearch.search.executors.placement import check_device
from headsearch.search.observer import Observer, SearchStatus
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import run_toy, scores, toy_experiment
from headsearch.training.trial import Training

SLOW_TOY = ToyEvaluator(seconds_per_epoch=0.05)


def jobs(executor: dict[str, Any] | None = None) -> Experiment:
    """A search by one job."""
    kind = {"kind": "slurm", "workers": 1, **(executor or {})}
    return toy_experiment(trials=2, finalists=0, replicates=1, sampler="grid", executor=kind)


def undisturbed(tmp_path: Path) -> dict[Any, Any]:
    """The scores of the same search, inline."""
    experiment = toy_experiment(trials=2, finalists=0, replicates=1, sampler="grid")
    return scores(run_toy(tmp_path / "undisturbed", experiment))


def queue() -> list[str]:
    """The jobs that are not over."""
    asked = ["squeue", "--noheader", "--format=%i"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


class Notes(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_job_that_is_preempted_costs_no_try(slurm: None, tmp_path: Path) -> None:
    class Urgent(Notes):
        submitted = False

        def rung_reached(self, training: Training, place: int, reached: object) -> None:
            if training.number == 1 and not self.submitted:
                self.submitted = True
                urgent = ["srun", "--partition=urgent", "--exclusive", "true"]
                subprocess.run(urgent, capture_output=True, check=True, timeout=300)

    watcher = Urgent()
    records = run_toy(tmp_path / "run", jobs({"max_retries": 0}), SLOW_TOY, observer=watcher)
    (note,) = watcher.notes
    assert "trial 1: its worker ended unexpectedly (job " in note
    assert "PREEMPTED); another takes it up from its checkpoint" in note
    trained = (tmp_path / "run" / "trials" / "1" / "epochs.txt").read_text().split()
    assert 9 <= len(trained) <= 10, "the trial was begun again"
    assert scores(records) == undisturbed(tmp_path)
    assert queue() == []


def test_a_job_that_hangs_is_cancelled_and_replaced(
    slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = StoppedClock()
    monkeypatch.setattr(leading, "time", clock)

    class Halting(Notes):
        halted = False

        def rung_reached(self, training: Training, place: int, reached: object) -> None:
            if training.number == 1 and not self.halted:
                self.halted = True
                subprocess.run(["scontrol", "suspend", *queue()], check=True)
                clock.now += 601

    watcher = Halting()
    records = run_toy(tmp_path / "run", jobs({"timeout": 600.0}), SLOW_TOY, observer=watcher)
    assert watcher.notes == [
        "trial 1: its worker gave no sign of life for 600 s; another takes it up from its checkpoint"
    ]
    assert scores(records) == undisturbed(tmp_path)


SEARCH = """
import sys
from pathlib import Path
from holding import HoldingToy
from headsearch.testing.toy_search import run_toy, toy_experiment
executor = {"kind": "slurm", "workers": 2}
experiment = toy_experiment(trials=2, finalists=0, replicates=1, sampler="grid", executor=executor)
run_toy(Path(sys.argv[1]), experiment, HoldingToy(first=0))
"""


@pytest.mark.parametrize("end", ["SIGKILL", "SIGINT"])
def test_jobs_end_with_the_coordinator_and_the_search_resumes(slurm: None, tmp_path: Path, end: str) -> None:
    out = tmp_path / "run"
    search = subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(out)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 300
    while len(list(out.glob(f"trials/*/{HELD}"))) < 2:
        assert search.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(queue()) == 2
    # As a terminal does it: to the whole group.
    os.killpg(search.pid, signal.Signals[end])
    assert search.wait(300) != 0
    while end == "SIGKILL" and queue() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert queue() == []
    assert "running" in {record.state for record in read_records(out)}
    records = run_toy(out, jobs(), resume=True)
    assert scores(records) == undisturbed(tmp_path)


def test_what_sbatch_refuses_is_said_in_its_words_and_nothing_is_left(slurm: None, tmp_path: Path) -> None:
    for options, words in (
        ({"partition": "nowhere"}, "invalid partition specified: nowhere"),
        ({"time": "soon"}, "Invalid --time specification"),
        ({"partiton": "usual"}, "unrecognized option '--partiton=usual'"),
    ):
        with pytest.raises(ExperimentError, match=f"search.executor: sbatch: .*{words}"):
            run_toy(tmp_path / "run", jobs({"sbatch": options}))
    with pytest.raises(ExperimentError, match="Invalid generic resource"):
        run_toy(tmp_path / "run", jobs({"gpus_per_trial": 1}))
    assert not (tmp_path / "run").exists()
    assert queue() == []


def test_a_job_that_cannot_reach_the_coordinator_ends_the_search(slurm: None, tmp_path: Path) -> None:
    with pytest.raises(RunError) as raised:
        run_toy(tmp_path / "run", jobs({"host": "nowhere.invalid"}))
    said = str(raised.value)
    assert "a job ended before it took a trial (FAILED): " in said
    assert "cannot reach nowhere.invalid:" in said
    assert said.endswith(".log); continue with --resume")
    assert queue() == []


def test_strangers_are_not_let_in(slurm: None, tmp_path: Path) -> None:
    ports: list[int] = []

    class Visited(Notes):
        def training_started(self, training: Training, status: SearchStatus) -> None:
            if not ports:
                listening = (row.split() for row in Path("/proc/self/net/tcp").read_text().splitlines()[1:])
                own = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
                ports.extend(
                    int(row[1][-4:], 16)
                    for row in listening
                    if f"socket:[{row[9]}]" in own and row[3] == "0A"
                )
                for port in ports:
                    for words in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x03key", b""):
                        with socket.create_connection(("127.0.0.1", port)) as visitor:
                            visitor.sendall(words)

    watcher = Visited()
    records = run_toy(tmp_path / "run", jobs(), SLOW_TOY, observer=watcher)
    assert len(ports) == 1
    assert watcher.notes == []
    assert {record.state for record in records} == {"complete"}


def test_slurm_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExperimentError, match="kind slurm needs sbatch, which is not on the path"):
        check_experiment(jobs())


def test_a_gpu_must_be_given_where_one_is_asked_for() -> None:
    with pytest.raises(ExperimentError, match=r"gpus_per_trial: 0, but proxy\.device is cuda"):
        check_device(SlurmSpec(), "cuda")
    with pytest.raises(ExperimentError, match="'cuda:1' with the slurm executor, which chooses the GPU"):
        check_device(SlurmSpec(gpus_per_trial=1), "cuda:1")
    assert jobs({"gpus_per_trial": 2}).search.ranks == 2
