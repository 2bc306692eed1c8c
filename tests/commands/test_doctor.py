"""What the doctor says of a machine."""

import importlib.util
import sys
from pathlib import Path

import pytest

from headsearch.commands import doctor


def test_packages_that_every_process_compiles_anew_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "packages" / "torch" / "__init__.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    spec = importlib.util.spec_from_file_location("torch", module)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert doctor._bytecode(spec) == []
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (told,) = doctor._bytecode(spec)
    assert told.level == "slow"
    assert told.text.endswith(f"-m compileall -q {tmp_path / 'packages'}")
    assert spec is not None
    assert spec.cached is not None
    compiled = Path(spec.cached)
    compiled.parent.mkdir()
    compiled.write_text("")
    assert doctor._bytecode(spec) == []
    assert doctor._bytecode(None) == [], "it is told elsewhere that it is missing"
