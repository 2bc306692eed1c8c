"""Files that break while a trial streams them: told with the result, counted in its log, and the end of it where they are too many."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headsearch.data.load import load_data
from headsearch.errors import DataError
from headsearch.heads.config import HeadConfig
from headsearch.testing.tiny import Context, tiny_experiment, training
from headsearch.training import materials
from headsearch.training.evaluator import Evaluator


@pytest.fixture
def streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluator:
    """An evaluator that has looked at 80 images and will stream them."""
    random = np.random.default_rng(0)
    for number in range(80):
        folder = tmp_path / "pics" / ("a", "b")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    monkeypatch.setattr(materials, "load_data", lambda *a, **k: load_data(*a, **k, memory_limit=0))
    data = {"dataset": "folder", "root": str(tmp_path / "pics")}
    evaluate = Evaluator(
        tiny_experiment(tmp_path, data=data, proxy={"epochs": 1, "rungs": [1], "batch_size": 16})
    )
    evaluate.prepare()
    assert not evaluate.inputs.images[0].left_out
    return evaluate


def cut_short(folder: Path, count: int) -> None:
    for file in sorted(folder.rglob("*.png"))[:count]:
        os.truncate(file, 200)


def test_a_trial_says_which_files_broke_under_it(streamed: Evaluator, tmp_path: Path) -> None:
    cut_short(tmp_path / "pics", 5)
    result = streamed(training(tmp_path / "trial", HeadConfig()), Context())
    [line] = result.left_out
    assert line.startswith("5 files left out, cannot be read: a/")
    log = [json.loads(line) for line in (tmp_path / "trial/metrics.jsonl").read_text().splitlines()]
    assert any(record.get("unreadable", 0) > 0 for record in log)
    again = streamed(training(tmp_path / "other", HeadConfig()), Context())
    assert again.left_out == ()


def test_a_trial_ends_where_a_fifth_of_the_files_breaks_under_it(streamed: Evaluator, tmp_path: Path) -> None:
    cut_short(tmp_path / "pics", 40)
    with pytest.raises(DataError, match=r"files of 'folder' in .* cannot be read"):
        streamed(training(tmp_path / "trial", HeadConfig()), Context())
