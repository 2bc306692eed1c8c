"""Arrays in a NumPy `.npz` file: `images` and `labels`, or `train_images`, `test_images` and so on (MedMNIST's layout).

The size of an array is read from its header before memory is allocated: a small file may unpack to a huge array.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headsearch.data.bands import Bands, array_header, check_values
from headsearch.data.collection import Collection, Request
from headsearch.data.decode import Pixels
from headsearch.data.names import held_out_names, what_is
from headsearch.data.opening import CorruptImage, reason
from headsearch.errors import DataError, LabelsMissing, UserError, printable


def npz(request: Request) -> Collection:
    """Read a `.npz` file.

    Keys: `images` or `train_images`, for RGB uint8 [N, H, W] grey or [N, H, W, C] with C = 1, 3 or 4, for bands as `Bands` says; for the held-out split
    `val_images` or else `test_images`, or the other way round as preferred; with labels the same names with `labels`, integers [N] or
    [N, 1]. An array of more than the request's `memory_limit` bytes is not read but mapped, which a compressed one cannot be.

    Raises:
        DataError: the file is missing or no `.npz`, a key is missing, an array has another type or shape, or is too large.
    """
    path = request.root
    assert path is not None
    shown = printable(str(path))
    if (found := what_is(path)) != "file":
        is_other = f", it is a {found}" if found else ""
        raise DataError(f"data.root: no file '{shown}'{is_other}; dataset 'npz' needs a .npz file")
    try:
        with path.open("rb") as file:
            if file.read(6) == np.lib.format.MAGIC_PREFIX:
                raise DataError(f"data.root: '{shown}' is not a .npz file but a single array")
        with zipfile.ZipFile(path) as archive:
            return _read(_Arrays(path, archive, request.memory_limit), shown, request)
    except UserError:
        raise
    except Exception as error:
        # A damaged file fails anywhere in zipfile and NumPy.
        raise DataError(f"data.root: cannot read '{shown}' as .npz: {reason(error)}") from error


class _Arrays:
    """The arrays of an open archive, by name."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, memory_limit: int) -> None:
        self.path = path
        self.archive = archive
        self.left = memory_limit
        """How many bytes may still be read."""
        self.members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

    def __contains__(self, key: str) -> bool:
        return key in self.members

    def names(self) -> str:
        """For messages."""
        return printable(", ".join(sorted(self.members))[:200]) or "nothing"

    def header(self, key: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
        """Shape, whether it is in Fortran's order, type, and where the data begins. Raises `ValueError` where they do not agree."""
        info = self.members[key]
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"'{key}' is compressed in a way that NumPy does not write")
        with self.archive.open(info) as member:
            return array_header(member, info.file_size, f"'{key}'")

    def read(self, key: str) -> NDArray[Any]:
        """The array; mapped if it is larger than what may still be read."""
        info = self.members[key]
        shape, fortran, dtype, offset = self.header(key)
        if info.file_size <= self.left:
            self.left -= info.file_size
            with self.archive.open(info) as member:
                array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
            return array
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise DataError(
                f"{printable(str(self.path))}: '{key}' unpacks to {info.file_size / 2**30:.1f} GiB, more than there is room for "
                f"({self.left / 2**30:.1f} GiB); write it uncompressed (numpy.savez), or as a folder of images"
            )
        with self.path.open("rb") as file:
            # The local header: 30 bytes, the last four of which are the lengths of the name and of what follows it.
            file.seek(info.header_offset + 26)
            lengths = file.read(4)
        offset += (
            info.header_offset
            + 30
            + int.from_bytes(lengths[:2], "little")
            + int.from_bytes(lengths[2:], "little")
        )
        return np.memmap(self.path, dtype, "r", offset, shape, "F" if fortran else "C")


def _read(arrays: _Arrays, shown: str, request: Request) -> Collection:
    prefix = "train_" if "train_images" in arrays else ""
    held_out = next((name for name in held_out_names(request.prefer) if f"{name}_images" in arrays), None)
    keys = [f"{prefix}images", *([] if held_out is None else [f"{held_out}_images"])]
    layout = f"training on '{keys[0]}'" + ("" if held_out is None else f", held out '{keys[1]}'")
    # Labels first: they are small, and what is wrong with them is said before images are unpacked.
    counts = [_check_images(arrays, key, shown, request.pixels) for key in keys]
    labels: list[list[int] | None] = [None] * len(keys)
    classes: list[str] | None = None
    if request.labels:
        names = [key.replace("images", "labels") for key in keys]
        values = [_labels(arrays, *named, shown) for named in zip(names, counts, strict=True)]
        known = np.unique(values[0])
        unknown = np.setdiff1d(values[-1], known)
        if len(unknown):
            raise DataError(f"{shown}: label {unknown[0]} of {names[-1]} does not occur in {names[0]}")
        classes = [str(value) for value in known]
        labels = [np.searchsorted(known, each).tolist() for each in values]
    parts = [request.part(arrays.read(key), numbers, key) for key, numbers in zip(keys, labels, strict=True)]
    return Collection(parts[0], parts[1] if len(parts) > 1 else None, classes, layout)


def _check_images(arrays: _Arrays, key: str, shown: str, pixels: Pixels) -> int:
    """How many images an array holds, from its header."""
    if key not in arrays:
        raise DataError(f"{shown}: no 'images' or 'train_images', only {arrays.names()}")
    shape, _, dtype, _ = arrays.header(key)
    if isinstance(pixels, Bands):
        try:
            check_values(dtype)
            pixels.layout(shape[1:])
        except CorruptImage as error:
            raise DataError(f"{shown}: an image of '{key}' has {error}") from None
        return shape[0]
    bands = "; with data.channels set to a number of bands, images are read as they are"
    if dtype != np.uint8:
        raise DataError(f"{shown}: '{key}' is {dtype}; expected uint8, 0 to 255{bands}")
    if not (len(shape) == 3 or (len(shape) == 4 and shape[-1] in (1, 3, 4))) or 0 in shape:
        first = len(shape) == 4 and shape[1] in (1, 3, 4)
        tail = "; channels come last" if first else bands
        raise DataError(
            f"{shown}: '{key}' has shape {shape}; expected [N, H, W] or [N, H, W, 1, 3 or 4]{tail}"
        )
    return shape[0]


def _labels(arrays: _Arrays, key: str, count: int, shown: str) -> NDArray[np.integer[Any]]:
    if key not in arrays:
        raise LabelsMissing(
            f"{shown}: no '{key}' for data.labels 'probe', only {arrays.names()}", "or set labels to none"
        )
    shape, _, dtype, _ = arrays.header(key)
    if not (len(shape) == 1 or shape[1:] == (1,)) or not np.issubdtype(dtype, np.integer):
        raise DataError(f"{shown}: '{key}' is {dtype} of shape {shape}; expected integers [N]")
    if shape[0] != count:
        raise DataError(f"{shown}: '{key}' has {shape[0]} entries for {count} images")
    return arrays.read(key).reshape(-1)
