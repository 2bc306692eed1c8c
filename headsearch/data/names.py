"""Which data sets there are, by name. No torch here: an experiment file can be checked without loading anything."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from headsearch.errors import DataError, did_you_mean

OWN_NAMES = ("digits", "folder", "npz")

_HELD_OUT = ("val", "valid", "validation", "test")


def held_out_names(prefer: Literal["val", "test"]) -> tuple[str, ...]:
    """Names of a held-out split, in the order in which they are looked for."""
    return _HELD_OUT if prefer == "val" else (_HELD_OUT[-1], *_HELD_OUT[:-1])


TORCH_NAMES = (
    "cifar10",
    "cifar100",
    "fashion_mnist",
    "image_folder",
    "imagenet",
    "kmnist",
    "mnist",
    "places365",
    "qmnist",
)
"""torchvision's data sets that timm knows, written `torch/<name>`."""

OPEN_PREFIXES = ("hfds", "hfids", "tfds", "wds")
"""timm's prefixes that any name may follow: Hugging Face (random access, streaming), TensorFlow data sets, WebDataset."""


def check_dataset_name(dataset: str) -> None:
    """Raise `DataError`, naming the nearest known name, unless this names a data set."""
    prefix, separator, rest = dataset.partition("/")
    if dataset in OWN_NAMES or (prefix in OPEN_PREFIXES and rest):
        return
    if prefix == "torch" and rest in TORCH_NAMES:
        return
    known = [*OWN_NAMES, *(f"torch/{name}" for name in TORCH_NAMES)]
    if separator and prefix in OPEN_PREFIXES:
        raise DataError(f"data.dataset: '{dataset}' names no data set after '{prefix}/'")
    raise DataError(
        f"data.dataset: unknown data set '{dataset}'{did_you_mean(dataset, [*known, 'hfds/...', 'wds/...'])}"
    )


def data_named(text: str) -> dict[str, str]:
    """`dataset` and, where it is a path, `root` of what a `--data` option means: a data set's name, an `.npz` file, or a folder."""
    prefix, separator, _ = text.partition("/")
    if text in OWN_NAMES or (separator and prefix in (*OPEN_PREFIXES, "torch") and not Path(text).exists()):
        return {"dataset": text}
    return {"dataset": "npz" if text.endswith(".npz") else "folder", "root": text}
