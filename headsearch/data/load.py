"""`load_data`'s work: find the data set, split it, decode it or set up its streaming, and measure its pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from headsearch.data.collection import Collection, Part, cut
from headsearch.data.decode import choose_canvas, decode_all
from headsearch.data.names import check_dataset_name
from headsearch.data.sets import Dataset, ImageSet, MemoryImages, StreamedImages
from headsearch.errors import DataError, LabelsMissing

_MEASURED_IN_MEMORY = 10_000
_MEASURED_FROM_FILES = 1_024
"""Training images whose pixels give the mean and standard deviation, spread over the set."""

Triple = tuple[float, float, float]


def load(
    dataset: str,
    *,
    root: str | None,
    image_size: int,
    labels: Literal["probe", "none"],
    seed: int,
    prefer: Literal["val", "test"],
    min_train_images: int,
    memory_limit: int,
    progress: Callable[[int, int], None] | None,
) -> Dataset:
    """See `headsearch.data.load_data`."""
    check_dataset_name(dataset)
    found = _collect(dataset, root, labels == "probe", prefer, image_size, memory_limit)
    canvas = choose_canvas(found.train.source, image_size)
    parts = _split(found, seed)
    total = sum(len(rows) for _, rows in parts)
    skipped = list(found.skipped)
    sets: list[ImageSet]
    if total * 3 * canvas * canvas <= memory_limit:
        sets = _decode(parts, canvas, skipped, progress)
    else:
        sets = [
            StreamedImages(part.source, rows, canvas, _chosen(part, rows), skipped) for part, rows in parts
        ]
    train, held_out = sets
    _check(dataset, root, train, held_out, skipped, min_train_images)
    mean, std = _statistics(train, canvas)
    return Dataset(dataset, train, held_out, found.classes, mean, std, canvas, skipped)


def _collect(
    dataset: str,
    root: str | None,
    with_labels: bool,
    prefer: Literal["val", "test"],
    image_size: int,
    memory_limit: int,
) -> Collection:
    if dataset == "digits":
        from headsearch.data.digits import digits

        return digits(with_labels)
    if dataset in ("folder", "npz"):
        if root is None:
            raise DataError(
                f"data.root: dataset '{dataset}' needs the path of its {'file' if dataset == 'npz' else 'folder'}"
            )
        path = Path(root).expanduser()
        if dataset == "npz":
            from headsearch.data.npz import npz

            return npz(path, with_labels, prefer)
        from headsearch.data.folder import folder

        return folder(path, with_labels, prefer)
    from headsearch.data.timm_names import timm_collection

    return timm_collection(dataset, root, with_labels, prefer, image_size, memory_limit)


def _split(found: Collection, seed: int) -> list[tuple[Part, list[int]]]:
    """The training part and the held-out part, each with the rows of its source that belong to it."""
    train = found.train
    if found.held_out is not None:
        return [(part, list(range(len(part.source)))) for part in (train, found.held_out)]
    train_rows, held_out_rows = cut(train.source, seed)
    return [(train, train_rows), (train, held_out_rows)]


def _decode(
    parts: list[tuple[Part, list[int]]],
    canvas: int,
    skipped: list[str],
    progress: Callable[[int, int], None] | None,
) -> list[ImageSet]:
    total = sum(len(rows) for _, rows in parts)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    sets: list[ImageSet] = []
    for part, rows in parts:
        images, kept, failures = decode_all(part.source, rows, canvas, advance)
        skipped.extend(failures)
        sets.append(MemoryImages(images, _chosen(part, kept)))
    return sets


def _chosen(part: Part, rows: list[int]) -> Tensor | None:
    return None if part.labels is None else torch.tensor([part.labels[row] for row in rows], dtype=torch.long)


def _check(
    dataset: str,
    root: str | None,
    train: ImageSet,
    held_out: ImageSet,
    skipped: list[str],
    min_train_images: int,
) -> None:
    place = f"'{dataset}'" if root is None else f"'{dataset}' in '{root}'"
    broken = f" ({len(skipped)} files left out, the first: {skipped[0]})" if skipped else ""
    if len(train) < min_train_images:
        raise DataError(
            f"data: {place} has {len(train)} images to train on, fewer than the {min_train_images} needed{broken}"
        )
    if len(held_out) == 0:
        raise DataError(f"data: {place} has no held-out images; scores need some{broken}")
    if train.labels is not None and len(set(train.labels.tolist())) < 2:
        raise LabelsMissing(
            f"data.labels: {place} has one class only",
            "a probe needs two or more, or set data.labels to none",
        )


def _statistics(train: ImageSet, canvas: int) -> tuple[Triple, Triple]:
    """Mean and standard deviation of each channel, 0 to 1, from exact counts of pixel values."""
    if isinstance(train, MemoryImages):
        step = max(1, -(-len(train) // _MEASURED_IN_MEMORY))
        return pixel_statistics(train.images[::step])
    assert isinstance(train, StreamedImages)
    spread = np.linspace(0, len(train) - 1, num=min(_MEASURED_FROM_FILES, len(train))).astype(int)
    images, _, failures = decode_all(train.source, [train.rows[row] for row in spread], canvas)
    if not len(images):
        raise DataError(f"data: none of {len(spread)} images can be read; the first: {failures[0]}")
    return pixel_statistics(images)


def pixel_statistics(images_BCHW: Tensor) -> tuple[Triple, Triple]:
    """Mean and standard deviation of each channel of uint8 images [B, 3, H, W], on a scale of 0 to 1.

    The deviation is at least one grey level, so that images of one colour can be normalised.
    """
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for start in range(0, len(images_BCHW), 256):
        for channel in range(3):
            values = images_BCHW[start : start + 256, channel].flatten()
            counts[channel] += torch.bincount(values, minlength=256)
    value = torch.arange(256, dtype=torch.float64) / 255
    share = counts.double() / counts.sum(dim=1, keepdim=True)
    mean = share @ value
    std = (share @ value.square() - mean.square()).clamp_min(0).sqrt().clamp_min(1 / 255)
    red, green, blue = mean.tolist()
    red_std, green_std, blue_std = std.tolist()
    return (red, green, blue), (red_std, green_std, blue_std)
