"""Images decoded once and kept on disk, for all trainings and processes that see the folder (`data.cache`).

A cache is a source in front of another one and gives the same pixels. An image that it lacks, or finds damaged, is decoded and then kept. So it
fills as images are first needed, and may be shared, interrupted or removed at any time. Only its creation is locked: all who write an image write the
same bytes, and its checksum last.

    <folder>/<key>/images.npy        [N, C, S, S], sparse: images that were never needed take no room
    <folder>/<key>/checksums.npy     uint32 [N]: CRC-32 of each image; 0 if it is not there
    <folder>/<key>/made_from.json    what the key is a hash of
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import features

from headsearch.data.decode import Fetching, Source
from headsearch.errors import DataError
from headsearch.files import versions, write_atomically

_FORMAT = "headsearch/images@1"
"""Must change whenever the pixels of a canvas do."""
_DECODERS = ("pillow", "torch", "tifffile", "imagecodecs")
_MADE_FROM = "made_from.json"


@runtime_checkable
class Versioned(Source, Protocol):
    """A source that can tell whether its images have changed."""

    def stamps(self) -> Iterable[str]:
        """For every image, a text that differs between versions of it under one name."""


def cache_folder(cache: str) -> Path:
    """Where the caches of `data.cache` lie; those of `auto` in the person's own folder of caches."""
    if cache != "auto":
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headsearch" / "images"


class Cached:
    """A source whose images come from its cache, or are put there."""

    def __init__(self, source: Versioned, canvas: int, folder: Path) -> None:
        """Open the source's cache below `folder`, or make a new one.

        Raises:
            DataError: the folder cannot be used.
        """
        self.source, self.canvas = source, canvas
        self.channels, self.dtype = source.channels, source.dtype
        self.trouble = ""
        """One line about images that had to be decoded again or could not be kept; empty if all is well."""
        made_from = _made_from(source, canvas)
        self.path = folder / hashlib.blake2b(made_from.encode(), digest_size=10).hexdigest()
        shape = (self.channels, canvas, canvas)
        self._images = _Entries(self.path / "images.npy", len(source), shape, self.dtype)
        self._checksums = _Entries(self.path / "checksums.npy", len(source), (), np.dtype("<u4"))
        try:
            self._open(made_from)
        except OSError as error:
            raise DataError(
                f"data.cache: '{folder}' cannot be used: {error.strerror or error}; expected a folder to write to, or null"
            ) from None
        self._is_writable = os.access(self._images.path, os.W_OK)

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """As the source says."""
        return self.source.name(index)

    def size(self, index: int) -> tuple[int, int]:
        """As the source says: of the image before it is decoded."""
        return self.source.size(index)

    def read(self, index: int, canvas: int) -> NDArray[Any]:
        """Pixels [canvas, canvas, channels], to the bit as the source gives them. Raises `CorruptImage`."""
        assert canvas == self.canvas
        pixels_CHW = self._found(index)
        if pixels_CHW is None:
            pixels_CHW = np.ascontiguousarray(self.source.read(index, canvas).transpose(2, 0, 1))
            self._keep(index, pixels_CHW)
        return pixels_CHW.transpose(1, 2, 0)

    def fetch(self, indices: Sequence[int]) -> None:
        """Have the source prepare to read the images that are not there."""
        if isinstance(self.source, Fetching):
            with contextlib.suppress(OSError):
                self.source.fetch([index for index in indices if not self._checksums.get(index)])

    def lacking(self, rows: Sequence[int]) -> tuple[int, int]:
        """How many of these images it does not hold yet, and the bytes that they would take."""
        lacking = int((self._checksums.load()[rows] == 0).sum())
        return lacking, lacking * self._images.entry_bytes

    def _found(self, index: int) -> NDArray[Any] | None:
        """The pixels [C, S, S] of an image; None if they are missing or damaged."""
        try:
            checksum = self._checksums.get(index)
            if not checksum:
                return None
            pixels_CHW = self._images.get(index)
        except OSError as error:
            self.trouble = f"data.cache: '{self.path}' cannot be read: {error.strerror or error}; its images are decoded again"
            return None
        if _checksum(pixels_CHW) == checksum:
            return pixels_CHW
        self.trouble = f"data.cache: damaged images in '{self.path}' were decoded again"
        return None

    def _keep(self, index: int, pixels_CHW: NDArray[Any]) -> None:
        if not self._is_writable:
            return
        try:
            self._images.put(index, pixels_CHW)
            self._checksums.put(index, _checksum(pixels_CHW))
        except OSError as error:
            self._is_writable = False
            self.trouble = f"data.cache: '{self.path}' cannot be written: {error.strerror or error}; what it lacks is decoded every time"

    def _open(self, made_from: str) -> None:
        """Make the cache if it is missing or damaged."""
        if self._is_whole(made_from):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.parent / ".lock"):
            if self._is_whole(made_from):
                return
            for left in self.path.parent.glob(".new-*"):
                # Of a process that was killed: nobody else is here.
                shutil.rmtree(left)
            if self.path.exists():
                self.trouble = f"data.cache: '{self.path}' was damaged and is made anew"
                self._remove()
            new = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=".new-"))
            for entries in (self._images, self._checksums):
                entries.create(new / entries.path.name)
            write_atomically(new / _MADE_FROM, made_from)
            new.chmod(0o755)
            new.rename(self.path)

    def _remove(self) -> None:
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink()

    def _is_whole(self, made_from: str) -> bool:
        try:
            found = (self.path / _MADE_FROM).read_text()
        except (OSError, UnicodeDecodeError):
            return False
        return found == made_from and self._images.are_whole() and self._checksums.are_whole()


