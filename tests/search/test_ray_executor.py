"""Trials on a Ray cluster: what may be asked of it, and what becomes of a search when workers, nodes or the driver die.

What it has in common with every executor is in test_executor_conformance.py.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Started

from headsearch.cores import cores
from headsearch.errors import ExperimentError, RunError
from headsearch.experiment import RaySpec, load_experiment, parse_experiment
from headsearch.runs.run import read_records
from headsearch.search.executors.placement import check_device
from headsearch.search.executors.ray_cluster import check_room, connected, room
from headsearch.search.observer import Observer, SearchStatus
from headsearch.search.session import run_search
from headsearch.testing.executors import Watcher
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import run_toy, scores, toy_experiment
from headsearch.testing.traces import Diary, DiaryToy
from headsearch.training.trial import Training

two_cores = pytest.mark.skipif(cores() < 2, reason="two workers need two cores")


def node(cpus: float, gpus: float = 0.0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}}


def spec(**keys: Any) -> RaySpec:
    return RaySpec(**keys)


def grid(**search: Any) -> Any:
    keys = {"trials": 2, "finalists": 2, "replicates": 2, "sampler": "grid", "executor": {"kind": "ray"}}
    return toy_experiment(**{**keys, **search})


@pytest.mark.parametrize(
    ("asked", "nodes", "expected"),
    [
        ({"cpus_per_trial": 2}, [node(5), node(3), node(1)], 3),
        ({"cpus_per_trial": 0.5}, [node(2)], 4),
        ({"gpus_per_trial": 1}, [node(16, 4), node(2, 4), node(64)], 6),
        # 0.3 of a GPU fits three times on one, and not ten times on three.
        ({"gpus_per_trial": 0.3}, [node(16, 3)], 9),
        # One that asks for two finds them on one node.
        ({"gpus_per_trial": 2}, [node(16, 4), node(16, 3), node(16, 1)], 3),
        ({}, [node(4, alive=False), node(3)], 3),
    ],
)
def test_a_cluster_has_room_for_as_many_trials_as_fit_on_its_nodes(
    asked: dict[str, Any], nodes: list[dict[str, Any]], expected: int
) -> None:
    assert room(spec(**asked), nodes) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"cpus_per_trial": 9},
            r"cpus_per_trial: 9 CPU\(s\) per trial, but no node of this machine has more than 8; expected at most 8",
        ),
        (
            {"address": "auto", "cpus_per_trial": 9},
            r"cpus_per_trial: 9 CPU\(s\) per trial, but no node of the cluster has more than 8; expected at most 8",
        ),
        (
            {"cpus_per_trial": 8, "gpus_per_trial": 1},
            r"no node of this machine has 8 CPU\(s\) and 1 GPU\(s\) at once",
        ),
    ],
)
def test_a_trial_that_fits_nowhere_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        check_room(spec(**asked), [node(8), node(4, 2)])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"gpus_per_trial": 1.5},
            "gpus_per_trial: expected a whole number, or a share of one GPU, got 1.5",
        ),
        ({"address": "ray://head:10001"}, "expected null, auto or host:port of the cluster's head"),
        ({"address": "head"}, "expected null, auto or host:port"),
        ({"cpus_per_trial": 0}, "greater than 0"),
    ],
)
def test_what_ray_cannot_be_asked_is_refused_when_read(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        parse_experiment({"search": {"executor": {"kind": "ray", **keys}}})


def test_a_gpu_must_be_given_where_one_is_asked_for_and_cannot_be_chosen() -> None:
    with pytest.raises(ExperimentError, match=r"gpus_per_trial: 0, but proxy\.device is cuda"):
        check_device(spec(), "cuda")
    with pytest.raises(ExperimentError, match="'cuda:1' with the ray executor, which chooses the GPU"):
        check_device(spec(gpus_per_trial=1), "cuda:1")
    for device in ("auto", "cuda"):
        check_device(spec(gpus_per_trial=0.5), device)


def test_input_that_cannot_work_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ExperimentError, match=f"no Ray cluster to be reached at '{nobody}': .*refused"):
            run_toy(tmp_path / "run", grid(executor={"kind": "ray", "address": nobody}))
    with pytest.raises(ExperimentError, match=r"10000 CPU\(s\) per trial, but no node of this machine"):
        run_toy(tmp_path / "run", grid(executor={"kind": "ray", "cpus_per_trial": 10_000}))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_connected_joins_no_other_cluster(tmp_path: Path, cluster: None) -> None:
    import ray

    here = ray.get_runtime_context().gcs_address
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = f"127.0.0.1:{server.getsockname()[1]}"
        with (
            pytest.raises(
                ExperimentError, match=f"'{other}', but this process is connected to .* at '{here}'"
            ),
            connected(spec(address=other)),
        ):
            pass
    for same in (here, f"localhost:{here.rpartition(':')[2]}", "auto", None):
        with connected(spec(address=same)):
            assert ray.get_runtime_context().gcs_address == here
    assert ray.is_initialized(), "left as it was found"


@pytest.mark.slow
def test_an_address_where_something_else_answers_is_told_in_bounded_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-m", "headsearch", "run", "digits", "--out", str(tmp_path / "run")]
        executor = ["--set", "search.executor.kind=ray", "--set", f"search.executor.address={address}"]
        done = subprocess.run([*command, *executor], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stdout == ""
    read, refused = done.stderr.splitlines()
    assert "data: digits" in read
    assert refused.startswith("headsearch: search.executor.address: no Ray cluster ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@two_cores
def test_killed_workers_lose_nothing(tmp_path: Path, cluster: None) -> None:
    killed: list[int] = []

    class Killer(Watcher):
        def training_progress(
            self, training: Training, epoch: float, epochs: int, loss: float, images_per_second: float
        ) -> None:
            (candidate,) = training.candidates
            process = Diary(tmp_path, candidate.head_id, training.seed).processes[-1]
            # What it sent with its rung at the third epoch has arrived by then.
            if 4 <= epoch <= 8 and len(killed) < 2 and process not in killed:
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    killer = Killer()
    evaluate = DiaryToy(tmp_path, ToyEvaluator(seconds_per_epoch=0.5))
    executor = {"kind": "ray", "max_retries": 3}
    records = run_toy(tmp_path / "run", grid(executor=executor), evaluate, observer=killer)
    assert len(killed) == 2
    assert len(killer.notes) == 2
    assert all("its worker ended unexpectedly; another takes it up" in note for note in killer.notes)
    assert scores(records) == scores(run_toy(tmp_path / "undisturbed", grid(executor={"kind": "inline"})))
    assert not list((tmp_path / "run").glob("ray-*"))
    diaries = [Diary(tmp_path, record.head_id, record.seed) for record in records]
    again = [diary.attempts for diary in diaries if len(diary.attempts) > 1]
    assert len(again) == 2
    assert all(first[0] == 1 and second[0] > 1 for first, second in again), again


@pytest.mark.slow
@two_cores
def test_a_worker_that_hangs_is_replaced_and_its_trial_resumed(tmp_path: Path, cluster: None) -> None:
    halted: list[int] = []

    class Halting(Watcher):
        def rung_reached(self, training: Training, place: int, reached: object) -> None:
            if training.number == 1 and not halted:
                halted.extend(Diary(tmp_path, training.candidates[0].head_id, training.seed).processes)
                os.kill(halted[0], signal.SIGSTOP)

    halting = Halting()
    experiment = grid(
        trials=1, finalists=0, replicates=1, executor={"kind": "ray", "timeout": 20.0, "workers": 1}
    )
    evaluate = DiaryToy(tmp_path, ToyEvaluator(seconds_per_epoch=0.01))
    records = run_toy(tmp_path / "run", experiment, evaluate, observer=halting)
    assert halting.notes == [
        "trial 1: its worker gave no sign of life for 20 s; another takes it up from its checkpoint"
    ]
    deadline = time.monotonic() + 120
    while is_alive(halted[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(halted[0])
    undisturbed = grid(trials=1, finalists=0, replicates=1, executor={"kind": "inline"})
    assert scores(records) == scores(run_toy(tmp_path / "undisturbed", undisturbed))


@pytest.mark.slow
def test_a_node_that_does_not_see_the_passage_halts_the_search_with_advice(
    tmp_path: Path, cluster: None
) -> None:
    class Removing(Observer):
        def training_started(self, training: Training, status: SearchStatus) -> None:
            # As if the disk of the run directory were not that of the node.
            for passage in (tmp_path / "run").glob("ray-*"):
                shutil.rmtree(passage)

    with pytest.raises(RunError, match=r"stopped at trial 0: \S+ does not see .*/run/ray-\w+, which check"):
        run_toy(tmp_path / "run", grid(executor={"kind": "ray", "workers": 1}), observer=Removing())
    assert {record.state for record in read_records(tmp_path / "run")} == {"running"}


@pytest.mark.slow
def test_checkpoints_travel_through_the_storage_that_is_named(tmp_path: Path, cluster: None) -> None:
    storage = tmp_path / "elsewhere"
    seen: set[str] = set()

    class Looking(Observer):
        def rung_reached(self, training: Training, place: int, reached: object) -> None:
            seen.update(path.name for path in storage.rglob("checkpoint.json"))

    executor = {"kind": "ray", "storage": storage.as_uri()}
    experiment = grid(trials=1, finalists=0, replicates=1, executor=executor)
    records = run_toy(tmp_path / "run", experiment, observer=Looking())
    assert {record.state for record in records} == {"complete"}
    assert seen == {"checkpoint.json"}
    assert list(storage.iterdir()) == []
    nowhere = grid(executor={"kind": "ray", "storage": "nowhere://bucket"})
    with pytest.raises(ExperimentError, match=r"search.executor.storage: 'nowhere://bucket' cannot be wr"):
        run_toy(tmp_path / "other", nowhere)


SEARCH = """
import sys
from pathlib import Path
from headsearch.testing.traces import DiaryToy
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import run_toy, toy_experiment
experiment = toy_experiment(trials=2, finalists=2, replicates=2, sampler="grid", executor={"kind": "ray"})
out = Path(sys.argv[1])
evaluate = DiaryToy(out.parent, ToyEvaluator(seconds_per_epoch=0.03), deaths={"mlp": 5})
run_toy(out, experiment, evaluate, resume=out.exists())
"""


@contextlib.contextmanager
def started(out: Path) -> Iterator["subprocess.Popen[str]"]:
    """The search as a process of its own, which does not outlive the test."""
    search = subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield search
    finally:
        search.kill()
        search.wait()


@two_cores
@pytest.mark.slow
@pytest.mark.parametrize("end", ["SIGKILL", "two Ctrl-C"])
def test_nothing_outlives_the_driver_and_the_search_resumes(tmp_path: Path, end: str) -> None:
    out = tmp_path / "run"
    with started(out) as search:
        deadline = time.monotonic() + 300
        while not any("\n9\n" in file.read_text() for file in tmp_path.glob("diary-*")) or not any(
            record.state == "complete" for record in read_records(out)
        ):
            assert search.poll() is None, search.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        family = descendants(search.pid)
        assert len(family) > 3, "Ray's own processes, and workers"
        if end == "SIGKILL":
            search.kill()
        else:
            # As a terminal does it: to the whole group.
            for _ in range(2):
                os.killpg(search.pid, signal.SIGINT)
                time.sleep(0.2)
        stdout, stderr = search.communicate(timeout=300)
    assert search.returncode != 0
    assert stdout == ""
    assert end != "SIGKILL" or stderr == ""
    deadline = time.monotonic() + 120
    while any(map(is_alive, processes(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in processes(tmp_path) if is_alive(pid)] == [], "a trial is still at work"
    before = read_records(out)
    assert {record.state for record in before} == {"complete", "running"}

    with started(out) as search:
        stdout, stderr = search.communicate(timeout=300)
    assert (search.returncode, stdout, stderr) == (0, "", ""), "Ray is not heard of, though a worker died"
    records = read_records(out)
    assert [record for record in records if record in before] == [
        record for record in before if record.state == "complete"
    ]
    undisturbed = grid(executor={"kind": "inline"})
    assert scores(records) == scores(run_toy(tmp_path / "undisturbed", undisturbed))
    assert not list(out.glob("ray-*")), "what the killed session left is gone too"
    if end != "SIGKILL":
        # Ray's two agents look only once a minute whether they are still needed.
        deadline = time.monotonic() + 120
        while any(map(is_alive, family)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [pid for pid in family if is_alive(pid)] == []


def processes(diary: Path) -> list[int]:
    """Every process that has trained."""
    found = re.findall(r"begin (\d+)", "".join(file.read_text() for file in diary.glob("diary-*")))
    return [int(pid) for pid in found]


def descendants(process: int) -> list[int]:
    """All processes that `process` has started, and those that they have, by `/proc`."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found, new = [], [process]
    while new:
        new = [child for parent in new for child in children.get(parent, [])]
        found += new
    return found


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@two_cores
@pytest.mark.slow
def test_one_experiment_scores_the_same_on_every_executor(tmp_path: Path) -> None:
    settings = [
        "proxy.epochs=2",
        "proxy.rungs=[1, 2]",
        "proxy.device=cpu",
        "search.strategy=proxies",
        "search.trials=2",
        "search.finalists=0",
        "search.replicates=1",
        "search.sampler=grid",
    ]
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        inline = run_search(load_experiment("digits", settings), tmp_path / "inline").records
    finally:
        torch.set_num_threads(threads)
    assert {record.state for record in inline} == {"complete"}

    def found(records: Any) -> dict[str, tuple[object, ...]]:
        return {record.head_id: (record.state, record.seed, record.rungs) for record in records}

    for executor in (
        ["search.executor.kind=process", f"search.executor.workers={cores()}"],
        ["search.executor.kind=ray"],
    ):
        out = tmp_path / executor[0].rpartition("=")[2]
        records = run_search(load_experiment("digits", [*settings, *executor]), out).records
        assert found(records) == found(inline), executor
        assert len((out / "trials" / "0" / "metrics.jsonl").read_text().splitlines()) == 4


