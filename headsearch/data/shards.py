"""Tar shards as WebDataset has them (`data.dataset: webdataset`), on this machine or behind whatever fsspec opens: HTTP, S3, ...

A tar file is read once from beginning to end, to find where each image lies. From then on an image is a range of bytes, like a file: order, splits,
resuming, and the division among ranks and workers are those of a folder, and nothing has to fit into memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import re
import tarfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headsearch.data.collection import Collection, Part, Request
from headsearch.data.decode import RGB, Pixels
from headsearch.data.names import check_address, split_of
from headsearch.data.opening import MOST_BYTES, CorruptImage, failures_told, reason
from headsearch.data.sources import Files
from headsearch.errors import DataError, LabelsMissing, printable
from headsearch.files import MAX_BYTES, checked, load_json, write_atomically

_FORMAT = "headsearch/shards@1"
_AT_ONCE = 16
"""Shards that are looked through at the same time."""
_TRIES = 3
"""Of a range of bytes: a network fails now and then."""
_BLOCK = 2**23
"""Bytes that are asked for at a time while a shard is looked through."""
_VERSION_KEYS = ("size", "mtime", "created", "ETag", "LastModified", "Last-Modified", "md5", "etag")
"""What file systems report of a file that changes with its content."""
_LABEL_KEYS = ("cls", "label")
"""Of a sample's `.json`, where it has no `.cls`."""


@dataclass(frozen=True)
class Shard:
    """One tar file, looked through."""

    url: str
    stamp: str
    """Changes with its content."""
    names: list[str]
    """Of the images in it."""
    ranges: list[tuple[int, int]]
    """Where each begins, and how many bytes it has."""
    labels: list[int] | None
    """Class numbers; None where they are not read."""


class ShardSource(Files):
    """The images of some shards."""

    def __init__(self, shards: Sequence[Shard], folder: str, pixels: Pixels = RGB) -> None:
        """`folder` is what the shards' addresses have in common; names leave it out."""
        super().__init__(pixels)
        self.shards = shards
        self.folder = folder
        self._fetched: dict[int, bytes] = {}
        self._places = [
            (number, row) for number, shard in enumerate(shards) for row in range(len(shard.names))
        ]

    def __len__(self) -> int:
        return len(self._places)

    def name(self, index: int) -> str:
        """The shard, and the image's name in it."""
        number, row = self._places[index]
        shard = self.shards[number]
        return f"{shard.url.removeprefix(self.folder)}/{shard.names[row]}"

    def opened(self, index: int) -> AbstractContextManager[BinaryIO | str]:
        """The bytes of one image. Raises `CorruptImage` where they cannot be had."""
        number, row = self._places[index]
        shard = self.shards[number]
        start, size = shard.ranges[row]
        content = self._fetched.pop(index, None)
        if size > MOST_BYTES:
            raise CorruptImage(f"{size / 2**30:.1f} GiB, more than {MOST_BYTES // 2**30}")
        if content is None:
            with failures_told():
                content = _bytes(shard.url, start, start + size)
        return contextlib.nullcontext(io.BytesIO(content))

    def fetch(self, indices: Sequence[int]) -> None:
        """Request all of them from a server at once."""
        if not indices or "://" not in self.shards[0].url:
            return
        system, _ = fsspec.url_to_fs(self.shards[0].url)
        places = [self._places[index] for index in indices]
        if sum(self.shards[number].ranges[row][1] for number, row in places) > MOST_BYTES:
            return
        paths = [system._strip_protocol(self.shards[number].url) for number, _ in places]
        starts, sizes = zip(*(self.shards[number].ranges[row] for number, row in places), strict=True)
        ends = [start + size for start, size in zip(starts, sizes, strict=True)]
        found = system.cat_ranges(paths, list(starts), ends, on_error="return")
        self._fetched |= {
            index: content
            for index, content in zip(indices, found, strict=True)
            if isinstance(content, bytes)
        }

    def stamps(self) -> Iterator[str]:
        """The version of the shard, and where the image lies in it."""
        for number, row in self._places:
            start, size = self.shards[number].ranges[row]
            yield f"{self.shards[number].stamp} {start} {size}"


