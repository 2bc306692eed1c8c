"""Arrays in a NumPy `.npz` file: `images` and `labels`, or `train_images`, `test_images` and so on (MedMNIST's layout)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headsearch.data.collection import Collection, Part
from headsearch.data.names import held_out_names
from headsearch.data.sources import ArraySource
from headsearch.errors import DataError, LabelsMissing


def npz(path: Path, with_labels: bool, prefer: Literal["val", "test"] = "val") -> Collection:
    """Read a `.npz` file.

    Keys: `images` or `train_images`, uint8 [N, H, W] grey or [N, H, W, C] with C = 1, 3 or 4; for the held-out split
    `val_images` or else `test_images`, or the other way round as preferred; with labels the same names with `labels`, integers [N] or [N, 1].

    Raises:
        DataError: the file is missing or no `.npz`, a key is missing, an array has another type or shape.
    """
    if not path.is_file():
        raise DataError(f"data.root: no file '{path}'; dataset 'npz' needs a .npz file")
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.lib.npyio.NpzFile):
            with file:
                return _read(file, path, with_labels, prefer)
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"data.root: cannot read '{path}' as .npz: {reason}") from error
    raise DataError(f"data.root: '{path}' is not a .npz file but a single array")


def _read(
    file: Mapping[str, Any], path: Path, with_labels: bool, prefer: Literal["val", "test"]
) -> Collection:
    prefix = "train_" if "train_images" in file else ""
    held_out = next((name for name in held_out_names(prefer) if f"{name}_images" in file), None)
    images = _images(file, f"{prefix}images", path)
    test_images = None if held_out is None else _images(file, f"{held_out}_images", path)
    train_labels: list[int] | None = None
    test_labels: list[int] | None = None
    classes: list[str] | None = None
    if with_labels:
        values = _labels(file, f"{prefix}labels", len(images), path)
        known = np.unique(values)
        classes = [str(value) for value in known]
        train_labels = np.searchsorted(known, values).tolist()
        if test_images is not None:
            test_values = _labels(file, f"{held_out}_labels", len(test_images), path)
            unknown = np.setdiff1d(test_values, known)
            if len(unknown):
                raise DataError(
                    f"{path}: label {unknown[0]} of {held_out}_labels does not occur in {prefix}labels"
                )
            test_labels = np.searchsorted(known, test_values).tolist()
    train = Part(ArraySource(images, f"{prefix}images"), train_labels)
    if test_images is None:
        return Collection(train, None, classes)
    return Collection(train, Part(ArraySource(test_images, f"{held_out}_images"), test_labels), classes)


def _images(file: Mapping[str, Any], key: str, path: Path) -> NDArray[np.uint8]:
    array = _array(file, key, path)
    if array.dtype != np.uint8:
        raise DataError(f"{path}: '{key}' is {array.dtype}; expected uint8, 0 to 255")
    if not (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] in (1, 3, 4))) or 0 in array.shape:
        first = array.ndim == 4 and array.shape[1] in (1, 3, 4)
        tail = "; channels come last" if first else ""
        raise DataError(
            f"{path}: '{key}' has shape {array.shape}; expected [N, H, W] or [N, H, W, 1, 3 or 4]{tail}"
        )
    return array


def _labels(file: Mapping[str, Any], key: str, count: int, path: Path) -> NDArray[np.integer[Any]]:
    if key not in file:
        raise LabelsMissing(
            f"{path}: no '{key}' for data.labels 'probe', only {', '.join(sorted(file))}",
            "or set labels to none",
        )
    array = _array(file, key, path)
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.ndim != 1 or not np.issubdtype(flat.dtype, np.integer):
        raise DataError(f"{path}: '{key}' is {array.dtype} of shape {array.shape}; expected integers [N]")
    if len(flat) != count:
        raise DataError(f"{path}: '{key}' has {len(flat)} entries for {count} images")
    return flat


def _array(file: Mapping[str, Any], key: str, path: Path) -> NDArray[Any]:
    if key not in file:
        raise DataError(f"{path}: no 'images' or 'train_images', only {', '.join(sorted(file)) or 'nothing'}")
    array: NDArray[Any] = file[key]
    return array
