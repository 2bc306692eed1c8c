"""A damaged run: what can be read is shown, what cannot is named in one line, and nothing ends in a traceback.

Hundreds of seeded mutations of everything that is read of a run, structure and bytes, against all that is computed from it.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headsearch.cli import app
from headsearch.errors import HeadsearchError
from headsearch.report.markdown import markdown_report
from headsearch.report.page import html_report
from headsearch.report.status import status_data, status_panel
from headsearch.results.tables import (
    departure_table,
    rank_table,
    rank_text,
    trial_table,
    trial_text,
)
from headsearch.runs.frame import curves
from headsearch.runs.run import Run, look_at
from headsearch.testing.toy_search import run_toy, toy_experiment

ODD = (
    None, True, False, 0, -1, 3, 2**70, 10**400, 0.5, -1e308, math.nan, math.inf, "", "x", "1", "none", "\ud800", "\x1b[2J\x00", "[bold]",
    [], [None], [[[]]], {}, {"a": 1}, {"": None}, [1, "a"], "9" * 5000, "complete", "duplicate", "screen", "running",
)  # fmt: skip
"""What a value may turn into."""
BROKEN = (
    "",
    "{",
    "[1",
    "nul",
    "\x00",
    '{"a": NaN}',
    "[" * 100_000,
    "9" * 5000,
    '"\\ud800"',
    "\ufeff{}",
    "# x",
    "a: &a [*a]",
)
"""What a text may turn into."""


def mutated(data: Any, rng: random.Random) -> Any:
    """Plain data with one thing in it changed, taken out, added, or renamed."""
    data = copy.deepcopy(data)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    if isinstance(data, dict | list):
        walk(data)
    if not places or rng.random() < 0.05:
        return rng.choice(ODD)
    node, key = rng.choice(places)
    what = rng.random()
    if what < 0.15:
        del node[key]
    elif what < 0.2 and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    elif what < 0.25 and isinstance(node, list):
        node.append(copy.deepcopy(node[key]))
    else:
        node[key] = rng.choice(ODD)
    return data


def mutated_text(text: str, rng: random.Random) -> str:
    """A text cut off, with something odd in it, or replaced."""
    place = rng.randrange(len(text) + 1)
    return rng.choice(
        [
            text[:place],
            text[:place]
            + rng.choice(["\x00", "\udcff", "{", "&a", "!!python/object:os.system", "- ", "\t"])
            + text[place:],
            rng.choice(BROKEN),
        ]
    )


@pytest.fixture(scope="module")
def funnel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with every kind of record."""
    search = {"strategy": "funnel", "candidates": 20, "screen": {"heads": 8}, "trials": 5, "audit": 1}
    out = tmp_path_factory.mktemp("damage") / "run"
    run_toy(out, toy_experiment(finalists=2, replicates=2, **search))
    (out / "trials" / "9").mkdir(exist_ok=True)
    (out / "trials" / "9" / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"kind": "epoch", "epoch": n, "loss": 1 / n, "images_per_second": 9.0}) + "\n"
            for n in (1, 2, 3)
        )
    )
    return out


@pytest.fixture
def run(funnel: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(funnel, tmp_path / "run"))


def everything(path: Path, *, pages: bool) -> Run:
    """All that can be made of a run. A refusal in one line may come instead."""
    run = look_at(path)
    assert all(line and "\n" not in line and "Traceback" not in line for line in run.problems), run.problems
    if run.failure is None:
        for by in (None, "probe", "discrepancy", "score", "pareto"):
            with contextlib.suppress(HeadsearchError):
                rows = run.ranking(by)
                rank_text(rows, "json"), rank_text(rows, "csv"), rank_table(rows, labels=run.labels)
    trial_text(run.records, "json"), trial_table(run.records), departure_table(run.departed)
    status_data(run), status_panel(run)
    with contextlib.suppress(HeadsearchError):
        curves(path)
    for record in run.records:
        run.curve(record.number)
    if pages:
        markdown_report(run)
        html_report(run).encode()
    return run


def rewritten(file: Path, change: Callable[[str], str]) -> None:
    text = change(file.read_text(encoding="utf-8"))
    file.write_bytes(text.encode("utf-8", "surrogateescape"))


@contextlib.contextmanager
def edited(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path / "study.db")) as database, database:
        yield database


