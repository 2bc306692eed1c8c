"""Image folders: class folders, with or without train and test folders above them, or a flat folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from headsearch.data.collection import Collection, Part
from headsearch.data.names import held_out_names
from headsearch.data.sources import FileSource
from headsearch.errors import DataError, LabelsMissing

EXTENSIONS = frozenset(
    [
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
"""Files with other endings are not images to us, and are ignored."""

_TRAIN = "train"


def folder(root: Path, with_labels: bool, prefer: Literal["val", "test"] = "val") -> Collection:
    """List the images below `root`.

    `root/train` and one of `root/{val,valid,validation,test}` are the splits when there is nothing else in `root`; below
    them, or below `root` itself, a class is a folder with images in it or further down. Without labels all images count,
    wherever they lie. Hidden files and folders and files that are not images are ignored.

    Raises:
        DataError: `root` is missing or has no images; labels are wanted and there are no class folders.
    """
    if not root.is_dir():
        raise DataError(f"data.root: no folder '{root}'" + (", it is a file" if root.exists() else ""))
    files = sorted(_image_files(root))
    if not files:
        raise DataError(
            f"data.root: no images in '{root}'; expected files ending in .jpg, .png, .webp, ... there or in its subfolders"
        )
    tops = {file.split("/", 1)[0] if "/" in file else "" for file in files}
    names = held_out_names(prefer)
    if _TRAIN in tops and tops <= {_TRAIN, *names}:
        held_out = next((name for name in names if name in tops), None)
        return _split_folders(root, files, held_out, with_labels)
    if not with_labels:
        return Collection(Part(FileSource(root, files), None), None, None)
    classes, skipped = _classes(root, files, "")
    train = [file for file in files if "/" in file]
    return Collection(_labelled(root, train, "", classes), None, classes, skipped)


def _split_folders(root: Path, files: list[str], held_out: str | None, with_labels: bool) -> Collection:
    train_files = [file for file in files if file.startswith(f"{_TRAIN}/")]
    test_files = [file for file in files if held_out is not None and file.startswith(f"{held_out}/")]
    if not with_labels:
        test = Part(FileSource(root, test_files), None) if test_files else None
        return Collection(Part(FileSource(root, train_files), None), test, None)
    classes, skipped = _classes(root, train_files, f"{_TRAIN}/")
    in_classes = [file for file in train_files if file.count("/") > 1]
    train = _labelled(root, in_classes, f"{_TRAIN}/", classes)
    if held_out is None:
        return Collection(train, None, classes, skipped)
    test_classes, test_skipped = _classes(root, test_files, f"{held_out}/")
    unknown = sorted(set(test_classes) - set(classes))
    if unknown:
        raise DataError(
            f"data.root: class folder '{root / held_out / unknown[0]}' has no images in '{root / _TRAIN}'"
        )
    test = _labelled(root, [file for file in test_files if file.count("/") > 1], f"{held_out}/", classes)
    return Collection(train, test, classes, skipped + test_skipped)


def _classes(root: Path, files: list[str], prefix: str) -> tuple[list[str], list[str]]:
    """Class names, sorted, and a reason for every file beside the class folders."""
    inner = [file.removeprefix(prefix) for file in files]
    classes = sorted({file.split("/", 1)[0] for file in inner if "/" in file})
    if not classes:
        raise LabelsMissing(
            f"data.labels: 'probe' needs class folders with images in '{root / prefix}', which is flat",
            "set data.labels to none, or sort the images into a folder per class",
        )
    return classes, [f"{prefix}{file}: not in a class folder" for file in inner if "/" not in file]


def _labelled(root: Path, files: list[str], prefix: str, classes: list[str]) -> Part:
    number = {name: index for index, name in enumerate(classes)}
    return Part(
        FileSource(root, files), [number[file.removeprefix(prefix).split("/", 1)[0]] for file in files]
    )


def _image_files(
    root: Path, prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[str]:
    """POSIX paths of images below `root`; follows links to folders, except back up into a folder it is inside of."""
    here = (root / prefix).stat()
    inside = above | {(here.st_dev, here.st_ino)}
    try:
        entries = list(os.scandir(root / prefix))
    except PermissionError as error:
        raise DataError(f"data.root: cannot read folder '{root / prefix}': {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            status = entry.stat()
            if (status.st_dev, status.st_ino) not in inside:
                yield from _image_files(root, f"{prefix}{entry.name}/", inside)
        elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:  # noqa: PTH122 (a Path per file is slow)
            yield f"{prefix}{entry.name}"
