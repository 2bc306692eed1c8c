"""NumPy files: layouts and what is wrong with others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headsearch.data.npz import npz
from headsearch.errors import DataError


def images(count: int = 4, shape: tuple[int, ...] = (5, 6, 3), kind: Any = np.uint8) -> Any:
    return np.arange(count * int(np.prod(shape))).reshape(count, *shape).astype(kind)


def saved(tmp_path: Path, **arrays: Any) -> Path:
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


@pytest.mark.parametrize("prefix", ["", "train_"])
@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3), (5, 6, 4)])
def test_images_and_labels(tmp_path: Path, prefix: str, shape: tuple[int, ...]) -> None:
    labels = np.array([[7], [3], [7], [9]])
    path = saved(tmp_path, **{f"{prefix}images": images(shape=shape), f"{prefix}labels": labels})
    found = npz(path, with_labels=True)
    assert found.classes == ["3", "7", "9"]
    assert found.train.labels == [1, 0, 1, 2]
    assert found.held_out is None
    assert found.train.source.size(0) == (6, 5)
    assert found.train.source.read(3, 5).shape == (5, 5, 3)


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    square = images(shape=(6, 6, 3))
    found = npz(saved(tmp_path, images=square), with_labels=False)
    np.testing.assert_array_equal(found.train.source.read(2, 6), square[2])


def test_splits(tmp_path: Path) -> None:
    arrays = {
        "train_images": images(),
        "test_images": images(2),
        "train_labels": [0, 1, 1, 0],
        "test_labels": [1, 1],
    }
    found = npz(saved(tmp_path, **arrays), with_labels=True)
    assert found.held_out is not None
    assert found.held_out.labels == [1, 1]
    found = npz(saved(tmp_path, **arrays, val_images=images(3), val_labels=[0, 0, 0]), with_labels=True)
    assert found.held_out is not None
    assert found.held_out.labels == [0, 0, 0]


def test_without_labels_none_is_read(tmp_path: Path) -> None:
    unreadable = np.array([object()] * 4)
    found = npz(saved(tmp_path, images=images(), labels=unreadable), with_labels=False)
    assert found.train.labels is None
    assert found.classes is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": images()}, "no 'images' or 'train_images', only pictures"),
        ({"images": images(kind=np.float32), "labels": [0, 1, 0, 1]}, "'images' is float32; expected uint8"),
        ({"images": images(shape=(3, 5, 6)), "labels": [0, 1, 0, 1]}, "channels come last"),
        ({"images": images(shape=(5,)), "labels": [0, 1, 0, 1]}, r"shape \(4, 5\); expected \[N, H, W\]"),
        ({"images": images()}, "no 'labels' for data.labels 'probe', only images"),
        ({"images": images(), "labels": [0, 1, 0]}, "'labels' has 3 entries for 4 images"),
        ({"images": images(), "labels": [0.5, 1, 0, 1]}, "'labels' is float64 .* expected integers"),
        ({"images": images(), "labels": np.eye(4, dtype=int)}, r"shape \(4, 4\); expected integers"),
        (
            {
                "train_images": images(),
                "train_labels": [0, 1, 0, 1],
                "test_images": images(1),
                "test_labels": [5],
            },
            "label 5 of test_labels does not occur in train_labels",
        ),
        ({"images": images(), "labels": np.array([object()] * 4)}, "cannot read .*pickle"),
    ],
)
def test_unusable_files_get_one_line(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        npz(saved(tmp_path, **arrays), with_labels=True)
    assert "\n" not in str(error.value)
    assert "data.npz" in str(error.value)


def test_files_that_are_no_npz_get_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "single.npy", images())
    whole = saved(tmp_path, images=images()).read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    for name, message in [
        ("gone.npz", "no file"),
        ("text.npz", "cannot read"),
        ("single.npy", "a single array"),
        ("half.npz", "cannot read"),
        ("empty.npz", "cannot read"),
    ]:
        with pytest.raises(DataError, match=message):
            npz(tmp_path / name, with_labels=False)