def webdataset(request: Request) -> Collection:
    """Look through shards.

    The request's address is a folder, or that of shards with braces (`{000..127}`, `{a,b}`) and `*`; anything that fsspec opens. Class numbers come
    from `.cls` or from `cls` or `label` in `.json`, splits from the names of shards or of their folders. In the request's cache is kept where images lie,
    so that shards need not be looked through again.

    Raises:
        DataError: there are no shards, or no images in them; one cannot be read to its end.
        LabelsMissing: labels are wanted, and a sample has none.
    """
    assert request.address is not None
    urls = _found(request.address)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        shards = list(pool.map(lambda url: _looked_through(url, request), urls))
    levels = zip(*(url.split("/")[:-1] for url in urls), strict=False)
    folder = "".join(
        f"{level[0]}/" for level in itertools.takewhile(lambda level: len(set(level)) == 1, levels)
    )
    splits = [_split(url.removeprefix(folder)) for url in urls]
    held_out = next((split for split in (request.prefer, "val", "test") if split in splits), None)
    chosen = [shard for shard, split in zip(shards, splits, strict=True) if split in ("train", None)]
    if not any(shard.names for shard in chosen):
        shown = printable(request.address)
        raise DataError(f"data.root: no images to train on in {len(urls):,} shards of '{shown}'")
    rest = [shard for shard, split in zip(shards, splits, strict=True) if split and split == held_out]

    def part(of: Sequence[Shard]) -> Part:
        labels = [label for shard in of for label in shard.labels or ()] if request.labels else None
        return Part(ShardSource(of, folder, request.pixels), labels)

    train, other = part(chosen), part(rest) if rest else None
    numbers = [*(train.labels or ()), *(other.labels or () if other else ())]
    return Collection(
        train,
        other,
        [str(number) for number in range(max(numbers) + 1)] if request.labels else None,
        f"{len(chosen):,} shard{'s' * (len(chosen) > 1)}"
        + (f" to train on, {len(rest):,} of '{held_out}'" if rest else ""),
    )


def _found(root: str) -> list[str]:
    """Addresses of shards, in order."""
    check_address(root)
    urls: list[str] = []
    for pattern in _without_braces(root):
        try:
            # Of any kind: each file system has errors of its own, and fsspec says which package a protocol needs, and which protocols there are.
            with failures_told():
                system, path = fsspec.url_to_fs(pattern)
                if "*" in path:
                    paths = system.glob(path)
                elif not path.partition("?")[0].endswith(".tar") and system.isdir(path):
                    paths = [found for found in system.find(path) if found.endswith(".tar")]
                else:
                    paths = [path]
        except CorruptImage as error:
            raise DataError(f"data.root: '{printable(pattern)}' cannot be read: {error}") from None
        is_local = isinstance(system, LocalFileSystem)
        urls += [found if is_local else system.unstrip_protocol(found) for found in sorted(paths)]
    if not urls:
        raise DataError(f"data.root: no .tar files in '{printable(root)}'")
    return list(dict.fromkeys(urls))


def _without_braces(pattern: str) -> list[str]:
    """All that a pattern with braces stands for.

    >>> _without_braces("{a,b}-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    braces = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if braces is None:
        return [pattern]
    first, last, listed = braces.groups()
    choices = (
        listed.split(",")
        if listed
        else [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    )
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [before + choice + rest for choice in choices for rest in _without_braces(after)]


def _split(name: str) -> str | None:
    """The split that a shard's folder, or a word of its name, is named after."""
    words = re.split(r"[/._-]", name.removesuffix(".tar"))
    return next((split for word in words if (split := split_of(word)) is not None), None)


