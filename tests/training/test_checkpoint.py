"""Checkpoints are whole, the newest whole one is read, and reading one runs nothing."""

from __future__ import annotations

import io
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import files_of_at_most

from headsearch.errors import RunError
from headsearch.training.checkpoint import Checkpoints
from headsearch.training.trial import CHECKPOINTS

CPU = torch.device("cpu")


def trials(folder: Path, keep: int = 1) -> Checkpoints:
    return Checkpoints(folder, prefix="checkpoint.", keep=keep)


def load(checkpoints: Checkpoints, notes: list[str] | None = None) -> dict[str, Any] | None:
    return checkpoints.load(CPU, identity="a", note=[].append if notes is None else notes.append)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def replace_content(folder: Path, content: bytes) -> Path:
    """A file of these bytes, with the right checksum, in place of the newest checkpoint."""
    only_file(folder).unlink()
    path = folder / f"checkpoint.{1:09}-{zlib.crc32(content):08x}.pt"
    path.write_bytes(content)
    return path


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    state = {
        "identity": "a",
        "weights": torch.randn(3, 4),
        "rungs": [{"knn": 51.5, "linear": None}],
        "epoch": 3,
    }
    trials(tmp_path).save(12, state)
    loaded = load(trials(tmp_path))
    assert loaded is not None
    assert torch.equal(loaded.pop("weights"), state.pop("weights"))
    assert loaded == state
    assert only_file(tmp_path).match(CHECKPOINTS), "the search removes it when the trial is over"


def test_nothing_saved_is_nothing_to_read(tmp_path: Path) -> None:
    assert load(trials(tmp_path)) is None
    assert load(Checkpoints(tmp_path / "none")) is None


def test_the_newest_are_kept_whatever_else_was_there(tmp_path: Path) -> None:
    checkpoints = trials(tmp_path, keep=2)
    for step in (3, 20, 100):
        checkpoints.save(step, {"identity": "a", "step": step})
    checkpoints.save(100, {"identity": "a", "step": 100, "epoch": 1})
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == [
        "checkpoint.000000020",
        "checkpoint.000000100",
    ]
    loaded = load(checkpoints)
    assert loaded is not None
    assert loaded["epoch"] == 1


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    checkpoints = trials(tmp_path)
    checkpoints.save(1, {"identity": "a", "epoch": 1})
    with files_of_at_most(10_000), pytest.raises(RunError, match="checkpoint cannot be written"):
        checkpoints.save(2, {"identity": "a", "epoch": 2, "weights": torch.randn(100_000)})
    assert load(checkpoints) == {"identity": "a", "epoch": 1}
    assert only_file(tmp_path).name.startswith("checkpoint.000000001-")


def test_an_interrupted_write_is_that_and_leaves_the_old_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = trials(tmp_path)
    checkpoints.save(1, {"identity": "a", "epoch": 1})

    def interrupted(content: memoryview, value: int) -> int:
        raise KeyboardInterrupt

    state = {"identity": "a", "epoch": 2, "weights": torch.randn(100_000)}
    with monkeypatch.context() as patch:
        patch.setattr(zlib, "crc32", interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(2, state)
    assert load(checkpoints) == {"identity": "a", "epoch": 1}


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    trials(tmp_path).save(1, {"identity": "a"})
    (tmp_path / ".checkpoint.000000002-00000000.pt.k1ll3d").write_bytes(b"half")
    (tmp_path / ".other").touch()
    load(trials(tmp_path))
    assert sorted(path.name[:12] for path in tmp_path.iterdir()) == [".other", "checkpoint.0"]


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "directory", "a bit flipped"])
def test_a_damaged_checkpoint_is_told_and_gives_way_or_is_refused_in_one_line(
    tmp_path: Path, damage: str
) -> None:
    checkpoints = trials(tmp_path, keep=2)
    checkpoints.save(1, {"identity": "a", "weights": torch.randn(1000)})
    before = only_file(tmp_path)
    checkpoints.save(2, {"identity": "a", "weights": torch.randn(1000)})
    path = max(tmp_path.iterdir())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "directory":
        path.unlink()
        path.mkdir()
    else:
        damaged = {"truncated": content[:2000], "text": b"weights", "empty": b""}
        path.write_bytes(damaged.get(damage, content))
    notes: list[str] = []
    assert load(checkpoints, notes) is not None
    assert [str(path) in note for note in notes] == [True]
    before.unlink()
    with pytest.raises(RunError, match="no other checkpoint is left; remove it") as error:
        load(checkpoints)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_whatever_torch_makes_of_a_checkpoint_is_one_line(tmp_path: Path) -> None:
    checkpoints = trials(tmp_path)
    checkpoints.save(1, {"identity": "a", "weights": [torch.randn(3)], "n": [1, {"a": 2.5}]})
    whole = only_file(tmp_path).read_bytes()
    errors: list[RunError] = []
    start = whole.index(b"data.pkl")
    for place in range(start, start + 400, 7):
        for value in (0x2E, 0x30, 0x61, 0x68):
            changed = bytearray(whole)
            changed[place] = value
            replace_content(tmp_path, bytes(changed))
            try:
                load(checkpoints)
            except RunError as error:
                errors.append(error)
    assert not any("\n" in str(error) for error in errors)
    assert {IndexError, KeyError} <= {type(error.__cause__) for error in errors}, (
        "the bytes reach what they are to reach"
    )


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    trials(tmp_path).save(1, {"identity": "b"})
    with pytest.raises(RunError, match="belongs to another training"):
        load(trials(tmp_path))
    replace_content(tmp_path, _saved([1, 2]))
    with pytest.raises(RunError, match="belongs to another training"):
        load(trials(tmp_path))


def test_a_trial_of_a_former_version_goes_on(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(_saved({"identity": "a", "epoch": 3}))
    assert load(trials(tmp_path)) == {"identity": "a", "epoch": 3}
    trials(tmp_path).save(5, {"identity": "a", "epoch": 4})
    assert only_file(tmp_path).name.startswith("checkpoint.000000005-")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "attacked"),)

    folder = tmp_path / "trial"
    folder.mkdir()
    (folder / "checkpoint.pt").touch()
    for content in (_saved({"identity": "a", "x": Attack()}), pickle.dumps(Attack())):
        replace_content(folder, content)
        with pytest.raises(RunError, match="not a readable checkpoint"):
            load(trials(folder))
    assert not (tmp_path / "attacked").exists()


def _saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
