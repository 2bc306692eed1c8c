"""Looking at a run changes no byte of it, whoever looks and in whatever state the run is, and shows all that is there."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy
from database_servers import MariaServer, PostgresServer
from typer.testing import CliRunner

from headsearch.cli import app
from headsearch.dashboard.app import Runs
from headsearch.runs.reading import RunReader
from headsearch.runs.run import look_at, read_records, read_run
from headsearch.runs.sqlite import look
from headsearch.runs.storages import open_storage
from headsearch.testing.toy_search import run_toy, toy_experiment

NOBODY = 65534

SEARCH = """
import sys, time
from pathlib import Path
from headsearch.search.observer import Observer
from headsearch.search import lease
from headsearch.testing.toy_search import run_toy, toy_experiment

# The sign of life that a search writes is not what is looked for.
lease.BEAT_SECONDS = 1000.0

class Slow(Observer):
    def training_ended(self, records, status):
        if records[0].number == 6:
            Path(sys.argv[2]).touch()
            time.sleep(600)

storage = sys.argv[3] if len(sys.argv) > 3 else None
run_toy(Path(sys.argv[1]), toy_experiment(trials=12, sampler="random", storage=storage), observer=Slow())
"""
TRIALS = 7
"""Trials that have ended in it when it waits."""


@contextmanager
def at_work(folder: Path, storage: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A search in a process of its own, that waits when some trials have ended. It is killed in the end."""
    command = [sys.executable, "-c", SEARCH, str(folder / "run"), str(folder / "waits")]
    search = subprocess.Popen([*command, *([storage] if storage else [])])
    try:
        until = time.monotonic() + 300
        while not (folder / "waits").exists():
            assert search.poll() is None, "the search ended"
            assert time.monotonic() < until, "the search did not come that far"
            time.sleep(0.05)
        yield search
    finally:
        search.send_signal(signal.SIGKILL)
        search.wait()


def killed(folder: Path, storage: str | None = None) -> Path:
    """A run whose search was killed, with its newest trials in SQLite's log."""
    with at_work(folder, storage):
        pass
    return folder / "run"