class _Entries:
    """An array [N, ...] in a `.npy` file of which single entries are read and written, by any number of processes.

    The file is not mapped into memory: a disk that fails, or a file that is cut short, would then kill the process.
    """

    def __init__(self, path: Path, count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.count, self.shape, self.dtype = path, count, shape, dtype
        self.entry_bytes = math.prod(shape) * dtype.itemsize
        header = io.BytesIO()
        described = {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (count, *shape),
        }
        np.lib.format.write_array_header_1_0(header, described)
        self._header = header.getvalue()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_file"}

    def create(self, path: Path) -> None:
        """Write the file, all zeros, which take no room yet."""
        with path.open("xb") as file:
            file.write(self._header)
            file.truncate(len(self._header) + self.count * self.entry_bytes)

    def are_whole(self) -> bool:
        """Whether there is such a file."""
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return file.read(len(self._header)) == self._header and size == self._offset(self.count)
        return False

    def load(self) -> NDArray[Any]:
        """All entries."""
        return np.fromfile(self.path, self.dtype, offset=len(self._header)).reshape(self.count, *self.shape)

    def get(self, index: int) -> NDArray[Any]:
        """One entry. Raises `OSError`."""
        entry = np.empty(self.shape, self.dtype)
        content = entry.reshape(-1).view(np.uint8).data
        if os.preadv(self._file, [content], self._offset(index)) != self.entry_bytes:
            raise OSError("cut short")
        return entry

    def put(self, index: int, entry: NDArray[Any]) -> None:
        """Write one entry. Raises `OSError`."""
        rest = memoryview(entry.tobytes())
        offset = self._offset(index)
        while rest:
            written = os.pwrite(self._file, rest, offset)
            rest, offset = rest[written:], offset + written

    def _offset(self, index: int) -> int:
        return len(self._header) + index * self.entry_bytes

    @functools.cached_property
    def _file(self) -> int:
        """Its descriptor. Entries are read at offsets, so that threads and forked processes may share it."""
        descriptor = os.open(self.path, os.O_RDWR if os.access(self.path, os.W_OK) else os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        return descriptor


def _checksum(pixels: NDArray[Any]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """CRC-32, as a single entry. Never 0, which stands for a missing image."""
    return np.array(zlib.crc32(pixels.data) or 1, "<u4")


def _made_from(source: Versioned, canvas: int) -> str:
    """Everything that the pixels depend on, as text."""
    images = hashlib.blake2b(digest_size=20)
    for index, stamp in enumerate(source.stamps()):
        images.update(f"{source.name(index)}\0{stamp}\0".encode(errors="surrogateescape"))
    decoders = versions(_DECODERS) | {"libjpeg-turbo": features.version("libjpeg_turbo")}
    del decoders["python"]
    described = {
        "format": _FORMAT,
        "canvas": canvas,
        "channels": source.channels,
        "dtype": source.dtype.name,
        "images": len(source),
        "digest": images.hexdigest(),
        "decoders": decoders,
    }
    return json.dumps(described, indent=1) + "\n"