def _looked_through(url: str, request: Request) -> Shard:
    endings, kept = request.pixels.endings, request.cache
    try:
        with failures_told():
            system, path = fsspec.url_to_fs(url)
            info = system.info(path)
            stamp = " ".join(str(info[key]) for key in _VERSION_KEYS if info.get(key) is not None)
            shard = Shard(url, stamp, [], [], [] if request.labels else None)
            if kept is None:
                return _scanned(system, path, shard, endings, info["size"])
            described = json.dumps([_FORMAT, url, stamp, request.labels, sorted(endings)])
            file = kept / f"shard-{hashlib.blake2b(described.encode(), digest_size=10).hexdigest()}.json"
            with contextlib.suppress(OSError, ValueError, TypeError):
                return checked(Shard, load_json(file.read_text()))
            shard = _scanned(system, path, shard, endings, info["size"])
            with contextlib.suppress(OSError):
                # The cache itself says what is wrong with its folder.
                kept.mkdir(parents=True, exist_ok=True)
                write_atomically(file, json.dumps(vars(shard)))
            return shard
    except CorruptImage as error:
        raise DataError(f"data.root: shard '{printable(url)}' cannot be read: {error}") from None


def _scanned(system: Any, path: str, shard: Shard, endings: frozenset[str], size: int) -> Shard:
    """Fill a shard from its file."""
    known: dict[str, int] = {}
    """Labels by key."""
    keys: list[str] = []
    with system.open(path, "rb", block_size=_BLOCK) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    folder, slash, base = name.rpartition("/")
                    stem, _, ending = base.partition(".")
                    key = folder + slash + stem
                    if not member.isfile() or base.startswith("."):
                        continue
                    if f".{ending.lower()}" in endings:
                        if keys[-1:] == [key]:
                            raise DataError(
                                f"data.root: shard '{printable(shard.url)}': sample '{printable(key)}' has two images"
                            )
                        keys.append(key)
                        shard.names.append(name)
                        shard.ranges.append((member.offset_data, member.size))
                    elif shard.labels is not None and ending.lower() in ("cls", "json"):
                        content = tar.extractfile(member)
                        assert content is not None
                        label = _label(content.read(MAX_BYTES), ending.lower())
                        if label is not None and (ending.lower() == "cls" or key not in known):
                            known[key] = label
                end = tar.offset
        except tarfile.ReadError as error:
            raise DataError(_ends_early(shard, reason(error))) from None
    if end + tarfile.BLOCKSIZE > size:
        raise DataError(_ends_early(shard, "there is no end mark"))
    if shard.labels is not None:
        missing = next((key for key in keys if key not in known), None)
        if missing is not None:
            raise LabelsMissing(
                f"data.labels: sample '{printable(missing)}' of shard '{printable(shard.url)}' has no class number in .cls, nor as "
                f"{' or '.join(_LABEL_KEYS)} in .json",
                "set data.labels to none",
            )
        shard.labels.extend(known[key] for key in keys)
    return shard


def _ends_early(shard: Shard, why: str) -> str:
    return f"data.root: shard '{printable(shard.url)}' ends early, after {len(shard.names):,} images: {why}; expected a whole tar file, not compressed"


def _label(content: bytes, kind: str) -> int | None:
    """The class number that a `.cls` or `.json` holds; None where there is none."""
    try:
        if kind == "cls":
            number = int(content)
        else:
            data = json.loads(content)
            number = next(data[key] for key in _LABEL_KEYS if key in data)
    except (ValueError, TypeError, StopIteration):
        return None
    return number if isinstance(number, int) and number >= 0 else None


def _bytes(url: str, start: int, end: int) -> bytes:
    """A range of a file. Raises what the file system raises, after some tries."""
    # Asked for anew: fsspec keeps one for each process, and a fork must not use its parent's.
    system, path = fsspec.url_to_fs(url)
    for left in reversed(range(_TRIES)):
        try:
            content: bytes = system.cat_file(path, start=start, end=end)
            return content
        except FileNotFoundError:
            raise
        except Exception:
            if not left:
                raise
            time.sleep(2.0 ** (_TRIES - 1 - left) / 4)
    raise AssertionError
