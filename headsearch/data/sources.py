"""Where undecoded images come from: files, arrays, and the items of someone else's data set."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from headsearch.data.decode import RGB, Pixels
from headsearch.data.opening import CorruptImage, failures_told

_TRIED = 33
"""Files of which one is hoped to be readable, and tells the type of all."""


class Files(ABC):
    """Images that are files, or opened like them."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.channels = pixels.channels

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def opened(self, index: int) -> AbstractContextManager[BinaryIO | str]:
        """A file, or its path."""

    def size(self, index: int) -> tuple[int, int]:
        """From the file's header."""
        with self.opened(index) as file:
            return self.pixels.size(file)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """That of the first image that can be read."""
        if self.pixels is RGB:
            return np.dtype(np.uint8)
        for index in range(min(len(self), _TRIED)):
            with contextlib.suppress(CorruptImage):
                return self._read(index, 1).dtype
        return np.dtype(np.uint8)

    def read(self, index: int, canvas: int) -> NDArray[Any]:
        """Decode one file."""
        pixels = self._read(index, canvas)
        if pixels.dtype != self.dtype:
            wide, eight = "more than 8 bits a channel", "8 bits a channel"
            is_wide = self.dtype == np.uint8
            raise CorruptImage(
                f"{wide if is_wide else eight}, where the others have {eight if is_wide else wide}"
            )
        return pixels

    def _read(self, index: int, canvas: int) -> NDArray[Any]:
        with self.opened(index) as file:
            return self.pixels.read(file, canvas)


class FileSource(Files):
    """Image files below a folder."""

    def __init__(self, root: Path, files: Sequence[str], pixels: Pixels = RGB) -> None:
        """`files` are POSIX paths relative to `root`."""
        super().__init__(pixels)
        self.root = root
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """The path relative to the root."""
        return self.files[index]

    def opened(self, index: int) -> AbstractContextManager[BinaryIO | str]:
        """The path."""
        return contextlib.nullcontext(str(self.root / self.files[index]))

    def stamps(self) -> Iterator[str]:
        """Size and time of the last change; nothing of a file that is not there."""
        for file in self.files:
            stamp = ""
            with contextlib.suppress(OSError):
                status = (self.root / file).stat()
                stamp = f"{status.st_size} {status.st_mtime_ns}"
            yield stamp


class ArraySource:
    """Images of one size in an array [N, H, W] or [N, H, W, C]: for RGB uint8 with C = 1, 3 or 4."""

    def __init__(self, images: NDArray[Any], label: str, pixels: Pixels = RGB) -> None:
        """`label` names the array in messages."""
        self.images = images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images
        self.label = label
        self.pixels = pixels
        self.channels = pixels.channels
        self.dtype: np.dtype[Any] = np.dtype(np.uint8 if images.dtype == np.uint8 else np.float32)

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """`label[index]`."""
        return f"{self.label}[{index}]"

    def size(self, index: int) -> tuple[int, int]:
        """The same for all."""
        return self.images.shape[2], self.images.shape[1]

    def read(self, index: int, canvas: int) -> NDArray[Any]:
        """Resize one image."""
        return self.pixels.from_array(self.images[index], canvas)


class ReaderSource(Files):
    """A timm reader: it hands out open files, so that large JPEGs need not be decoded in full."""

    def __init__(self, reader: Any, label: str, pixels: Pixels = RGB) -> None:
        super().__init__(pixels)
        self.reader = reader
        self.label = label

    def __len__(self) -> int:
        return len(self.reader)

    def name(self, index: int) -> str:
        """`label[index]`."""
        return f"{self.label}[{index}]"

    def opened(self, index: int) -> AbstractContextManager[BinaryIO | str]:
        """What the reader hands out. Raises `CorruptImage` for whatever the library behind it raises."""
        with failures_told():
            file: AbstractContextManager[BinaryIO] = self.reader[index][0]
            return file
