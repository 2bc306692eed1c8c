"""The conformance suite, for every method that is registered."""

from __future__ import annotations

from pathlib import Path

import pytest

from headsearch.methods import METHODS
from headsearch.testing.methods import check_method


@pytest.mark.parametrize("name", METHODS)
def test_every_method_does_what_methods_must(name: str, tmp_path: Path) -> None:
    check_method(name, tmp_path)
