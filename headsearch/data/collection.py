"""What a reader of a data set gives: parts with undecoded images. Also the seeded cut for data sets without a test split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headsearch.data.decode import RGB, Pixels, Source
from headsearch.data.left_out import LeftOut
from headsearch.data.names import data_path
from headsearch.data.sources import Items, ItemSource

MEMORY_LIMIT = 2 * 1024**3
"""Bytes of decoded images above which a data set is streamed from its files instead of being kept in memory."""


@dataclass(frozen=True)
class Part:
    """Images that belong together, undecoded."""

    source: Source
    labels: list[int] | None
    """Class number of every image; None if labels may not be read."""


@dataclass(frozen=True)
class Collection:
    """A data set as found, before decoding."""

    train: Part
    held_out: Part | None
    """The test split; None if there is none, so that one must be cut off train."""
    classes: list[str] | None
    layout: str = ""
    """What was understood of it, in one line: where the splits are, or the classes."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """Files that are known not to be used."""


@dataclass(frozen=True)
class Request:
    """What a data source is asked for."""

    address: str | None
    """`data.root` as it is written."""
    labels: bool
    """Whether labels may be read. If not, a source need not look for them; labels that it gives are ignored."""
    prefer: Literal["val", "test"] = "val"
    """Which split is held out if there are both: a search uses `val` and leaves `test` to a final evaluation."""
    image_size: int = 224
    """Side of the square that the base sees, in pixels."""
    memory_limit: int = MEMORY_LIMIT
    """Bytes of images that may be kept."""
    pixels: Pixels = RGB
    """How images of any kind become pixels."""
    cache: Path | None = None
    """A folder in which a source may keep something for the next time."""

    @property
    def root(self) -> Path | None:
        """`data.root`: where the images lie."""
        return None if self.address is None else data_path(self.address)

    def part(self, images: Items, labels: Sequence[int] | None, name: str) -> Part:
        """A part of a data set.

        Args:
            images: anything that has a length and gives an image by its number, always the same and in any process: one of Pillow's, an array [H, W] or
                [H, W, C], the path of an image file, or an open file. Also an array of all images.
            labels: the class number of every image, from 0; None where there are none.
            name: of the part. Images are called `name[number]`, also for the cut of held-out images where there is no split.
        """
        numbers = None if labels is None or not self.labels else [int(label) for label in labels]
        return Part(ItemSource(images, name, self.pixels), numbers)


def held_out_count(count: int) -> int:
    """How many of `count` images are held out where there is no test split: 10 %, but at least the lesser of 1,000 and 20 %."""
    return max(count // 10, min(1000, count // 5))


def by_hash(source: Source, rows: Iterable[int], key: str) -> list[int]:
    """Rows of a source in an order that follows from `key` and the images' names alone: the same on every machine and for every version of
    any random generator."""

    def rank(index: int) -> bytes:
        # A name that is no UTF-8 counts by its bytes.
        keyed = f"{key}:{source.name(index)}".encode(errors="surrogateescape")
        return hashlib.blake2b(keyed, digest_size=16).digest()

    return sorted(rows, key=rank)


def cut(source: Source, seed: int) -> tuple[list[int], list[int]]:
    """Training and held-out positions, each in order, blind to labels: what is pretrained without labels can be probed with them on
    unseen images."""
    ranked = by_hash(source, range(len(source)), str(seed))
    held = held_out_count(len(source))
    return sorted(ranked[held:]), sorted(ranked[:held])
