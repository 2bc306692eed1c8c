"""Images with a class number for every pixel: folders of images and masks, and a set made of the embedded digits.

    root/images/train/a.jpg  root/masks/train/a.png       and the same with `val` or `test`; `test` goes before `val`
    root/images/a.jpg        root/masks/a.png             without splits: a seeded part is held out

A mask is an image of one channel (grey or palette, 8 or 16 bits) that holds class numbers; 255 marks pixels that do not count.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.Image import Resampling
from torch import Tensor

from headsearch.cores import cores
from headsearch.data.collection import Part, Request, cut
from headsearch.data.decode import RGB, Pixels
from headsearch.data.folder import image_files
from headsearch.data.left_out import LeftOut
from headsearch.data.load import pixels_of
from headsearch.data.names import Channels, data_path, split_of, what_is
from headsearch.data.opening import CorruptImage, opened
from headsearch.data.sources import FileSource
from headsearch.errors import DataError, printable

IGNORED = -1
"""The class of pixels that do not count."""

_IGNORED_IN_FILES = 255

_TRAIN_COLLAGES, _TEST_COLLAGES = 500, 200


@dataclass(frozen=True)
class MaskedImages:
    """Square images with a class number for every pixel."""

    images: Tensor
    """[N, C, S, S]."""
    masks: Tensor
    """int64 [N, S, S]: positions in the set's classes, or `IGNORED`."""

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class MaskedDataset:
    """Images with masks, split."""

    train: MaskedImages
    test: MaskedImages
    classes: list[int]
    """The class numbers in the files, sorted: those of train."""


def load_masks(
    dataset: Literal["digits", "folder"],
    *,
    root: str | None,
    image_size: int,
    channels: Channels = "rgb",
    most_train: int,
    seed: int,
) -> MaskedDataset:
    """Read a data set for semantic segmentation: the centre square of every image and mask, resized to `image_size`.

    Args:
        dataset: `digits` or `folder`.
        root: the folder; unused for `digits`.
        image_size: side of images and masks, in pixels.
        channels: `rgb`, or the number of bands.
        most_train: of a larger training set a random part is taken.
        seed: of that part, and of the cut where there is no held-out split.

    Raises:
        DataError: what lies at `root` cannot be used.
    """
    pixels = pixels_of(channels)
    if dataset == "digits":
        return _digits(Request(None, labels=True, image_size=image_size, pixels=pixels))
    if root is None:
        raise DataError("segmentation.root: dataset 'folder' needs the path of its folder")
    top = data_path(root)
    (train, train_files), (test, test_files) = _parts(top, seed, pixels)
    if len(train_files) > most_train:
        chosen = np.random.default_rng(seed).permutation(len(train_files))[:most_train]
        train_files = [train_files[row] for row in sorted(chosen)]
    train_pixels, train_masks = _read(
        FileSource(top / "images" / train, train_files, pixels), top / "masks" / train, image_size
    )
    test_pixels, test_masks = _read(
        FileSource(top / "images" / test, test_files, pixels), top / "masks" / test, image_size
    )
    known = np.setdiff1d(train_masks, [_IGNORED_IN_FILES])
    if len(known) < 2:
        raise DataError(f"{top / 'masks' / train}: one class only; segmentation needs two or more")
    unknown = np.setdiff1d(test_masks, [*known, _IGNORED_IN_FILES])
    if len(unknown):
        raise DataError(f"{top / 'masks' / test}: class {unknown[0]} does not occur in the training masks")
    return MaskedDataset(
        _numbered(train_pixels, train_masks, known),
        _numbered(test_pixels, test_masks, known),
        known.tolist(),
    )


def _parts(top: Path, seed: int, pixels: Pixels) -> tuple[tuple[str, list[str]], tuple[str, list[str]]]:
    """Training and test part: the folder below `images` and `masks`, and the files in it."""
    images = top / "images"
    if what_is(images) != "folder" or what_is(top / "masks") != "folder":
        raise DataError(f"segmentation.root: '{top}' needs the folders 'images' and 'masks'")
    splits = {split_of(entry.name): entry.name for entry in sorted(images.iterdir()) if entry.is_dir()}
    if "train" in splits:
        test = splits.get("test", splits.get("val"))
        if test is None:
            raise DataError(f"segmentation.root: '{images}' has 'train' but neither 'val' nor 'test'")
        train = splits["train"]
        return (train, _files(images / train, pixels)), (test, _files(images / test, pixels))
    files = _files(images, pixels)
    train_rows, test_rows = cut(FileSource(images, files), seed)
    return ("", [files[row] for row in train_rows]), ("", [files[row] for row in test_rows])


