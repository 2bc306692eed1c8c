"""Checkpoints are whole, and reading one runs nothing."""

from __future__ import annotations

import os
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from headsearch.errors import RunError
from headsearch.training.checkpoint import load_checkpoint, save_checkpoint

CPU = torch.device("cpu")


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that is full after `size` bytes, as far as this process can tell."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    state = {"weights": torch.randn(3, 4), "rungs": [{"knn": 51.5, "linear": None}], "epoch": 3}
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    loaded = load_checkpoint(tmp_path / "checkpoint.pt", CPU)
    assert torch.equal(loaded.pop("weights"), state.pop("weights"))
    assert loaded == state
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"epoch": 1})
    with files_of_at_most(10_000), pytest.raises(RunError, match="checkpoint cannot be written"):
        save_checkpoint(path, {"epoch": 2, "weights": torch.randn(100_000)})
    assert load_checkpoint(path, CPU) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "directory"])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"weights": torch.randn(1000)})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "directory":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(b"" if damage == "empty" else b"weights")
    with pytest.raises(RunError, match="not a readable checkpoint") as error:
        load_checkpoint(path, CPU)
    assert "\n" not in str(error.value)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "attacked"),)

    path = tmp_path / "checkpoint.pt"
    for saved in (
        lambda: torch.save({"x": Attack()}, path),
        lambda: path.write_bytes(pickle.dumps(Attack())),
    ):
        saved()
        with pytest.raises(RunError):
            load_checkpoint(path, CPU)
    assert not (tmp_path / "attacked").exists()
