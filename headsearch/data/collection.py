"""What a reader of a data set hands over: parts with undecoded images, and the seeded cut where there is no test split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from headsearch.data.decode import Source
from headsearch.data.left_out import LeftOut


@dataclass(frozen=True)
class Part:
    """Images that belong together, undecoded."""

    source: Source
    labels: list[int] | None
    """Class number of every image; None where labels may not be read."""


@dataclass(frozen=True)
class Collection:
    """A data set as found, before decoding."""

    train: Part
    held_out: Part | None
    """The test split; None where there is none and one must be cut off train."""
    classes: list[str] | None
    layout: str = ""
    """What was understood of it, for one line: where the splits are, or the classes."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """What is known already not to be used."""


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
