"""Images in, two augmented views out: data sources, splits, decoded or streamed image sets, and batch augmentation.

`load_data` is the one door. `headsearch.data.augment.Views` makes the views, `headsearch.data.recipe` holds their recipe.
Importing this package is cheap; torch comes with the first call of `load_data`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from headsearch.data.names import Channels

if TYPE_CHECKING:
    from headsearch.data.sets import Dataset

__all__ = ["MEMORY_LIMIT", "load_data"]

MEMORY_LIMIT = 2 * 1024**3
"""Bytes of decoded images above which a data set is streamed from its files instead of being kept in memory."""


def load_data(
    dataset: str,
    *,
    root: str | None,
    image_size: int,
    channels: Channels = "rgb",
    labels: Literal["probe", "none"],
    seed: int,
    prefer: Literal["val", "test"] = "val",
    min_train_images: int = 2,
    memory_limit: int = MEMORY_LIMIT,
    unreadable: Literal["refuse", "accept"] = "refuse",
    subset: int | float | None = None,
    cache: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read a data set: training images, held-out images that training never sees, and labels if they may be used.

    Args:
        dataset: `digits`, `folder`, `npz`, `webdataset`, or one of timm's names (`torch/cifar10`, `hfds/...`, `wds/...`).
        root: folder or file of the images; None where the data set needs none.
        image_size: side of the model's square input, in pixels.
        channels: `rgb`, or the number of bands, which are read as they are.
        labels: `none` reads no label at all: class folders are then just folders.
        seed: of the cut that holds images out where there is no test split. The cut depends on the seed and the images'
            names alone, never on labels, so `probe` and `none` hold out the same images.
        prefer: which split is held out where there are both: a search uses `val` and leaves `test` to a final evaluation.
        min_train_images: fewer readable training images than this are an error.
        memory_limit: in bytes; larger sets are streamed.
        unreadable: `refuse` raises where a fifth of the files or more cannot be read; otherwise they are left out, and told.
        subset: learn from so many of the training images (int) or such a share of them (float), drawn by the seed and the images' names;
            as many of each class as can be, where labels are read.
        cache: a folder in which decoded images are kept, or `auto` for one below the person's own; the images are the same with it and without.
        progress: called with (images decoded, images in all) now and then.

    Raises:
        DataError: too many files cannot be read; also when there is nothing usable at `root`, or labels are asked for that do not exist.
    """
    from headsearch.data.load import load

    return load(
        dataset,
        root=root,
        image_size=image_size,
        channels=channels,
        labels=labels,
        seed=seed,
        prefer=prefer,
        min_train_images=min_train_images,
        memory_limit=memory_limit,
        unreadable=unreadable,
        subset=subset,
        cache=cache,
        progress=progress,
    )