def seeds(number: int) -> list[Any]:
    """Half of them are for `make test-slow`."""
    return [
        pytest.param(seed, marks=() if seed < number // 2 else pytest.mark.slow) for seed in range(number)
    ]


@pytest.mark.parametrize("seed", seeds(6))
def test_attributes_of_trials(run: Path, seed: int) -> None:
    rng = random.Random(seed)
    with edited(run) as database:
        before = database.execute(
            "SELECT 'trial_system_attributes', trial_system_attribute_id, value_json FROM trial_system_attributes "
            "UNION ALL SELECT 'trial_user_attributes', trial_user_attribute_id, value_json FROM trial_user_attributes"
        ).fetchall()
    whole = len(look_at(run).records)
    for turn in range(20):
        chosen = rng.sample(before, rng.choice([1, 1, 3]))
        with edited(run) as database:
            for table, row, text in chosen:
                new = (
                    json.dumps(mutated(json.loads(text), rng))
                    if rng.random() < 0.8
                    else mutated_text(text, rng)
                )
                new = new.encode("utf-8", "replace").decode()
                database.execute(f"UPDATE {table} SET value_json = ? WHERE {table[:-1]}_id = ?", (new, row))
        found = everything(run, pages=turn == 0)
        assert found.failure is None
        assert len(found.records) >= whole - len(chosen), "others are shown"
        with edited(run) as database:
            for table, row, text in chosen:
                database.execute(f"UPDATE {table} SET value_json = ? WHERE {table[:-1]}_id = ?", (text, row))


@pytest.mark.parametrize("seed", seeds(4))
def test_columns_of_trials(run: Path, seed: int) -> None:
    rng = random.Random(seed)
    values = [None, "", "x", -5, 2.5, b"\xff\x00", 2**60, "2026-01-01 00:00:00", "9999-99-99"]
    for turn in range(12):
        with edited(run) as database:
            column = rng.choice(["number", "datetime_start", "datetime_complete", "state"])
            with contextlib.suppress(sqlite3.IntegrityError):
                database.execute(
                    f"UPDATE trials SET {column} = ? WHERE number = ?",
                    (rng.choice(values), rng.randrange(12)),
                )
        everything(run, pages=turn == 6)


@pytest.mark.parametrize(
    "name", ["run.json", "zero_cost.jsonl", "trials/9/metrics.jsonl", "experiment.yaml", "space.yaml"]
)
@pytest.mark.parametrize("seed", seeds(2))
def test_files(run: Path, name: str, seed: int) -> None:
    rng = random.Random(seed)
    file = run / name
    before = file.read_text(encoding="utf-8")

    def change(text: str) -> str:
        if name.endswith(".yaml") or rng.random() < 0.25:
            return mutated_text(text, rng)
        lines = text.split("\n") if name.endswith("jsonl") else [text]
        place = rng.randrange(len([line for line in lines if line]))
        lines[place] = json.dumps(mutated(json.loads(lines[place]), rng))
        return "\n".join(lines)

    for turn in range(20):
        rewritten(file, change)
        found = everything(run, pages=turn == 0)
        if name != "experiment.yaml":
            # Without its experiment nothing says where the study is.
            assert found.records
        file.write_text(before, encoding="utf-8")


def test_bytes_of_the_study(run: Path) -> None:
    rng = random.Random(0)
    file = run / "study.db"
    before = file.read_bytes()
    for _ in range(40):
        content = bytearray(before[: rng.choice([len(before)] * 3 + [rng.randrange(len(before))])])
        for _ in range(rng.choice([1, 10, 200])):
            if content:
                content[rng.randrange(len(content))] = rng.randrange(256)
        file.write_bytes(content)
        everything(run, pages=False)


@pytest.mark.parametrize(
    "file", ["run.json", "zero_cost.jsonl", "trials/9/metrics.jsonl", "experiment.yaml", "study.db"]
)
def test_folders_links_to_nothing_and_unreadable_bytes_in_place_of_files(run: Path, file: str) -> None:
    for make in (
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("/nowhere"),
        lambda path: path.write_bytes(b"\xff\xfe\x00" * 99),
    ):
        place = run / file
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        make(place)
        with contextlib.suppress(HeadsearchError):
            everything(run, pages=False)


def test_every_command_names_what_it_does_not_show(run: Path, tmp_path: Path) -> None:
    with edited(run) as database:
        number = 12
        database.execute(
            "UPDATE trial_system_attributes SET value_json = '[1]' WHERE key = 'outcome' AND trial_id = "
            "(SELECT trial_id FROM trials WHERE number = ?)",
            (number,),
        )
    lines = (run / "zero_cost.jsonl").read_text().splitlines()
    lines[3] = lines[3].replace('"seeds": 1', '"seeds": "many"')
    (run / "zero_cost.jsonl").write_text("\n".join(lines) + "\n")
    commands = ("rank", "trials", "audit", "status", "report", "export")
    for command in commands:
        out = ["--out", str(tmp_path / command)] if command in ("report", "export") else []
        result = CliRunner().invoke(app, [command, str(run), *out])
        assert result.exit_code == 0, (command, result.exception)
        told = result.output if command == "status" else result.stderr
        assert f"trial {number} cannot be read" in told, command
        assert "line 4 cannot be read: seeds" in " ".join(told.split()), command
    assert len(look_at(run).problems) == 2
