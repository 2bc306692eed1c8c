"""Zero-cost scores as plain data and as a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headsearch.errors import RunError
from headsearch.heads import canonical, head_id, parse_head
from headsearch.heads.cost import HeadCost
from headsearch.scoring.zero_cost_scores import (
    ORDERS,
    ZeroCostScores,
    ordered,
    read_scores,
    write_scores,
)


def row(depth: int = 1, **changes: object) -> ZeroCostScores:
    config = canonical(parse_head({"mixer": {"depth": depth}}))
    fields = {
        "cost": HeadCost(100, 200),
        "measures": {"cka.embedding.output": 0.5, "cka.tokens.output": 0.25},
        "quality": {"retrieval.head": 12.5},
        "rankme_head": 3.0,
        "synflow": 4.0,
        "naswot": 5.0,
        "sd": {"synflow": 0.1},
    }
    return ZeroCostScores(head_id(config), config, 3, **{**fields, **changes})  # type: ignore[arg-type]


INFEASIBLE = ZeroCostScores(row(7).head_id, row(7).config, 3, reason="the head collapsed")


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    rows = [row(1), INFEASIBLE, row(2, naswot=None, quality={})]
    path = tmp_path / "zero_cost.jsonl"
    write_scores(path, rows, "abc")
    assert read_scores(path) == read_scores(path, "abc") == rows
    assert [json.loads(line).get("head_id") for line in path.read_text().splitlines()[1:]] == [
        each.head_id for each in rows
    ]
    write_scores(path, rows[:1], "abc")
    assert read_scores(path) == rows[:1]
    assert [file.name for file in tmp_path.iterdir()] == ["zero_cost.jsonl"]


def test_a_score_that_an_older_formula_gave_is_computed_anew(tmp_path: Path) -> None:
    path = tmp_path / "zero_cost.jsonl"
    write_scores(path, [row()], "abc")
    text = path.read_text()
    assert '"score": 0.0625' in text
    path.write_text(text.replace('"score": 0.0625', '"score": 7.0'))
    assert read_scores(path)[0].score == 0.0625


def test_scores_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "zero_cost.jsonl"
    write_scores(path, [row()], "abc")
    with pytest.raises(RunError, match="holds scores of another base, other images or other seeds"):
        read_scores(path, "abd")


@pytest.mark.parametrize(
    "text",
    ["", "[]\n", "{}\n", "half a li", '{"zero_cost": "headsearch/zero-cost@1"}\n{"head_id": "x"}\n', "\xff"],
)
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "zero_cost.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"zero_cost\.jsonl: (line 2 )?cannot be read") as error:
        read_scores(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        read_scores(tmp_path / "none.jsonl")
    with pytest.raises(RunError, match="cannot be written"):
        write_scores(tmp_path / "no folder" / "zero_cost.jsonl", [row()], "abc")


def test_order_is_largest_first_and_what_is_unknown_comes_last() -> None:
    best = row(1, measures={"cka.embedding.output": 0.5})
    worst, unknown = row(2, measures={"cka.embedding.output": -0.5}), row(3, quality={})
    assert ordered([INFEASIBLE, worst, unknown, best])[:2] == [best, worst]
    assert ordered([unknown, INFEASIBLE]) == ordered([INFEASIBLE, unknown])
    assert ordered([row(1, synflow=1.0), row(2, synflow=2.0)], "synflow")[0].synflow == 2.0


def test_every_order_has_a_value() -> None:
    assert {name: row().value(name) for name in ORDERS} == {
        "score": 0.0625,
        "cka.embedding.output": 0.5,
        "cka.embedding.change": None,
        "cka.tokens.output": 0.25,
        "cka.tokens.change": None,
        "retrieval.head": 12.5,
        "rankme_head": 3.0,
        "synflow": 4.0,
        "naswot": 5.0,
    }
