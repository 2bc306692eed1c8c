"""Image sets, which training and scoring iterate over: from memory or from files, with the same pixels in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from headsearch.cores import cores
from headsearch.data.cache import Cached
from headsearch.data.decode import Fetching, Source
from headsearch.data.left_out import LeftOut
from headsearch.data.names import Channels
from headsearch.data.opening import CorruptImage
from headsearch.errors import DataError

_TRIED = 100
"""How many images are tried in place of an unreadable one, so that a lost disk is not searched to its end."""


class ImageSet(Protocol):
    """Square images of one size with, perhaps, labels."""

    @property
    def labels(self) -> Tensor | None:
        """Class numbers [N], int64; None where labels must not be or cannot be read."""

    def __len__(self) -> int: ...

    def batches(
        self, batch_size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the images as (pixels [B, C, S, S], positions in the set [B], int64).

        Shuffled by `generator` (on the CPU), in order where it is None. `drop_last` leaves out an incomplete last batch.
        """

    def read(self, order: Iterable[Tensor]) -> Iterator[Tensor]:
        """The pixels [B, C, S, S] at the positions [B] of every batch in `order`, always as many as asked for: an unreadable image is replaced by
        the next readable one of the set."""


def index_batches(
    count: int, batch_size: int, generator: torch.Generator | None, drop_last: bool
) -> Iterator[Tensor]:
    """The positions of one pass, batch by batch, for every kind of set."""
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    stop = count - count % batch_size if drop_last else count
    for start in range(0, stop, batch_size):
        yield order[start : start + batch_size]


@dataclass(frozen=True)
class MemoryImages:
    """Images decoded once and kept."""

    images: Tensor
    """[N, C, S, S]: uint8, or float32 for bands of any other type."""
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def batches(
        self, batch_size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `ImageSet.batches`. Batches in order are views of the set's memory: do not write to them."""
        for index in index_batches(len(self), batch_size, generator, drop_last):
            if generator is None:
                first = int(index[0])
                yield self.images[first : first + len(index)], index
            else:
                yield self.images.index_select(0, index), index

    def read(self, order: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `ImageSet.read`."""
        return (self.images.index_select(0, index) for index in order)


@dataclass(frozen=True)
class StreamedImages:
    """Images decoded anew at every pass, by worker processes.

    An unreadable file is left out of its batch, which is then smaller, or, in `read`, replaced by another. It is noted in `left_out`. Raises
    `DataError` once too many cannot be read.
    """

    source: Source
    rows: list[int]
    """Which images of the source belong to the set."""
    canvas: int
    labels: Tensor | None = None
    left_out: LeftOut = field(default_factory=LeftOut)
    workers: int | None = None
    """Processes that decode; None: one fewer than the cores there are for this process."""

    def __len__(self) -> int:
        return len(self.rows)

    def batches(
        self, batch_size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `ImageSet.batches`."""
        order = index_batches(len(self), batch_size, generator, drop_last)
        for images, index in self._decoded(order, replace=False):
            if len(index):
                yield images, index

    def read(self, order: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `ImageSet.read`."""
        return (images for images, _ in self._decoded(order, replace=True))

    def _decoded(self, order: Iterable[Tensor], *, replace: bool) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            _Batches(self.source, self.rows, self.canvas, replace),
            batch_sampler=[batch.tolist() for batch in order],
            num_workers=cores() - 1 if self.workers is None else self.workers,
            collate_fn=_as_is,
            pin_memory=torch.cuda.is_available(),
            # Its own generator: a loader draws a seed for its workers, and must not advance the global one.
            generator=torch.Generator().manual_seed(0),
        )
        for images, index, failures, trouble in loader:
            if failures:
                self.left_out.unreadable |= failures
                self.left_out.check()
            if trouble:
                self.left_out.troubles.setdefault(trouble, False)
            if replace and not len(images):
                raise DataError(f"data: {_TRIED} images in a row cannot be read; {self.left_out.told()[0]}")
            yield images, index


class _Batches(torch.utils.data.Dataset[tuple[Tensor, Tensor, dict[str, str], str]]):
    """What a worker runs: a whole batch at a time."""

    def __init__(self, source: Source, rows: list[int], canvas: int, replace: bool) -> None:
        """`replace`: an unreadable image is replaced by the next readable one. If none is found, the batch is empty."""
        self.source = source
        self.rows = rows
        self.canvas = canvas
        self.replace = replace

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, index: list[int]) -> tuple[Tensor, Tensor, dict[str, str], str]:
        """Pixels, positions, why others cannot be read by name, and trouble with the cache."""
        shape = (len(index), self.source.channels, self.canvas, self.canvas)
        images = np.empty(shape, self.source.dtype)
        kept: list[int] = []
        failures: dict[str, str] = {}
        if isinstance(self.source, Fetching):
            self.source.fetch([self.rows[position] for position in index])
        for first in index:
            for position in self._candidates(first):
                row = self.rows[position]
                try:
                    pixels = self.source.read(row, self.canvas)
                except CorruptImage as error:
                    failures[self.source.name(row)] = str(error)
                    continue
                images[len(kept)] = pixels.transpose(2, 0, 1)
                kept.append(position)
                break
            else:
                if self.replace:
                    kept.clear()
                    break
        trouble = self.source.trouble if isinstance(self.source, Cached) else ""
        return torch.from_numpy(images[: len(kept)]), torch.tensor(kept, dtype=torch.long), failures, trouble

    def _candidates(self, first: int) -> Iterable[int]:
        count = min(len(self.rows), _TRIED) if self.replace else 1
        return ((first + offset) % len(self.rows) for offset in range(count))


def _as_is(batch: Any) -> Any:
    """The batch is complete already; a named function, since workers may have to pickle it."""
    return batch


_CLASSES_NAMED = 3


@dataclass(frozen=True)
class Dataset:
    """A data set, read and split."""

    name: str
    """As in the experiment, e.g. `torch/cifar10`."""
    train: ImageSet
    held_out: ImageSet
    """Never seen by self-supervised training: the test split, or a seeded part of train if there is none."""
    classes: list[str] | None
    """Names by class number; None without labels."""
    mean: tuple[float, ...]
    """Of the training images' channels: of RGB on a scale of 0 to 1, of bands as they are."""
    std: tuple[float, ...]
    canvas: int
    """Side of the images in the sets, in pixels: image_size up to image_size * 8/7."""
    left_out: LeftOut
    """Files not used, and why; grows while streamed files are first read."""
    layout: str = ""
    """What was understood of where splits and classes are."""
    cache: str = ""
    """A line about the cache, or why there is none; empty if none was asked for."""
    channels: Channels = "rgb"

    def told(self) -> list[str]:
        """What the user should know before any training: what was understood, and what is left out."""
        return [self.understood(), *filter(None, [self.cache]), *self.left_out.told()]

    def understood(self) -> str:
        """One line: how many images are trained on and held out, by which split, and the classes."""
        named = [] if self.layout == "" else [self.layout]
        if self.channels != "rgb":
            named.append(f"{self.channels} band{'' if self.channels == 1 else 's'} as they are")
        if self.classes is None:
            classes = "no labels"
        else:
            some = ", ".join(self.classes[:_CLASSES_NAMED])
            more = ", ..." if len(self.classes) > _CLASSES_NAMED else ""
            classes = f"{len(self.classes):,} classes ({some}{more})"
        return "; ".join(
            [
                f"data: {self.name}: {len(self.train):,} images to train on, {len(self.held_out):,} held out",
                *named,
                classes,
            ]
        )
