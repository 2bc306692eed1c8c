"""What every data source must do. A new source is done when `check_source` passes.

>>> check_source("digits")
"""

from __future__ import annotations

import pickle
from typing import Literal

from headsearch.data.collection import MEMORY_LIMIT, Part, Request
from headsearch.data.load import load_data, pixels_of
from headsearch.data.names import SOURCES, Channels, check_data
from headsearch.data.sets import Dataset


def check_source(
    name: str,
    *,
    root: str | None = None,
    image_size: int = 16,
    channels: Channels = "rgb",
    labelled: bool = True,
) -> None:
    """Raises an `AssertionError` that names what the source does wrong.

    Args:
        name: name of the source.
        root: where the images are, for a source that needs a path.
        image_size: side of the images in pixels.
        channels: as in `data.channels`.
        labelled: whether it has labels.
    """
    check_data(name, root)
    SOURCES[name].check()

    def load(labels: Literal["probe", "none"], memory_limit: int = MEMORY_LIMIT) -> Dataset:
        return load_data(
            name,
            root=root,
            image_size=image_size,
            channels=channels,
            labels=labels,
            seed=0,
            memory_limit=memory_limit,
        )

    plain = load("none")
    assert not plain.left_out.unreadable, (
        f"{name}: images that cannot be read: {plain.left_out.told_unreadable()}"
    )
    assert _same(plain, load("none")), f"{name}: other images when it is opened again"
    assert _same(plain, load("none", memory_limit=1)), (
        f"{name}: other images where they are read one by one in other processes"
    )
    if labelled:
        known = load("probe")
        assert _same(plain, known), f"{name}: other images where labels are read"
        assert known.classes is not None
        assert len(set(known.classes)) == len(known.classes), f"{name}: two classes of one name"
    for prefer in ("val", "test"):
        _check_parts(name, root, image_size, channels, prefer)


def _same(one: Dataset, other: Dataset) -> bool:
    """Whether two data sets have the same pixels in the same order."""
    pairs = ((one.train, other.train), (one.held_out, other.held_out))
    return all(
        len(a) == len(b)
        and all(bool((x == y).all()) for (x, _), (y, _) in zip(a.batches(64), b.batches(64), strict=True))
        for a, b in pairs
    )


def _check_parts(
    name: str, root: str | None, image_size: int, channels: Channels, prefer: Literal["val", "test"]
) -> None:
    """Images have names of their own, are those of their part wherever they are read, and labels are not looked for in vain."""
    request = Request(
        address=root,
        labels=False,
        prefer=prefer,
        image_size=image_size,
        memory_limit=MEMORY_LIMIT,
        pixels=pixels_of(channels),
    )
    found = SOURCES[name].open(request)
    parts: list[Part] = [part for part in (found.train, found.held_out) if part is not None]
    names = [part.source.name(index) for part in parts for index in range(len(part.source))]
    assert len(set(names)) == len(names), f"{name}: two images of one name"
    for part in parts:
        again = pickle.loads(pickle.dumps(part.source))
        assert (again.read(0, image_size) == part.source.read(0, image_size)).all(), (
            f"{name}: an image is another one in another process"
        )
