"""timm's data sets (`torch/...`, `hfds/...`, `wds/...`, ...), through `timm.data.create_dataset`.

Random access is kept if timm has it. Its readers give undecoded files, which are decoded here, since timm's own data set silently replaces a broken
image by the next one. Sequential data sets are read once, into memory.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from timm.data.dataset_factory import create_dataset
from torch.utils.data import IterableDataset

from headsearch.data.collection import Collection, Part, Request
from headsearch.data.decode import canvas_side
from headsearch.data.names import held_out_names
from headsearch.data.opening import CorruptImage, reason
from headsearch.data.sources import FileSource
from headsearch.errors import DataError, LabelsMissing

_PACKAGES = {"hfds": "datasets", "hfids": "datasets", "tfds": "tensorflow_datasets", "wds": "webdataset"}

_DOWNLOADABLE = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "mnist": "MNIST",
    "qmnist": "QMNIST",
}


def timm_collection(dataset: str, request: Request) -> Collection:
    """Open a data set by timm's name; nothing is downloaded for `torch/...`. Without a root, the library behind the name decides.

    Raises:
        DataError: it is not there, its package is not installed, it has no labels, or it is sequential and too large to be kept.
    """
    root = None if request.root is None else str(request.root)
    prefix, _, name = dataset.partition("/")
    package = _PACKAGES.get(prefix)
    if package is not None and importlib.util.find_spec(package) is None:
        raise DataError(
            f"data.dataset: '{dataset}' needs the package {package}; pip install {package.replace('_', '-')}"
        )
    if prefix in ("torch", "wds") and root is None:
        raise DataError(f"data.root: '{dataset}' needs the folder that holds it")
    try:
        opened = create_dataset(dataset, root=root, split="train")
    except Exception as error:
        # The libraries behind timm raise whatever they like for a data set that is not there.
        raise DataError(_not_found(dataset, name, root, error)) from error
    held_out = _open_held_out(dataset, root, opened, request.prefer)

    def part(data: Any, split: str) -> Part:
        return _part(data, f"{dataset} {split}", root, request)

    train = part(opened, "train")
    classes = _class_names(opened, train.labels) if train.labels is not None else None
    return Collection(train, None if held_out is None else part(held_out, "held out"), classes)


def _not_found(dataset: str, name: str, root: str | None, error: Exception) -> str:
    why = reason(error)
    place = "" if root is None else f" in '{root}'"
    if dataset.startswith("torch/") and name in _DOWNLOADABLE:
        loader = _DOWNLOADABLE[name]
        command = f'python -c "from torchvision.datasets import {loader}; {loader}({root!r}, download=True)"'
        return f"data.root: no '{dataset}'{place}; torchvision fetches it with: {command}"
    return f"data.dataset: cannot open '{dataset}'{place}: {why}"


def _open_held_out(dataset: str, root: str | None, train: Any, prefer: Literal["val", "test"]) -> Any | None:
    """The held-out split, None where the data set has none."""
    for split in held_out_names(prefer):
        try:
            opened = create_dataset(dataset, root=root, split=split)
        except Exception:  # noqa: BLE001 (a split that is not there, in whatever way that is said)
            continue
        # timm answers a split that an image folder lacks with the whole folder.
        if dataset == "torch/image_folder" and Path(opened.root) in (Path(str(root)), Path(train.root)):
            continue
        return opened
    return None


def _part(data: Any, label: str, root: str | None, request: Request) -> Part:
    if isinstance(data, IterableDataset):
        return _sequential(iter(data), label, request)
    labels, pixels = _labels(data, label) if request.labels else None, request.pixels
    if hasattr(data, "imgs"):
        files = [Path(os.path.relpath(path, root)).as_posix() for path, _ in data.imgs]
        return Part(FileSource(Path(str(root)), files, pixels), labels)
    images = _Encoded(data.reader) if hasattr(data, "reader") else np.asarray(data.data)
    return request.part(images, labels, label)


@dataclass(frozen=True)
class _Encoded:
    """The images of a timm reader, undecoded."""

    reader: Any

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> io.BytesIO:
        with self.reader[index][0] as file:
            return io.BytesIO(file.read())


def _labels(data: Any, label: str) -> list[int]:
    """Class numbers without decoding an image."""
    try:
        targets = np.asarray(data.targets if hasattr(data, "targets") else list(data.reader.iter_targets()))
    except (KeyError, AttributeError) as error:
        raise LabelsMissing(f"data.labels: '{label}' has no labels", "set data.labels to none") from error
    return _checked(targets[:, 0] if targets.ndim == 2 else targets, label)


def _checked(targets: Any, label: str) -> list[int]:
    if (
        not np.issubdtype(targets.dtype, np.integer)
        or targets.ndim != 1
        or (len(targets) and targets.min() < 0)
    ):
        raise LabelsMissing(
            f"data.labels: '{label}' has no single class number per image", "set data.labels to none"
        )
    numbers: list[int] = targets.tolist()
    return numbers


def _class_names(data: Any, labels: list[int]) -> list[str]:
    count = max(labels) + 1
    names: list[str] = [str(name) for name in getattr(data, "classes", [])]
    by_name: dict[str, int] = getattr(getattr(data, "reader", None), "class_to_idx", None) or {}
    if by_name:
        names = sorted(by_name, key=lambda name: by_name[name])
    return names if len(names) >= count else [str(number) for number in range(count)]


def _to_the_end(items: Iterator[tuple[Any, Any]], label: str) -> Iterator[tuple[Any, Any]]:
    """The items. An error of the library behind them becomes one line, since no item can be left out."""
    try:
        yield from items
    except Exception as error:
        raise DataError(f"data.dataset: '{label}' cannot be read to its end: {reason(error)}") from error


def _sequential(items: Iterator[tuple[Any, Any]], label: str, request: Request) -> Part:
    kind = request.pixels
    items = _to_the_end(items, label)
    first = list(itertools.islice(items, 33))
    canvas = canvas_side([min(image.size) for image, _ in first], request.image_size)
    most = request.memory_limit // (kind.channels * canvas * canvas)
    pixels: list[NDArray[Any]] = []
    targets: list[int] = []
    for image, target in itertools.chain(first, items):
        if len(pixels) == most:
            raise DataError(
                f"data.dataset: '{label}' has more than {most} images, too many to keep; it can only be read from its"
                " start: use hfds/... or an image folder for streaming"
            )
        try:
            pixels.append(kind.from_image(image, canvas))
        except CorruptImage as error:
            raise DataError(f"data.dataset: '{label}': image {len(pixels)}: {error}") from None
        if request.labels:
            targets.append(target)
    if not pixels:
        raise DataError(f"data.dataset: '{label}' has no images")
    return request.part(pixels, _checked(np.asarray(targets), label) if request.labels else None, label)
