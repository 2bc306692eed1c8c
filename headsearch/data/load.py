"""`load_data`: find a data set, split it, decode it or set up streaming, and measure its pixels."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from headsearch.data.bands import Bands
from headsearch.data.cache import Cached, Versioned, cache_folder
from headsearch.data.collection import MEMORY_LIMIT, Collection, Part, Request, by_hash, cut
from headsearch.data.decode import RGB, Pixels, choose_canvas, decode_all
from headsearch.data.left_out import LeftOut
from headsearch.data.names import SOURCES, Channels, check_dataset_name, check_root
from headsearch.data.opening import reason
from headsearch.data.sets import Dataset, ImageSet, MemoryImages, StreamedImages
from headsearch.errors import DataError, LabelsMissing, UserError, printable

_MEASURED_IN_MEMORY = 10_000
_MEASURED_FROM_FILES = 1_024
"""Training images whose pixels give the mean and standard deviation, spread over the set."""

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel: of RGB on a scale of 0 to 1, of bands as they are."""


def load_data(
    dataset: str,
    *,
    root: str | None,
    image_size: int,
    channels: Channels = "rgb",
    labels: Literal["probe", "none"],
    seed: int,
    prefer: Literal["val", "test"] = "val",
    min_train_images: int = 2,
    memory_limit: int = MEMORY_LIMIT,
    unreadable: Literal["refuse", "accept"] = "refuse",
    subset: int | float | None = None,
    cache: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read a data set: training images, held-out images that training never sees, and labels if they may be used.

    Args:
        dataset: `digits`, `folder`, `npz`, `webdataset`, or one of timm's names (`torch/cifar10`, `hfds/...`, `wds/...`).
        root: folder or file of the images; None where the data set needs none.
        image_size: side of the model's square input, in pixels.
        channels: `rgb`, or the number of bands, which are read as they are.
        labels: `none` reads no label at all: class folders are then just folders.
        seed: of the cut that holds images out where there is no test split. The cut depends on the seed and the images'
            names alone, never on labels, so `probe` and `none` hold out the same images.
        prefer: which split is held out where there are both: a search uses `val` and leaves `test` to a final evaluation.
        min_train_images: fewer readable training images than this are an error.
        memory_limit: in bytes; larger sets are streamed.
        unreadable: `refuse` raises where a fifth of the files or more cannot be read; otherwise they are left out, and told.
        subset: train on so many of the training images (int) or on such a share of them (float), drawn by the seed and the images' names; if
            labels are read, classes are as balanced as possible.
        cache: a folder in which decoded images are kept, or `auto` for one in the user's own cache; images are the same with and without it.
        progress: called with (images decoded, images in all) now and then.

    Raises:
        DataError: too many files cannot be read; also when there is nothing usable at `root`, or labels are asked for that do not exist.
    """
    check_dataset_name(dataset)
    pixels = pixels_of(channels)
    request = Request(
        address=root,
        labels=labels == "probe",
        prefer=prefer,
        image_size=image_size,
        memory_limit=memory_limit,
        pixels=pixels,
        cache=None if cache is None else cache_folder(cache),
    )
    found = _collect(dataset, request)
    left_out = found.left_out
    left_out.rule = unreadable
    left_out.place = f"'{dataset}'" if root is None else f"'{dataset}' in '{printable(root)}'"
    parts = _split(found, seed)
    types = sorted({str(part.source.dtype) for part, _ in parts})
    if len(types) > 1:
        raise DataError(
            f"data: {left_out.place}: training and held-out images have values of different types, {' and '.join(types)}"
        )
    layout = found.layout
    if subset is not None:
        part, rows = parts[0]
        chosen = _some_of(part, rows, subset, seed, min_train_images, left_out.place)
        parts[0] = (part, chosen)
        layout = "; ".join(filter(None, (layout, f"a subset of {len(rows):,} training images")))
    total = sum(len(rows) for _, rows in parts)
    left_out.files = total + len(left_out.unreadable)
    left_out.check()
    canvas = choose_canvas(found.train.source, image_size)
    parts, cached = (parts, "") if cache is None else _through_cache(parts, canvas, cache)
    sets: list[ImageSet]
    source = found.train.source
    if total * source.channels * source.dtype.itemsize * canvas * canvas <= memory_limit:
        sets = _decode(parts, canvas, left_out, progress)
        left_out.check()
    else:
        sets = [
            StreamedImages(part.source, rows, canvas, _chosen(part, rows), left_out) for part, rows in parts
        ]
    train, held_out = sets
    _check(train, held_out, left_out, min_train_images)
    mean, std = _statistics(train, canvas, left_out, channels)
    for part, _ in parts:
        if isinstance(part.source, Cached) and part.source.trouble:
            left_out.troubles.setdefault(part.source.trouble, False)
    return Dataset(
        dataset, train, held_out, found.classes, mean, std, canvas, left_out, layout, cached, channels
    )


def pixels_of(channels: Channels) -> Pixels:
    """What reads images as such."""
    return RGB if channels == "rgb" else Bands(channels)


def check_probe(dataset: Dataset) -> None:
    """Raise `LabelsMissing` if the training images allow no linear probe: its penalty is chosen on a part of them."""
    labels = dataset.train.labels
    if labels is not None and int(torch.bincount(labels).max()) < 2:
        raise LabelsMissing(
            f"data.labels: a linear probe needs a class with two images to train on; {dataset.left_out.place} has "
            f"{len(dataset.train):,} classes with one image each",
            "set data.labels to none",
        )


def _collect(dataset: str, request: Request) -> Collection:
    if dataset not in SOURCES:
        from headsearch.data.timm_names import timm_collection

        return timm_collection(dataset, request)
    check_root(dataset, request.address)
    return _of_a_guest(dataset, request) if dataset in SOURCES.guests else SOURCES[dataset].open(request)


def _of_a_guest(dataset: str, request: Request) -> Collection:
    """What a plug-in's source gives, checked; without labels if they may not be read."""
    try:
        found: object = SOURCES[dataset].open(request)
    except UserError:
        raise
    except Exception as error:
        raise DataError(
            f"data.dataset: '{dataset}' raises {type(error).__name__}: {reason(error)}"
        ) from error
    if not isinstance(found, Collection):
        raise DataError(f"data.dataset: '{dataset}' gives {type(found).__name__}; expected a Collection")
    parts = [part for part in (found.train, found.held_out) if part is not None]
    if not request.labels:
        train, *held_out = (Part(part.source, None) for part in parts)
        return replace(found, train=train, held_out=held_out[0] if held_out else None, classes=None)
    for part in parts:
        if part.labels is None or found.classes is None:
            raise LabelsMissing(
                f"data.labels: '{dataset}' gives no labels and classes", "set data.labels to none"
            )
        if len(part.labels) != len(part.source):
            raise DataError(
                f"data.dataset: '{dataset}' gives {len(part.labels):,} labels for {len(part.source):,} images"
            )
        wrong = next((label for label in part.labels if not 0 <= label < len(found.classes)), None)
        if wrong is not None:
            raise DataError(
                f"data.dataset: '{dataset}' gives the label {wrong}; expected 0 to {len(found.classes) - 1}, a number for each of its classes"
            )
    return found


def _split(found: Collection, seed: int) -> list[tuple[Part, list[int]]]:
    """The training part and the held-out part, each with the rows of its source that belong to it."""
    train = found.train
    if found.held_out is not None:
        return [(part, list(range(len(part.source)))) for part in (train, found.held_out)]
    train_rows, held_out_rows = cut(train.source, seed)
    return [(train, train_rows), (train, held_out_rows)]


def _some_of(
    part: Part, rows: list[int], subset: int | float, seed: int, fewest: int, place: str
) -> list[int]:
    """The rows that a subset takes, in order."""
    number = subset if isinstance(subset, int) else round(subset * len(rows))
    if number > len(rows):
        raise DataError(
            f"data.subset: {place} has {len(rows):,} images to train on; expected at most that, got {number:,}"
        )
    if number < fewest:
        raise DataError(f"data.subset: {number:,} images are fewer than the {fewest:,} of a batch")
    ranked = by_hash(part.source, rows, f"{seed}:subset")
    if part.labels is not None:
        seen: Counter[int] = Counter()
        turn = {}
        for row in ranked:
            turn[row] = seen[part.labels[row]]
            seen[part.labels[row]] += 1
        # The first of every class, then the second of every class; the sort keeps the order within a turn.
        ranked.sort(key=turn.__getitem__)
    return sorted(ranked[:number])


def _through_cache(
    parts: list[tuple[Part, list[int]]], canvas: int, cache: str
) -> tuple[list[tuple[Part, list[int]]], str]:
    """The parts, with images read through a cache, and a line that says where it is or why there is none."""
    folder, by_source, lacking, needed = cache_folder(cache), {}, 0, 0
    for part, rows in parts:
        source = part.source
        if not isinstance(source, Versioned):
            return parts, "" if cache == "auto" else "data.cache: not used: these images are no files"
        if id(source) not in by_source:
            by_source[id(source)] = Cached(source, canvas, folder)
        images, size = by_source[id(source)].lacking(rows)
        lacking, needed = lacking + images, needed + size
    free = shutil.disk_usage(folder).free
    if needed > free:
        short = f"{lacking:,} images at {canvas} pixels take {needed / 2**30:,.1f} GiB; '{folder}' has {free / 2**30:,.1f} GiB free"
        if cache == "auto":
            return parts, f"data.cache: none: {short}"
        raise DataError(f"data.cache: {short}; expected another folder, or null")
    total = sum(len(rows) for _, rows in parts)
    line = f"data.cache: {total - lacking:,} of {total:,} images at {canvas} pixels are in '{folder}'"
    return [(Part(by_source[id(part.source)], part.labels), rows) for part, rows in parts], line


def _decode(
    parts: list[tuple[Part, list[int]]],
    canvas: int,
    left_out: LeftOut,
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
        left_out.unreadable |= failures
        sets.append(MemoryImages(images, _chosen(part, kept)))
    return sets


def _chosen(part: Part, rows: list[int]) -> Tensor | None:
    return None if part.labels is None else torch.tensor([part.labels[row] for row in rows], dtype=torch.long)


def _check(train: ImageSet, held_out: ImageSet, left_out: LeftOut, min_train_images: int) -> None:
    broken = "".join(f"; {line}" for line in left_out.told())
    if len(train) < min_train_images:
        least = (
            f"{min_train_images} of a batch; expected more, or a smaller batch_size"
            if min_train_images > 2
            else "2 needed"
        )
        raise DataError(
            f"data: {left_out.place} has {len(train)} images to train on, fewer than the {least}{broken}"
        )
    if len(held_out) == 0:
        raise DataError(f"data: {left_out.place} has no held-out images; scores need some{broken}")
    if train.labels is not None and len(set(train.labels.tolist())) < 2:
        raise LabelsMissing(
            f"data.labels: {left_out.place} has one class only",
            "a probe needs two or more, or set data.labels to none",
        )


def _statistics(train: ImageSet, canvas: int, left_out: LeftOut, channels: Channels) -> Statistics:
    if isinstance(train, MemoryImages):
        step = max(1, -(-len(train) // _MEASURED_IN_MEMORY))
        return statistics(train.images[::step], channels)
    assert isinstance(train, StreamedImages)
    spread = np.linspace(0, len(train) - 1, num=min(_MEASURED_FROM_FILES, len(train))).astype(int)
    images, _, failures = decode_all(train.source, [train.rows[row] for row in spread], canvas)
    left_out.unreadable |= failures
    left_out.check(len(spread))
    if not len(images):
        raise DataError(f"data: none of {len(spread)} images of {left_out.place} can be read")
    return statistics(images, channels)


def statistics(images_BCHW: Tensor, channels: Channels) -> Statistics:
    """Mean and standard deviation of each channel of images [B, C, H, W]."""
    return pixel_statistics(images_BCHW) if channels == "rgb" else band_statistics(images_BCHW)


def pixel_statistics(images_BCHW: Tensor) -> Statistics:
    """Mean and standard deviation of each channel of uint8 images [B, 3, H, W], on a scale of 0 to 1, from exact counts of values.

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
    return tuple(mean.tolist()), tuple(std.tolist())


def band_statistics(images_BCHW: Tensor) -> Statistics:
    """Mean and standard deviation of each band, in the unit of its values. A constant band counts as having a deviation of 1."""
    # About one of the values: a band of one value far from 0 has a deviation of exactly 0 then.
    origin_C = images_BCHW[0, :, 0, 0].double()
    sums, squares = torch.zeros_like(origin_C), torch.zeros_like(origin_C)
    for some in torch.split(images_BCHW, 256):
        shifted = some.double() - origin_C[:, None, None]
        sums += shifted.sum(dim=(0, 2, 3))
        squares += shifted.square().sum(dim=(0, 2, 3))
    count = images_BCHW[:, 0].numel()
    mean = sums / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    return tuple((origin_C + mean).tolist()), tuple(std.where(std > 0, 1.0).tolist())