def on_two_gpus(out: Path, settings: list[str]) -> list[Any]:
    """A search on a cluster that believes in two GPUs, so that ranks of a trial are placed as on GPUs, and train on CPUs."""
    import ray

    ray.init("local", num_cpus=cores(), num_gpus=2, include_dashboard=False, log_to_driver=False)
    return run_search(load_experiment("digits", settings), out).records


@two_cores
@pytest.mark.slow
def test_trials_that_are_given_two_gpus_train_on_both_and_score_as_on_one(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    # Without batch norms, which CPU ranks do not share.
    space.write_text("space: headsearch/space@1\nhead: {convnext: {depth: {choice: [1, 2]}}}\n")
    settings = [
        f"search.space={space}",
        "method.name=dino",
        "data.subset=512",
        "proxy.epochs=1",
        "proxy.device=cpu",
        "search.strategy=proxies",
        "search.trials=2",
        "search.finalists=0",
        "search.sampler=grid",
        "search.replicates=1",
        "search.controls=[none]",
    ]
    two = "search.executor={kind: ray, address: auto, gpus_per_trial: 2}"
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    records = Started(on_two_gpus, tmp_path / "two", [*settings, two], environment=environment).result()
    inline = run_search(load_experiment("digits", settings), tmp_path / "one").records
    losses = [{r.head_id: r.rungs[-1].loss for r in found} for found in (records, inline)]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] != losses[1], "rounding tells that two have trained"
