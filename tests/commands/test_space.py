"""`headsearch space …`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headsearch.commands.space import space_app
from headsearch.errors import SpaceError
from headsearch.space import load_space

RUNNER = CliRunner()


def run(*words: str) -> Any:
    return RUNNER.invoke(space_app, list(words))


def as_json(*words: str) -> Any:
    result = run(*words, "--format", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_count() -> None:
    answer = as_json("count", "tiny")
    assert answer["descriptions"] == answer["distinct"] == answer["allowed"] == load_space("tiny").count()
    assert "descriptions" in run("count", "tiny").stdout


def test_what_cannot_be_checked_is_unknown_and_said_on_stderr() -> None:
    result = run("count", "paper", "--format", "json")
    answer = json.loads(result.stdout)
    assert answer["allowed"] is None
    assert answer["unchecked"] == ["params <= 0.5 * base.params", "flops <= 0.4 * base.flops"]
    assert "not checked without --base" in result.stderr


def test_sample_repeats_under_a_seed_and_lies_in_the_space() -> None:
    first, again = (as_json("sample", "tiny", "-n", "4", "--seed", "7") for _ in range(2))
    assert first == again
    assert len(first) == 4
    assert as_json("sample", "tiny", "-n", "4", "--seed", "8") != first
    inside = [head.to_dict() for head in load_space("tiny").enumerate()]
    assert all(row["config"] in inside for row in first)


def test_sample_respects_constraints(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "space: headsearch/space@1\nhead: {mixer: {depth: {int: [1, 9]}}}\nconstraints: [depth > 7]"
    )
    rows = as_json("sample", str(path), "-n", "20")
    assert {row["config"]["mixer"]["depth"] for row in rows} == {8, 9}


def test_show() -> None:
    answer = as_json("show", "paper")
    assert answer["hash"] == load_space("paper").hash
    assert answer["constraints"] == ["params <= 0.5 * base.params", "flops <= 0.4 * base.flops"]
    text = run("show", "paper").stdout
    assert "convnext" in text
    assert "stack of 2…4 slots" in text


def test_validate(tmp_path: Path) -> None:
    assert as_json("validate", "metaformer")["valid"] is True
    path = tmp_path / "s.yaml"
    path.write_text(
        "space: headsearch/space@1\nhead: {mixer: {depth: {int: [1, 9]}}}\nconstraints: [depth > 9]"
    )
    result = run("validate", str(path))
    assert isinstance(result.exception, SpaceError)
    assert "no head of the space is allowed" in str(result.exception)
    assert result.stdout == ""


def test_a_base_of_your_own_is_counted_for_with_the_channels_that_it_takes(tmp_path: Path) -> None:
    (tmp_path / "bands_of_space.py").write_text(
        "from torch import nn\n\n\nclass build(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.stem = nn.Conv2d(5, 8, 4, 4)\n"
        "    def map_and_embedding(self, x):\n        return (y := self.stem(x)), y.mean((2, 3))\n"
    )
    (tmp_path / "s.yaml").write_text(
        "space: headsearch/space@1\nhead: {paper: {depth: {int: [1, 3]}}}\nconstraints: [params <= 3 * base.params]"
    )
    given = ["--base", f"{tmp_path}/bands_of_space.py:build", "--image-size", "16"]
    answer = as_json("count", str(tmp_path / "s.yaml"), *given)
    # A ConvNeXt block of width 8 has 1,024 numbers or so, the base 648.
    assert (answer["descriptions"], answer["allowed"]) == (3, 1)


def test_schema_is_json_alone() -> None:
    assert json.loads(run("schema").stdout)["title"] == "headsearch/space@1"


@pytest.mark.parametrize("command", ["show", "count", "sample", "validate", "schema"])
def test_help_has_an_example(command: str) -> None:
    assert f"headsearch space {command}" in run(command, "--help").stdout


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from headsearch.commands.space import space_app\n"
        "space_app(['count', 'tiny'], standalone_mode=False)\n"
        "print(sorted({'torch', 'timm', 'pandas', 'scipy', 'numpy', 'ray', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
