"""headsearch's own conformance suites: a plug-in is done when they pass."""

from pathlib import Path

import pytest

from headsearch.plugins import load_plugins
from headsearch.testing.heads import check_family
from headsearch.testing.measures import check_measure
from headsearch.testing.methods import check_method


@pytest.fixture(autouse=True)
def loaded() -> None:
    load_plugins([str(Path(__file__).with_name("gated_heads.py"))])


def test_the_family() -> None:
    check_family("gated")


def test_the_method(tmp_path: Path) -> None:
    check_method("cosine", tmp_path)


def test_the_measure() -> None:
    check_measure("distances")
