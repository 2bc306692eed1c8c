"""One writer of a study, wherever it is, and one that notices when its study is gone."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from database_servers import MariaServer, PostgresServer
from holding import HELD

from headsearch.errors import RunError
from headsearch.experiment import Experiment
from headsearch.runs.run import read_records
from headsearch.runs.storages import open_storage
from headsearch.search import lease as module
from headsearch.search.lease import KEY, Lease, StudyLost
from headsearch.search.observer import Observer
from headsearch.search.patience import Patience
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import results, run_toy, toy_experiment
from headsearch.training.trial import RungScores, Training


def experiment(storage: str | None = None) -> Experiment:
    return toy_experiment(trials=4, finalists=1, replicates=2, controls=["none"], storage=storage)


class At(Observer):
    """Does something once, at the first rung of a trial."""

    def __init__(self, number: int, act: Callable[[], Any]) -> None:
        self._number, self._act = number, act

    def rung_reached(self, training: Training, place: int, scores: RungScores) -> None:
        if training.number == self._number and scores.epoch == 1:
            self._act()


def removed(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    path.write_bytes(b"This is no database. " * 4000)


def replaced(path: Path) -> None:
    other = path.with_name("other.db")
    optuna.create_study(storage=f"sqlite:///{other}", study_name="another")
    other.replace(path)


@pytest.mark.parametrize("harm", [removed, emptied, overwritten, replaced])
@pytest.mark.parametrize("folded", [False, True], ids=["with its log", "alone"])
def test_a_study_that_is_lost_is_noticed_and_nothing_of_it_is_gone(
    harm: Callable[[Path], None], folded: bool, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    undisturbed = results(run_toy(tmp_path / "undisturbed", experiment()))

    def strike() -> None:
        if folded:
            # All of it is in the file, and nothing in the log that SQLite writes ahead.
            with contextlib.closing(sqlite3.connect(out / "study.db")) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        harm(out / "study.db")

    told = None
    try:
        run_toy(out, experiment(), observer=At(2, strike))
    except RunError as error:
        told = str(error)
    if told is None:
        assert not folded, "the log held all of it"
    else:
        assert told.endswith("go on with --resume")
        assert "\n" not in told
        assert len(read_records(out)) >= 3, "running ones too"
        assert not folded or harm is removed or (out / "study.db.lost").exists(), "what was there is kept"
    assert results(run_toy(out, experiment(), resume=True)) == undisturbed


def test_a_study_that_is_removed_at_the_very_end_is_noticed_too(tmp_path: Path) -> None:
    out = tmp_path / "run"

    class AtTheEnd(Observer):
        def training_ended(self, records: Any, status: Any) -> None:
            if status.settled == status.expected:
                (out / "study.db").unlink()

    with pytest.raises(
        RunError, match=r"was removed.*written anew from memory, with 7 trials; go on with --resume"
    ):
        run_toy(out, experiment(), observer=AtTheEnd())
    assert results(read_records(out)) == results(run_toy(tmp_path / "undisturbed", experiment()))


def test_a_second_coordinator_is_refused_though_the_lock_file_was_removed(tmp_path: Path) -> None:
    out, said = tmp_path / "run", []

    def second() -> None:
        (out / ".lock").unlink()
        with pytest.raises(RunError) as refused:
            run_toy(out, experiment(), resume=True)
        said.append(str(refused.value))

    records = run_toy(out, experiment(), observer=At(2, second))
    assert results(records) == results(run_toy(tmp_path / "undisturbed", experiment()))
    assert f"held by another headsearch run (process {os.getpid()} on" in said[0]
    assert said[0].endswith("wait for it or stop it")


WRITER = """
import sys
from pathlib import Path
from holding import HoldingToy
from headsearch.testing.toy_search import run_toy, toy_experiment
experiment = toy_experiment(trials=4, finalists=1, replicates=2, controls=["none"], storage=sys.argv[2])
run_toy(Path(sys.argv[1]), experiment, HoldingToy(first=2), resume=True)
"""


@pytest.mark.parametrize(
    "kind", ["sqlite", "journal", "postgresql", pytest.param("mysql", marks=pytest.mark.slow)]
)
def test_of_two_copies_of_a_run_on_one_study_one_works_and_a_killed_one_is_followed(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind in ("postgresql", "mysql"):
        server: PostgresServer | MariaServer = request.getfixturevalue(kind)
        url = server.url
    else:
        url = f"{kind}:///{tmp_path}/studies.{'db' if kind == 'sqlite' else 'log'}"
    first, second = tmp_path / "first", tmp_path / "second"

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_toy(first, experiment(url), observer=At(1, stop))
    shutil.copytree(first, second)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(first), url],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        deadline = time.monotonic() + 300
        while not (first / "trials" / "2" / HELD).exists():
            assert writer.poll() is None, writer.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(RunError, match=rf"held by another headsearch run \(process {writer.pid} on"):
            run_toy(second, experiment(url), resume=True)
    finally:
        writer.kill()
        writer.communicate()
    undisturbed = results(run_toy(tmp_path / "undisturbed", experiment()))
    assert results(run_toy(second, experiment(url), resume=True)) == undisturbed


@pytest.fixture
def study(tmp_path: Path) -> tuple[Any, str]:
    url = f"sqlite:///{tmp_path}/studies.db"
    optuna.create_study(storage=url, study_name="s")
    return open_storage(url), "s"


def elsewhere(storage: Any, beat: int) -> None:
    """A lease of a process on another machine."""
    content = {
        "token": "x",
        "host": "far",
        "machine": "far",
        "pid": 1,
        "started": "1",
        "since": "noon",
        "beat": beat,
    }
    storage.set_study_system_attr(1, KEY, content)


def test_a_holder_on_another_machine_is_waited_for_and_taken_for_dead_when_it_is_silent(
    study: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.2)
    storage, name = study
    notes: list[str] = []
    elsewhere(storage, 7)
    with Lease(storage, name, None, Patience()).held(shared=True, note=notes.append):
        assert notes == [
            "the study 's' is held by another headsearch run (process 1 on far, since noon); waiting 1 s for a sign of life"
        ]
    assert storage.get_study_system_attrs(1)[KEY] is None, "given back"

    elsewhere(storage, 7)
    beating = Lease(storage, name, None, Patience()).held(
        shared=True, note=lambda text: elsewhere(storage, 8)
    )
    with pytest.raises(RunError, match="process 1 on far, since noon"), beating:
        raise AssertionError("it was given to two")


def test_whoever_was_taken_for_dead_stops_at_its_next_write(
    study: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, name = study
    lease = Lease(storage, name, None, Patience())
    with lease.held(shared=False, note=print):
        lease.confirm()
        elsewhere(storage, 1)
        lease.check()  # Not asked at every write ...
        monkeypatch.setattr(module, "SILENT_SECONDS", 0.0)  # ... but after a while without a beat.
        with pytest.raises(
            StudyLost, match=r"taken over by another headsearch run \(process 1 on far, since noon\)"
        ):
            lease.check()
    assert storage.get_study_system_attrs(1)[KEY]["host"] == "far", "nothing of another's is given back"


def test_two_that_take_a_lease_at_once_do_not_both_get_it(
    study: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[str] = []
    both = threading.Barrier(2, timeout=120)
    # Half a second is for both to have written, and they have.
    clock = SimpleNamespace(sleep=lambda seconds: both.wait(), time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(module, "time", clock)

    def take() -> None:
        storage = open_storage(f"sqlite:///{tmp_path}/studies.db")
        lease = Lease(storage, "s", None, Patience())
        # Both have found it free.
        lease._wait_for_a_dead_one = lambda note: None  # type: ignore[method-assign]
        try:
            with lease.held(shared=True, note=print):
                got.append("got")
                both.wait()
        except RunError:
            got.append("refused")
            both.wait()

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == ["got", "refused"]


def test_the_database_knows_nothing_of_a_lease_after_the_search(tmp_path: Path) -> None:
    run_toy(tmp_path / "run", experiment(), ToyEvaluator())
    with sqlite3.connect(tmp_path / "run" / "study.db") as database:
        (text,) = database.execute(
            "SELECT value_json FROM study_system_attributes WHERE key = ?", (KEY,)
        ).fetchone()
    assert text == "null"
