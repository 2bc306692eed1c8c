"""headsearch's own conformance suites: a plug-in is done when they pass."""

from pathlib import Path

import pytest

from headsearch.experiment.guests import EXECUTORS
from headsearch.plugins import load_plugins
from headsearch.testing.callbacks import check_callback
from headsearch.testing.executors import check_executor
from headsearch.testing.heads import check_family
from headsearch.testing.measures import check_measure
from headsearch.testing.methods import check_method
from headsearch.testing.sources import check_source

FILES = ("gated_heads.py", "rings_data.py", "polite_executor.py", "diary_callback.py")


@pytest.fixture(autouse=True)
def loaded() -> None:
    load_plugins([str(Path(__file__).with_name(file)) for file in FILES])


def test_the_family() -> None:
    check_family("gated")


def test_the_method(tmp_path: Path) -> None:
    check_method("cosine", tmp_path)


def test_the_measure() -> None:
    check_measure("distances")


def test_the_data_source() -> None:
    check_source("rings", image_size=32)


def test_the_executor(tmp_path: Path) -> None:
    entry = EXECUTORS["polite"]
    options = entry.options(load=1e9)
    check_executor(lambda run, max_retries: entry.open(options, run, "cpu"), tmp_path, workers=1, apart=False)


def test_the_callback(tmp_path: Path) -> None:
    run = check_callback("diary", tmp_path, {"file": "log.txt"})
    lines = (run / "log.txt").read_text(encoding="utf-8").splitlines()
    numbers = [int(line.split()[0]) for line in lines]
    assert sorted(numbers) == list(range(len(numbers))), "a trial has no line, or two"
    assert "failed" in {line.split()[2] for line in lines}
