"""Benchmarks are scripts beside the package: here they are imported by name."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session", autouse=True)
def _scripts_are_found() -> Iterator[None]:
    sys.path.insert(0, str(SCRIPTS))
    importlib.invalidate_caches()
    yield
    sys.path.remove(str(SCRIPTS))
