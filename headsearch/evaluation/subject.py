"""What a probe works on: a base with its weights, and images, embedded once for all probes that need embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from headsearch.base.model import Base
from headsearch.data.augment import Views
from headsearch.data.sets import Dataset, ImageSet
from headsearch.errors import BaseModelError
from headsearch.evaluation.intervals import Outcome
from headsearch.scoring.features import extract_embeddings, extract_view_embeddings


@dataclass(frozen=True)
class Embeddings:
    """The frozen base's embeddings (N, D) of all images, float32, with their labels (N,); on the CPU."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


_D = TypeVar("_D")


@dataclass(frozen=True)
class Loaded(Generic[_D]):
    """A base with one set of weights, which probes leave unchanged, and the images of a probe."""

    name: str
    base: Base
    dataset: _D
    views: Views
    """Its `prepare` makes the base's input from images."""
    batch_size: int
    device: torch.device


class Subject(Loaded[Dataset]):
    """With images to be embedded, and their labels where there are any."""

    @cached_property
    def embeddings(self) -> Embeddings:
        """See `Embeddings`. Raises `BaseModelError` where one is not finite."""
        train_x_ND, train_y_N = self._embedded(self.dataset.train)
        test_x_MD, test_y_M = self._embedded(self.dataset.held_out)
        return Embeddings(train_x_ND, train_y_N, test_x_MD, test_y_M)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        assert self.dataset.classes is not None
        return len(self.dataset.classes)

    def some_held_out(self, most: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Held-out images by batch, about `most`: all of a smaller set, else a random part."""
        batches = self.dataset.held_out.batches(self.batch_size, generator=generator)
        return (images for images, _ in islice(batches, max(1, most // self.batch_size)))

    def two_views(self, images: Iterable[Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Embeddings (N, D) of two augmented views of the images."""
        return extract_view_embeddings(
            self.base, [], images, views=lambda batch: self.views(batch, generator, batch.device)
        ).base

    def _embedded(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        index: list[Tensor] = []
        x_ND = extract_embeddings(
            self.base, _pixels(images, self.batch_size, index.append), prepare=self.views.prepare
        )
        if not torch.isfinite(x_ND).all():
            raise BaseModelError(f"weights '{self.name}': the base's embeddings are not finite")
        return x_ND, labels_of(images, torch.cat(index))


def labels_of(images: ImageSet, index_N: Tensor) -> Tensor:
    """Class numbers (N,) of the images at these positions."""
    assert images.labels is not None
    return images.labels[index_N]


def accuracy_outcome(predicted_by_seed: list[Tensor], test_y_M: Tensor) -> Outcome:
    """The outcome of a classifier, from its predictions (M,) with each seed."""
    right_KM = torch.stack([predicted_M.cpu() == test_y_M for predicted_M in predicted_by_seed])
    contributions_KM = 100.0 * right_KM.numpy().astype(np.float64)
    return Outcome(tuple(contributions_KM.mean(axis=1).tolist()), contributions_KM)


def _pixels(images: ImageSet, batch_size: int, note: Callable[[Tensor], None]) -> Iterator[Tensor]:
    """Batches in order. The positions that could be read are noted, since broken files are left out."""
    for batch, index in images.batches(batch_size):
        note(index)
        yield batch
