"""`evaluate` and `compare` as people meet them: as processes, with their exit codes and two streams."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forked import headsearch

BASE = [
    "--base=vit_tiny_patch16_224",
    '--base-kwargs={"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}',
]
DIGITS = [*BASE, "--data=digits"]


def test_an_evaluation_as_json_is_json_alone_and_is_written_too(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    result = headsearch(
        "evaluate", "random", *DIGITS, "--probes=knn,detection", "--format=json", "--out", file
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert [row["probe"] for row in found["rows"]] == ["20-NN"]
    assert json.loads(file.read_text()) == found
    understood, *told = result.stderr.splitlines()
    assert understood.startswith("data: digits: 1,280 images to train on")
    assert told == ["random: knn done", "random: detection done"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate", "random", *DIGITS, "--probes=lineer"], "did you mean 'linear'"),
        (["evaluate", "random", *DIGITS, "--set=knn.neighbors=[3]"], "did you mean 'neighbours'"),
        (["evaluate", "random", *BASE[:1], "--base-kwargs={", "--data=digits"], "not valid JSON"),
        (["evaluate", "gone.safetensors", *DIGITS], "gone.safetensors"),
        (["evaluate", "random", *DIGITS, "--out=no/such/folder/x.json"], "no folder"),
        (["compare", "gone.yaml", "--out=x"], "gone.yaml"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], expected: str) -> None:
    result = headsearch(*arguments)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("headsearch: ")
    assert expected in result.stderr
    assert result.stdout == ""
