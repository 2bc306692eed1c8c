"""NumPy files: layouts and what is wrong with others."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headsearch.data import npz as source
from headsearch.data.collection import Collection, Request
from headsearch.errors import DataError


def npz(path: Path, with_labels: bool, **request: Any) -> Collection:
    return source.npz(Request(str(path), with_labels, **request))


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


def member(shape: tuple[int, ...], kind: str = "|u1", *, version: tuple[int, int] = (1, 0)) -> bytes:
    """An array's header without its data."""
    file = io.BytesIO()
    write = (
        np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    )
    write(file, {"descr": kind, "fortran_order": False, "shape": shape})  # type: ignore[no-untyped-call]
    return file.getvalue()


def zipped(tmp_path: Path, method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(tmp_path / "data.npz", "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return tmp_path / "data.npz"


def test_big_endian_and_fortran_arrays_are_read(tmp_path: Path) -> None:
    square = images(shape=(6, 6, 3))
    path = saved(tmp_path, images=np.asfortranarray(square), labels=np.array([5, 6, 5, 6], dtype=">i8"))
    found = npz(path, with_labels=True)
    np.testing.assert_array_equal(found.train.source.read(2, 6), square[2])
    assert (found.train.labels, found.classes) == ([0, 1, 0, 1], ["5", "6"])


@pytest.mark.parametrize("fortran", [False, True])
def test_an_uncompressed_array_larger_than_the_limit_is_mapped(tmp_path: Path, fortran: bool) -> None:
    square = images(count=30, shape=(6, 6, 3))
    arrays = {"labels": np.arange(30) % 2, "images": np.asfortranarray(square) if fortran else square}
    found = npz(saved(tmp_path, **arrays), with_labels=True, memory_limit=1000)
    assert isinstance(found.train.source.items, np.memmap)  # type: ignore[attr-defined]
    for row in (0, 7, 29):
        np.testing.assert_array_equal(found.train.source.read(row, 6), square[row])


def test_a_compressed_array_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "data.npz", images=images(count=30))
    with pytest.raises(DataError, match=r"'images' unpacks to .* write it uncompressed"):
        npz(tmp_path / "data.npz", with_labels=False, memory_limit=1000)


def test_bombs_take_neither_memory_nor_time(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "big.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("images.npy", "w", force_zip64=True) as file,
    ):
        file.write(member((30_000, 100, 100)))
        for _ in range(30):
            file.write(bytes(10**7))
    zipped(tmp_path, images=member((2**20, 2**15, 2**15))).rename(tmp_path / "petabyte.npz")
    header = b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 10**8
    zipped(tmp_path, images=header).rename(tmp_path / "header.npz")
    code = f"""
from pathlib import Path
from headsearch.data.collection import Request
from headsearch.data.npz import npz
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
for name in ("big", "petabyte", "header"):
    try: npz(Request(f"{tmp_path}/{{name}}.npz", labels=False, memory_limit=2**27))
    except Exception as error: print(type(error).__name__, error)
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300
    )
    *errors, kilobytes = done.stdout.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("DataError ") for line in errors)
    assert int(kilobytes) < 20_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (member((4, 5, 6)), "declares shape"),
        (member((4, 5, 6)) + bytes(119), "declares shape"),
        (member((4, 5, -6)) + bytes(120), "declares shape"),
        (member((4, 5, 6), "|O") + bytes(120), "Python objects"),
        (member((4, 5, 6))[:20], "cannot read"),
        (b"no array", "cannot read"),
        (b"\x93NUMPY\x09\x00" + bytes(200), "format version"),
        (member((0, 5, 6)), r"shape \(0, 5, 6\)"),
        (member((), "|u1") + b"1", r"shape \(\)"),
    ],
)
def test_arrays_that_are_not_what_they_say_get_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        npz(zipped(tmp_path, images=data), with_labels=False)
    assert "\n" not in str(error.value)


def test_archives_that_numpy_does_not_write_get_one_line(tmp_path: Path) -> None:
    whole = member((4, 5, 6)) + bytes(120)
    path = zipped(tmp_path, zipfile.ZIP_BZIP2, images=whole)
    with pytest.raises(DataError, match="compressed in a way"):
        npz(path, with_labels=False)
    encrypted = bytearray(zipped(tmp_path, zipfile.ZIP_STORED, images=whole).read_bytes())
    encrypted[encrypted.index(b"PK\x03\x04") + 6] |= 1
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(encrypted)
    with pytest.raises(DataError, match="password"):
        npz(path, with_labels=False)
    spoilt = bytearray(zipped(tmp_path, zipfile.ZIP_STORED, images=whole).read_bytes())
    spoilt[spoilt.index(whole) + 150] ^= 1
    path.write_bytes(spoilt)
    with pytest.raises(DataError, match="CRC"):
        npz(path, with_labels=False)


@pytest.mark.parametrize(
    "labels", [[0.0, 1, 0, 1], [True, False, True, False], ["a", "b", "a", "b"], [np.nan] * 4]
)
def test_labels_that_are_no_integers_get_one_line(tmp_path: Path, labels: Any) -> None:
    with pytest.raises(DataError, match="expected integers"):
        npz(saved(tmp_path, images=images(), labels=labels), with_labels=True)


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    (tmp_path / "me.npz").symlink_to("me.npz")
    (tmp_path / "folder.npz").mkdir()
    for name, message in [
        ("pipe", "a device"),
        ("zero", "a device"),
        ("me", "no file"),
        ("folder", "a folder"),
    ]:
        with pytest.raises(DataError, match=message):
            npz(tmp_path / f"{name}.npz", with_labels=False)