def _files(folder: Path, pixels: Pixels) -> list[str]:
    left_out = LeftOut()
    files = image_files(folder, left_out, pixels.endings)
    if left_out:
        raise DataError(f"segmentation.root: '{folder}': {left_out.told()[0]}")
    if len(files) < 2:
        raise DataError(f"segmentation.root: '{folder}' has {len(files)} images, fewer than the 2 needed")
    return files


def _read(source: FileSource, masks: Path, size: int) -> tuple[NDArray[Any], NDArray[np.uint16]]:
    """Pixels [N, S, S, C] and the masks [N, S, S] that lie below the folder `masks`."""
    pixels = np.empty((len(source), size, size, source.channels), dtype=source.dtype)
    numbers = np.empty((len(source), size, size), dtype=np.uint16)

    def read(row: int) -> None:
        file = source.name(row)
        pixels[row], numbers[row] = _read_pair(source, row, (masks / file).with_suffix(".png"), size)

    with ThreadPoolExecutor(max_workers=cores()) as pool:
        list(pool.map(read, range(len(source))))
    return pixels, numbers


def _read_pair(
    source: FileSource, row: int, mask: Path, size: int
) -> tuple[NDArray[Any], NDArray[np.uint16]]:
    image = source.root / source.name(row)
    if not mask.is_file():
        raise DataError(f"{image}: no mask '{mask}'")
    try:
        with opened(str(mask)) as numbers:
            pixels, (width, height) = source.read(row, size), _upright_size(source, row)
            if (width, height) != numbers.size:
                raise DataError(
                    f"{mask}: {numbers.width}x{numbers.height} pixels, but its image has {width}x{height}"
                )
            if numbers.mode not in ("L", "P", "1") and not numbers.mode.startswith("I"):
                raise DataError(
                    f"{mask}: mode {numbers.mode}; expected one channel of class numbers (grey or palette)"
                )
            return pixels, _square(numbers, size)
    except CorruptImage as error:
        raise DataError(f"{printable(str(image))}: image or mask cannot be read: {error}") from None


def _upright_size(source: FileSource, row: int) -> tuple[int, int]:
    if source.pixels is not RGB:
        return source.size(row)
    with opened(str(source.root / source.name(row))) as picture:
        return ImageOps.exif_transpose(picture).size


def _square(numbers: Image.Image, size: int) -> NDArray[np.uint16]:
    """The centre square of a mask, each pixel the number that lies at its place."""
    values = Image.fromarray(np.asarray(numbers).astype(np.int32))
    side = min(values.size)
    left, top = (values.width - side) / 2, (values.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(values.resize((size, size), Resampling.NEAREST, box=box)).astype(np.uint16)


def _numbered(pixels: NDArray[Any], masks: NDArray[np.uint16], known: NDArray[np.uint16]) -> MaskedImages:
    positions: NDArray[np.int64] = np.where(
        masks == _IGNORED_IN_FILES, IGNORED, np.searchsorted(known, masks)
    )
    return MaskedImages(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(positions)
    )


def _digits(request: Request) -> MaskedDataset:
    """Up to four digits in the quarters of a dark picture; class 0 is an empty quarter, class d + 1 that of digit d.

    Whole quarters and not ink: a stroke is finer than the patches that a small ViT sees, and no linear layer could draw it.
    """
    from headsearch.data.digits import digits

    found = digits(request)
    assert found.held_out is not None
    train = _collages(found.train, request.image_size, _TRAIN_COLLAGES, np.random.default_rng(0))
    test = _collages(found.held_out, request.image_size, _TEST_COLLAGES, np.random.default_rng(1))
    return MaskedDataset(train, test, list(range(11)))


def _collages(digits: Part, size: int, count: int, random: np.random.Generator) -> MaskedImages:
    """Pictures whose quarters hold a digit each, or, one in four, nothing."""
    assert digits.labels is not None
    cell = size // 2
    pixels = np.zeros((count, size, size, digits.source.channels), dtype=np.uint8)
    masks = np.zeros((count, size, size), dtype=np.int64)
    for row in range(count):
        for top, left in ((0, 0), (0, cell), (cell, 0), (cell, cell)):
            if random.random() < 0.25:
                continue
            chosen = int(random.integers(len(digits.source)))
            quarter = (row, slice(top, top + cell), slice(left, left + cell))
            pixels[quarter] = digits.source.read(chosen, cell)
            masks[quarter] = digits.labels[chosen] + 1
    return MaskedImages(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(masks))
