"""Which data sets there are, by name. No torch here: an experiment file can be checked without loading anything."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Literal, cast

from headsearch.errors import DataError, did_you_mean, printable
from headsearch.registry import Entry, Registry

if TYPE_CHECKING:
    from headsearch.data.collection import Collection, Request

Channels = Literal["rgb"] | int
"""What images are made of: `rgb`, to which grey and transparent images are converted, or a number of bands, which are read as they are."""


def channel_count(channels: Channels) -> int:
    """How many channels the base sees."""
    return 3 if channels == "rgb" else channels


def _in(place: str) -> Callable[[Request], Collection]:
    """What opens a source, by its module and name: imported when the first images are asked for."""
    return lambda request: cast("Collection", resolve_name(f"headsearch.data.{place}")(request))


@dataclass(frozen=True)
class DataSource(Entry):
    """Where images come from, by its name in `data.dataset`."""

    open: Callable[[Request], Collection]
    """Finds the images, splits and labels, and decodes none of them."""
    root: str | None = None
    """What `data.root` must lead to, e.g. `folder of images`; None if it is not needed."""
    remote: bool = False
    """Whether `data.root` may be an address, so that it is not looked for on this machine."""


SOURCES: Registry[DataSource] = Registry(
    DataSource,
    "data source",
    (
        DataSource("digits", _in("digits:digits")),
        DataSource("folder", _in("folder:folder"), root="folder of images"),
        DataSource("npz", _in("npz:npz"), root=".npz file"),
        DataSource(
            "webdataset", _in("shards:webdataset"), root="folder of .tar files, or their address", remote=True
        ),
    ),
)
"""Every data source with a name of its own. timm's names have a prefix: `torch/...`, `hfds/...`, `wds/...`."""

_HELD_OUT = ("val", "valid", "validation", "test")


def held_out_names(prefer: Literal["val", "test"]) -> tuple[str, ...]:
    """Names of a held-out split, in the order in which they are looked for."""
    return _HELD_OUT if prefer == "val" else (_HELD_OUT[-1], *_HELD_OUT[:-1])


_FOLDER = re.compile(
    r"(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?|dev|eval)|(?P<test>test(?:ing)?))"
    r"[-_ ]?(?:set|split|data|images|imgs|\d+)?",
    re.IGNORECASE,
)


def split_of(folder: str) -> Literal["train", "val", "test"] | None:
    """The split that a folder is named after, in any case and with a tail such as `_set` or `2017`; None for other names.

    >>> [split_of(name) for name in ("Train", "validation_set", "val2017", "valley")]
    ['train', 'val', 'val', None]
    """
    found = _FOLDER.fullmatch(folder)
    return None if found is None else cast("Literal['train', 'val', 'test']", found.lastgroup)


def what_is(path: Path) -> Literal["folder", "file", "device"] | None:
    """What is at a path, links followed; None if nothing can be reached. Never raises, even if the name is too long."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "device"


def data_path(root: str) -> Path:
    """Where images lie: `~` is the home folder, in whichever command it stands."""
    try:
        return Path(root).expanduser()
    except RuntimeError:
        # `~name` of a user whom this machine does not know: a folder called so, perhaps.
        return Path(root)


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
    if dataset in SOURCES or (prefix in OPEN_PREFIXES and rest):
        return
    if prefix == "torch" and rest in TORCH_NAMES:
        return
    known = [*SOURCES, *(f"torch/{name}" for name in TORCH_NAMES)]
    if separator and prefix in OPEN_PREFIXES:
        raise DataError(f"data.dataset: '{dataset}' names no data set after '{prefix}/'")
    raise DataError(
        f"data.dataset: unknown data set '{dataset}'{did_you_mean(dataset, [*known, 'hfds/...', 'wds/...'])}"
    )


def check_data(dataset: str, root: str | None) -> None:
    """Check what can be checked without opening an image. Raises `DataError`: no such data set, or nothing where its images should be."""
    check_dataset_name(dataset)
    check_root(dataset, root)
    source = SOURCES.get(dataset)
    if source is None or source.root is None:
        return
    if source.remote:
        check_address(str(root))
    elif what_is(data_path(str(root))) is None:
        # `--data` takes names too, and a mistyped one is a path.
        hint = did_you_mean(str(root), SOURCES)
        raise DataError(
            f"data.root: no {source.root} at '{printable(str(root))}'{hint if 'did you mean' in hint else ''}"
        )


def check_root(dataset: str, root: str | None) -> None:
    """Raise `DataError` where a data source needs a path and has none."""
    kind = SOURCES[dataset].root if dataset in SOURCES else None
    if kind is not None and root is None:
        raise DataError(f"data.root: dataset '{dataset}' needs the path of a {kind}; set data.root")


def check_address(root: str) -> None:
    """Raise `DataError`, without showing it, for an address with a password in it, which would be written to files and shown."""
    if re.search(r"://[^/@]*:[^/@]*@", root):
        raise DataError(
            "data.root: the address holds a password; expected one without, and the password where the file system looks for it (docs/data.md)"
        )


def data_named(text: str) -> dict[str, str]:
    """`dataset` and, where it is a path, `root` of what a `--data` option means: a data set's name, an `.npz` file, `.tar` shards or an address
    of some, or a folder.

    Raises:
        DataError: the path is no UTF-8, and could not be kept in a file.
    """
    if not text.isascii() and any("\ud800" <= mark <= "\udfff" for mark in text):
        raise DataError(f"--data: '{printable(text)}' is not text in UTF-8; rename it, or give a link to it")
    prefix, separator, _ = text.partition("/")
    if text in SOURCES or (separator and prefix in (*OPEN_PREFIXES, "torch") and what_is(Path(text)) is None):
        return {"dataset": text}
    if "://" in text or text.endswith(".tar"):
        return {"dataset": "webdataset", "root": text}
    is_npz = text.lower().endswith(".npz") and what_is(data_path(text)) != "folder"
    return {"dataset": "npz" if is_npz else "folder", "root": text}
