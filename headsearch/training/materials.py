"""What a training starts from: the images with their views, and the student/teacher pair at its start. Proxies and pretraining share it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from headsearch.base.info import BaseInfo
from headsearch.base.model import Base, check_size, empty_base, load_base
from headsearch.data.augment import Views
from headsearch.data.load import check_probe, load_data
from headsearch.data.names import channel_count
from headsearch.data.sets import Dataset
from headsearch.errors import ExperimentError, HeadError
from headsearch.experiment.sections import BaseSpec, DataSpec, MethodSpec, SearchedData
from headsearch.heads.build import build_head
from headsearch.heads.config import HeadConfig
from headsearch.methods import build_method
from headsearch.methods.hiding import pair_of
from headsearch.methods.hssl import HSSL
from headsearch.training.augmentation import build_augmentation
from headsearch.training.seeds import derived_seed


def new_base(spec: BaseSpec, data: DataSpec) -> Base:
    """The base that `spec` describes, for images as `data` has them. Raises `BaseModelError`."""
    return load_base(
        spec.source,
        image_size=data.image_size,
        channels=channel_count(data.channels),
        kwargs=spec.kwargs,
        weights=spec.weights,
        stage=spec.stage,
    )


def empty_base_of(spec: BaseSpec, data: DataSpec) -> Base:
    """The same without its weights, see `empty_base`. Raises `BaseModelError`."""
    return empty_base(
        spec.source,
        image_size=data.image_size,
        channels=channel_count(data.channels),
        kwargs=spec.kwargs,
        stage=spec.stage,
    )


def read_images(
    data: DataSpec, base: Base, *, batch_size: int, seed: int, subset: int | float | None = None
) -> tuple[Dataset, Views]:
    """The data set, split by `seed`, or a `subset` of it, and what makes views of it.

    Raises:
        UserError: the augmentation or the data cannot be used, there are fewer images than a batch holds, or `base` does not take local crops.
    """
    augmentation = build_augmentation(data)
    dataset = load_data(
        data.dataset,
        root=data.root,
        image_size=data.image_size,
        channels=data.channels,
        labels=data.labels,
        seed=seed,
        min_train_images=batch_size,
        unreadable=data.unreadable,
        subset=subset,
        cache=data.cache,
    )
    check_probe(dataset)
    views = Views(
        augmentation,
        image_size=data.image_size,
        mean=dataset.mean,
        std=dataset.std,
        channels=data.channels,
    )
    if augmentation.local_crops:
        check_size(base, views.local_size)
    return dataset, views


class Inputs:
    """Base and images of an experiment, each read once, when first needed. Picklable; what has been read stays behind."""

    def __init__(self, base: BaseSpec, data: SearchedData, *, batch_size: int, seed: int) -> None:
        """`seed` holds images out; at least `batch_size` must be left to train on. A subset that is to be decided on is all images."""
        self._spec = base
        self._data = data
        self._batch_size = batch_size
        self._seed = seed
        self._first: Base | None = None
        self._images: tuple[Dataset, Views] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_first": None, "_images": None}

    def let_go(self) -> None:
        """Forget what has been read; it is read again when it is needed."""
        self._first, self._images = None, None

    @property
    def info(self) -> BaseInfo:
        """Facts about the base. Raises `BaseModelError`."""
        return self._read().info

    @property
    def images(self) -> tuple[Dataset, Views]:
        """As `read_images`, which says what it raises."""
        if self._images is None:
            with torch.random.fork_rng(devices=[]):
                self._images = read_images(
                    self._data,
                    self._read(),
                    batch_size=self._batch_size,
                    seed=self._seed,
                    subset=None if self._data.subset == "auto" else self._data.subset,
                )
        return self._images

    def base(self) -> Base:
        """A base at its start: with the given weights, or else new ones, drawn from torch's global generator."""
        if self._spec.weights is not None:
            return copy.deepcopy(self._read())
        return new_base(self._spec, self._data)

    def branched(self, trunk: str) -> Base:
        """A base with the weights of the file `trunk`. Raises `BaseModelError` where it is of another base."""
        return new_base(self._spec.model_copy(update={"weights": trunk}), self._data)

    def check_method(self, method: MethodSpec) -> None:
        """Check that the base can be trained by a method. Raises `ExperimentError`."""
        base = self._read()
        with torch.random.fork_rng(devices=[]):
            built = build_method(method.name, width=base.info.width, **method.kwargs)
            pair_of(built).make_student(base, [], built)

    def _read(self) -> Base:
        if self._first is None:
            with torch.random.fork_rng(devices=[]):
                self._first = new_base(self._spec, self._data)
        return self._first


def build_pair(
    make_base: Callable[[], Base], heads: Sequence[HeadConfig], method: MethodSpec, seed: int
) -> HSSL:
    """A pair with these single heads at its start, every part drawn from a stream of its own; seeds the global generator.

    Raises:
        HeadError: the base cannot carry the head.
    """
    torch.manual_seed(derived_seed(seed, "base"))
    base = make_base()
    torch.manual_seed(derived_seed(seed, "head"))
    built = [build_head(head, base.info) for head in heads]
    torch.manual_seed(derived_seed(seed, "projectors"))
    compared = build_method(method.name, width=base.info.width, **method.kwargs)
    return pair_of(compared)(base, built, compared)


def check_local_crops(views: Views, pair: HSSL) -> None:
    """Check that small views can be of use, where there are any.

    Raises:
        HeadError: a head takes images of one size only.
        ExperimentError: the method has no use for them.
    """
    if not views.augmentation.local_crops:
        return
    if pair.methods[0].compares_tokens:
        raise ExperimentError(
            "data.augmentation.local_crops must be 0: the method compares whole views alone"
        )
    bound = next((head for head in pair.student.heads if head.grid_bound), None)
    if bound is not None:
        raise HeadError(
            f"a {bound.config.family} head is tied to one size of images: data.augmentation.local_crops must be 0"
        )