def states(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file below a folder: when it was written last, and what is in it."""
    return {
        str(file.relative_to(folder)): (
            file.stat().st_mtime_ns,
            hashlib.sha256(file.read_bytes()).hexdigest(),
        )
        if file.is_file()
        else (file.stat().st_mtime_ns, "")
        for file in (folder, *sorted(folder.rglob("*")))
    }


def looked_at(run: Path, out: Path) -> None:
    """Every command that looks, and the dashboard, which looks twice."""
    commands = (
        ["rank", str(run), "--all"],
        ["trials", str(run), "--format", "json"],
        ["status", str(run)],
        ["audit", str(run)],
        ["report", str(run), "--out", str(out / "report.html")],
        ["report", str(run), "--format", "md", "--out", "-"],
        ["export", str(run), "--out", str(out / "head.yaml")],
    )
    for command in commands:
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, (command, result.output, result.exception)
    runs = Runs([run])
    runs.refresh()
    assert runs.views[0].records


STORAGES = (None, "sqlite:///{}/shared.db", "journal:///{}/study.log")


@pytest.mark.parametrize("storage", STORAGES)
def test_looking_at_a_finished_run_changes_nothing(tmp_path: Path, storage: str | None) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    url = storage.format(folder) if storage else None
    records = run_toy(folder / "run", toy_experiment(trials=6, sampler="random", storage=url))
    before = states(folder)
    looked_at(folder / "run", tmp_path)
    assert states(folder) == before
    assert read_records(folder / "run") == records


@pytest.mark.parametrize("storage", STORAGES)
def test_looking_at_a_running_and_then_killed_run_changes_nothing_and_shows_its_newest_trials(
    tmp_path: Path, storage: str | None
) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    url = storage.format(folder) if storage else None
    with at_work(folder, url) as search:
        for condition in ("at work", "interrupted"):
            if condition == "interrupted":
                search.kill()
                search.wait()
            before = states(folder)
            looked_at(folder / "run", tmp_path)
            assert states(folder) == before
            run = read_run(folder / "run")
            assert (run.settled, run.condition, run.problems) == (TRIALS, condition, ())


def content(url: str) -> dict[str, list[str]]:
    """Every table of a database, and what PostgreSQL counts of writes to it."""
    # Sessions write their counters down, at the latest, when they end.
    gc.collect()
    engine = sqlalchemy.create_engine(open_storage(url, reading=True).engine.url)
    others = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid != pg_backend_pid()"
    while engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            if connection.scalar(sqlalchemy.text(others)) == 0:
                break
        time.sleep(0.05)
    names = sqlalchemy.inspect(engine).get_table_names()
    with engine.connect() as connection:
        tables = {
            name: sorted(map(str, connection.execute(sqlalchemy.text(f"SELECT * FROM {name}"))))
            for name in names
        }
        if engine.dialect.name == "postgresql":
            counted = "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables"
            tables["counted"] = sorted(map(str, connection.execute(sqlalchemy.text(counted))))
    engine.dispose()
    return tables


@pytest.mark.parametrize("kind", ["postgresql", pytest.param("mysql", marks=pytest.mark.slow)])
def test_looking_writes_nothing_to_a_database(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: PostgresServer | MariaServer = request.getfixturevalue(kind)
    records = run_toy(tmp_path / "run", toy_experiment(trials=6, sampler="random", storage=server.url))
    before = states(tmp_path / "run"), content(server.url)
    looked_at(tmp_path / "run", tmp_path)
    assert (states(tmp_path / "run"), content(server.url)) == before
    assert read_records(tmp_path / "run") == records


def test_half_a_line_at_the_end_of_a_live_journal_is_left_to_its_writer(tmp_path: Path) -> None:
    journal = tmp_path / "study.log"
    records = run_toy(tmp_path / "run", toy_experiment(trials=3, storage=f"journal:///{journal}"))
    with journal.open("ab") as file:
        file.write(b'{"op_code": 8, "trial_')
    (tmp_path / "study.log.lock").symlink_to("somebody's")
    before = states(tmp_path / "run"), journal.read_bytes()
    assert read_records(tmp_path / "run") == records
    assert look_at(tmp_path / "run").problems == ()
    assert (states(tmp_path / "run"), journal.read_bytes()) == before
    assert (tmp_path / "study.log.lock").is_symlink()


@pytest.mark.parametrize("storage", STORAGES[1:])
def test_a_storage_that_is_missing_is_said_and_not_made(tmp_path: Path, storage: str) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    run_toy(folder / "run", toy_experiment(trials=2, storage=storage.format(folder)))
    next(file for file in folder.iterdir() if file.suffix in (".db", ".log")).unlink()
    before = states(folder)
    for command in ("rank", "trials", "audit"):
        result = CliRunner().invoke(app, [command, str(folder / "run")])
        assert "there is no" in str(result.exception)
    run = look_at(folder / "run")
    assert "there is no" in run.problems[0]
    assert states(folder) == before


LOOK_AS_NOBODY = f"""
import os, sys
from headsearch.runs.run import look_at
look_at(sys.argv[1])  # Whatever it imports may be out of nobody's reach.
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
run = look_at(sys.argv[1])
print(len(run.records), run.settled, *run.problems)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
@pytest.mark.parametrize("storage", STORAGES)
def test_another_user_who_may_not_write_sees_all_of_a_killed_run_also_without_its_index(
    storage: str | None,
) -> None:
    # Not below tmp_path, where others may not go.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = killed(folder, storage.format(folder) if storage else None)
        for file in (folder, *folder.rglob("*")):
            file.chmod(0o555 if file.is_dir() else 0o444)
        for look in range(2):
            before = states(folder)
            command = [sys.executable, "-c", LOOK_AS_NOBODY, str(run)]
            result = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert states(folder) == before
            assert result.stdout.split() == [str(len(read_records(run))), str(TRIALS)], result.stderr
            indices = list(folder.rglob("*-shm"))
            if look or not indices:
                break
            for index in indices:
                index.unlink()


def test_a_live_study_is_read_whole_while_it_is_written(tmp_path: Path) -> None:
    """No reading is of half a transaction, and none fails, however fast it is written."""
    file = tmp_path / "fast.db"
    code = (
        "import sqlite3, sys\n"
        "d = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "d.execute('PRAGMA journal_mode=WAL'); d.execute('PRAGMA wal_autocheckpoint=20')\n"
        "d.execute('CREATE TABLE a (x)'); d.execute('CREATE TABLE b (x)'); print('ready', flush=True)\n"
        "while True:\n"
        "    d.execute('BEGIN'); d.execute('INSERT INTO a VALUES (1)'); d.execute('INSERT INTO b VALUES (1)'); d.execute('COMMIT')\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline()

        def counts(database: sqlite3.Connection) -> tuple[int, int]:
            [(a, b)] = database.execute("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)")
            return a, b

        found = []
        # The writer may be given no time for a while.
        while len(found) < 200 or found[-1][0] < found[0][0] + 20:
            assert writer.poll() is None
            found.append(look(file, counts))
    finally:
        writer.kill()
        writer.wait()
    assert all(a == b for a, b in found)
    assert found == sorted(found)


def test_a_log_of_no_page_whose_writer_was_killed_is_read(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE trials (number)")
        database.execute("INSERT INTO trials VALUES (7)")
        database.commit()
        database.execute("PRAGMA wal_checkpoint(FULL)")
        for file in tmp_path.glob("study.db*"):
            shutil.copyfile(file, left / file.name)
    os.truncate(left / "study.db-wal", 32)
    assert look(left / "study.db", lambda found: found.execute("SELECT * FROM trials").fetchall()) == [(7,)]


def test_a_database_in_rollback_mode_with_a_hot_journal_is_read_as_before_the_crash(tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    code = (
        "import os, sqlite3, sys\n"
        "d = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "d.execute('PRAGMA cache_size=2'); d.execute('CREATE TABLE a (x)'); d.execute('INSERT INTO a VALUES (1)')\n"
        "d.execute('BEGIN'); d.executemany('INSERT INTO a VALUES (?)', [('y' * 900,) for _ in range(500)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert (tmp_path / "old.db-journal").stat().st_size > 0
    before = states(tmp_path)
    assert look(file, lambda database: database.execute("SELECT count(*) FROM a").fetchall()) == [(1,)]
    assert states(tmp_path) == before


def test_a_study_that_is_lost_or_another_s_is_never_shown_as_empty(tmp_path: Path) -> None:
    run = killed(tmp_path)
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "study": "another"}))
    assert "has no study 'another'" in str(CliRunner().invoke(app, ["rank", str(run)]).exception)
    (run / "run.json").write_text(json.dumps(facts))
    for end in ("", "-wal", "-shm"):
        (run / f"study.db{end}").unlink()
    assert "there is no such file" in str(CliRunner().invoke(app, ["trials", str(run)]).exception)
    (run / "study.db").touch()
    assert "cannot be read as a study" in str(CliRunner().invoke(app, ["audit", str(run)]).exception)


def test_a_dashboard_keeps_what_it_has_seen_when_the_storage_goes_away(tmp_path: Path) -> None:
    run_toy(tmp_path / "run", toy_experiment(trials=3, sampler="random"))
    reader = RunReader(tmp_path / "run")
    seen = reader.read()
    shutil.move(tmp_path / "run" / "study.db", tmp_path / "away.db")
    lost = reader.read()
    assert lost.records == seen.records
    assert "there is no such file" in lost.problems[0]
    shutil.move(tmp_path / "away.db", tmp_path / "run" / "study.db")
    assert reader.read().problems == ()
