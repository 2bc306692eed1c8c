"""Runs that older code left behind read as they did: the same exit code and the same JSON, in every storage.

They were made by `tests/fixtures/make.py`. Wall times and overheads come from the stored study, so that everything must be equal.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import frozen
import pytest
from database_servers import ServerMissing
from servers import DUMP, STORAGES, restore, serving


def compare(run: frozen.OldRun, copy: Path) -> None:
    expected = run.expected()
    assert set(expected) == set(frozen.QUESTIONS)
    for question in frozen.QUESTIONS:
        assert frozen.ask(question, copy) == expected[question], question


@pytest.mark.parametrize("name", ["proxies", "funnel", "killed", "mixed", "journal"])
def test_a_run_in_files_reads_as_it_did(name: str, tmp_path: Path) -> None:
    run = frozen.OldRun(name)
    compare(run, run.unpack(tmp_path))


@pytest.mark.parametrize("kind", STORAGES)
def test_a_run_in_a_database_reads_as_it_did(kind: str, tmp_path: Path) -> None:
    run = frozen.OldRun(kind)
    copy = run.unpack(tmp_path)
    try:
        with serving(kind) as url:
            restore(kind, url, copy / DUMP)
            compare(run, copy)
    except ServerMissing as missing:
        pytest.skip(str(missing))


def test_every_frozen_run_is_looked_at() -> None:
    names = {folder.name for folder in frozen.OLD_RUNS.iterdir()}
    assert names == {"proxies", "funnel", "killed", "mixed", "journal", *STORAGES}


def test_the_newest_trials_of_the_killed_run_are_in_the_log_alone(tmp_path: Path) -> None:
    """Otherwise the fixture does not show what it is for."""
    run = frozen.OldRun("killed")
    copy = run.unpack(tmp_path)
    rows: list[dict[str, Any]] = run.expected()["trials run --format json"]
    assert [row["state"] for row in rows] == ["complete", "complete", "complete", "running"]
    assert rows[-1]["rungs"] == [1]
    alone = tmp_path / "alone.db"
    shutil.copy(copy / "run" / "study.db", alone)
    with closing(sqlite3.connect(alone)) as study:
        assert study.execute("SELECT number FROM trials ORDER BY number").fetchall() == [(0,), (1,)]


def test_no_frozen_file_names_a_place_on_the_machine_it_was_made_on(tmp_path: Path) -> None:
    for folder in frozen.OLD_RUNS.iterdir():
        for path in frozen.OldRun(folder.name).unpack(tmp_path).rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                for place in (b"/root/", b"/home/", b"/tmp/", os.fsencode(frozen.FIXTURES.parents[1])):
                    assert place not in content, path
