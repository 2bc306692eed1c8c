"""Image folders: class folders, perhaps with folders of splits above or below them, or a flat folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headsearch.data.collection import Collection, Part, Request
from headsearch.data.left_out import LeftOut
from headsearch.data.names import split_of, what_is
from headsearch.data.opening import ENDINGS, no_file
from headsearch.data.sources import FileSource
from headsearch.errors import DataError, LabelsMissing, printable


def folder(request: Request) -> Collection:
    """List the images below the request's root.

    Folders with the name of a split are splits (see `_level_of_splits`). Below them, or below the root itself, every folder with images in it or
    further down is a class. Without labels, all images of a split count, wherever they lie. Hidden files and folders, and files that are not images,
    are ignored.

    Raises:
        DataError: the root is missing or has no images; labels are wanted and there are no class folders; there is no split to train on.
    """
    root, pixels, left_out = request.root, request.pixels, LeftOut()
    assert root is not None
    layout = _layout(root, image_files(root, left_out, pixels.endings), request.prefer, left_out)
    train, held_out, classes = layout.train, layout.held_out, None
    train_labels = held_out_labels = None
    if request.labels:
        train, held_out = (_in_classes(part, left_out) for part in (train, held_out))
        classes = sorted({_class(inner) for inner in train.values()})
        where = root / layout.train_folder
        if not classes:
            raise LabelsMissing(
                f"data.labels: 'probe' needs class folders with images in '{where}', which is flat",
                "set data.labels to none, or sort the images into a folder per class",
            )
        number = {name: index for index, name in enumerate(classes)}
        unknown = next((file for file, inner in held_out.items() if _class(inner) not in number), None)
        if unknown is not None:
            raise DataError(f"data.root: class folder '{(root / unknown).parent}' has no images in '{where}'")
        train_labels, held_out_labels = (
            [number[_class(inner)] for inner in part.values()] for part in (train, held_out)
        )
    return Collection(
        Part(FileSource(root, list(train), pixels), train_labels),
        Part(FileSource(root, list(held_out), pixels), held_out_labels) if layout.held_out else None,
        None if classes is None else [printable(name) for name in classes],
        layout.text,
        left_out,
    )


@dataclass(frozen=True)
class _Layout:
    train: dict[str, str]
    """By file: its path below the split, which begins with its class."""
    held_out: dict[str, str]
    train_folder: str
    """Relative to the root; empty where the root itself is trained on."""
    text: str


def _layout(root: Path, files: list[str], prefer: Literal["val", "test"], left_out: LeftOut) -> _Layout:
    """The images to train on and those to hold out. Images outside of the splits are left out."""
    paths = [file.split("/") for file in files]
    found = _level_of_splits(root, paths)
    if found is None:
        text = "folders" if any(len(path) > 1 for path in paths) else "a flat folder"
        return _Layout(dict(zip(files, files, strict=True)), {}, "", text)
    skip, level = found
    kinds = {path[level]: split_of(path[level]) for path in paths if len(path) > level + 1}
    held = prefer if prefer in kinds.values() else "test" if prefer == "val" else "val"
    has_train = "train" in kinds.values()
    train: dict[str, str] = {}
    held_out: dict[str, str] = {}
    train_folder = ""
    for file, path in zip(files, paths, strict=True):
        kind = kinds[path[level]] if len(path) > level + 1 else None
        below = "/".join(path[skip:level] + path[level + 1 :])
        if kind == held:
            held_out[file] = below
        elif kind == "train":
            train[file] = below
            train_folder = "/".join(path[: level + 1]) if skip == level else ""
        elif kind is None and not has_train and len(path) > level + 1:
            train[file] = "/".join(path[skip:])
        elif kind is None:
            left_out.beside[file] = "not in a folder of a split"
    named = {
        kind: ", ".join(f"'{printable(name)}'" for name in sorted(kinds) if kinds[name] == kind)
        for kind in ("train", "val", "test")
    }
    other = "test" if held == "val" else "val"
    parts = [f"training in {named['train'] or 'the other folders'}"]
    parts += [f"held out in {named[held]}"] if named[held] else []
    parts += [f"{named[other]} not used"] if named[other] else []
    return _Layout(train, held_out, train_folder, ", ".join(parts))


def _level_of_splits(root: Path, paths: Sequence[list[str]]) -> tuple[int, int] | None:
    """How many folders wrap the data set, and at which depth its folders of splits are; None where there are none.

    They are its top folders (`train/cat/1.jpg`) or in each of them (`cat/train/1.jpg`).
    """
    skip = 0
    while True:
        deeper = [path[skip:] for path in paths if len(path) > skip + 1]
        inside: dict[str, set[str | None]] = {path[0]: set() for path in deeper}
        for path in deeper:
            if len(path) > 2:
                inside[path[0]].add(split_of(path[1]))
        if _are_splits(root, set(inside), deeper):
            return skip, skip
        if (
            len(inside) > 1
            and all("train" in kinds for kinds in inside.values())
            and any(kinds & {"val", "test"} for kinds in inside.values())
        ):
            return skip, skip + 1
        if len(inside) != 1:
            return None
        skip += 1


def _are_splits(root: Path, tops: set[str], paths: Sequence[list[str]]) -> bool:
    """Whether some of these top folders are splits, and not classes that happen to be called so.

    `train` with `val`, or with nothing else, is a split; with `test` and other folders only if it has folders of its own. Without a
    `train`, a `val` or `test` whose folders are called like the others is held out from them.
    """
    kinds = {split_of(top) for top in tops}
    others = {top for top in tops if split_of(top) is None}
    below = [path for path in paths if split_of(path[0]) == "train"]
    if below:
        return "val" in kinds or not others or ("test" in kinds and all(len(path) > 2 for path in below))
    held = [path for path in paths if split_of(path[0]) is not None]
    if not others and len(tops) > 1:
        raise DataError(
            f"data.root: '{root}' has {' and '.join(sorted(tops))} but no train; give the folder to learn from as data.root"
        )
    return bool(held) and all(len(path) > 2 and path[1] in others for path in held)


def _in_classes(part: dict[str, str], left_out: LeftOut) -> dict[str, str]:
    """The files that lie in a class folder; the others are left out."""
    left_out.beside |= {file: "not in a class folder" for file, inner in part.items() if "/" not in inner}
    return {file: inner for file, inner in part.items() if "/" in inner}


def _class(inner: str) -> str:
    return inner.split("/", 1)[0]


def image_files(root: Path, left_out: LeftOut, endings: frozenset[str] = ENDINGS) -> list[str]:
    """POSIX paths of the files below `root` with one of the endings, sorted. Anything with such a name that is not a file is added to `left_out`.

    Raises:
        DataError: `root` or a folder below it cannot be read, or there are no images.
    """
    shown = printable(str(root))
    if (found := what_is(root)) != "folder":
        raise DataError(f"data.root: no folder '{shown}'" + (f", it is a {found}" if found else ""))
    files = sorted(_image_files(root, left_out, endings))
    if not files:
        others = {
            ".npy": "files are read where data.channels is their number of bands",
            ".tar": "shards are read with data.dataset: webdataset",
        }
        hints = [
            f"; its {ending} {how}"
            for ending, how in others.items()
            if ending not in endings and any(root.rglob(f"*{ending}"))
        ]
        raise DataError(
            f"data.root: no images in '{shown}'; expected files ending in .jpg, .png, .webp, ... there or in its subfolders"
            + "".join([*hints, *(f"; {line}" for line in left_out.told())])
        )
    return files


def _image_files(
    root: Path,
    left_out: LeftOut,
    endings: frozenset[str],
    prefix: str = "",
    above: frozenset[tuple[int, int]] = frozenset(),
) -> Iterator[str]:
    """Follows links to folders, except back up into a folder it is inside of."""
    try:
        here = (root / prefix).stat()
        entries = list(os.scandir(root / prefix))
    except OSError as error:
        where = printable(str(root / prefix))
        raise DataError(f"data.root: cannot read folder '{where}': {error.strerror}") from error
    inside = above | {(here.st_dev, here.st_ino)}
    for entry in entries:
        if entry.name.startswith("."):
            continue
        is_image = os.path.splitext(entry.name)[1].lower() in endings  # noqa: PTH122 (a Path per file is slow)
        try:
            status = entry.stat() if entry.is_symlink() or not entry.is_file() else None
        except OSError as error:
            # A link; where to is unknown, so its name says nothing.
            left_out.unreadable[f"{prefix}{entry.name}"] = f"a link that leads nowhere: {error.strerror}"
            continue
        if status is None or stat.S_ISREG(status.st_mode):
            if is_image:
                yield f"{prefix}{entry.name}"
        elif stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) not in inside:
                yield from _image_files(root, left_out, endings, f"{prefix}{entry.name}/", inside)
        elif is_image:
            left_out.unreadable[f"{prefix}{entry.name}"] = no_file(status.st_mode)
