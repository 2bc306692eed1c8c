"""Where undecoded images come from: files, arrays, and the items of someone else's data set."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headsearch.data.decode import RGB, Pixels
from headsearch.data.opening import CorruptImage, failures_told

_TRIED = 33
"""How many files are tried to find a readable one, which shows the type of all."""


class _Undecoded(ABC):
    """Images that are decoded only when asked for. Their type is that of the first readable one."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.channels = pixels.channels

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _read(self, index: int, canvas: int) -> NDArray[Any]: ...

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
        """Decode one image."""
        pixels = self._read(index, canvas)
        if pixels.dtype != self.dtype:
            wide, eight = "more than 8 bits a channel", "8 bits a channel"
            is_wide = self.dtype == np.uint8
            raise CorruptImage(
                f"{wide if is_wide else eight}, where the others have {eight if is_wide else wide}"
            )
        return pixels


class Files(_Undecoded):
    """Images that are files, or opened like them."""

    @abstractmethod
    def opened(self, index: int) -> AbstractContextManager[BinaryIO | str]:
        """A file, or its path."""

    def size(self, index: int) -> tuple[int, int]:
        """From the file's header."""
        with self.opened(index) as file:
            return self.pixels.size(file)

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
        """Size and time of the last change; empty for a missing file."""
        for file in self.files:
            stamp = ""
            with contextlib.suppress(OSError):
                status = (self.root / file).stat()
                stamp = f"{status.st_size} {status.st_mtime_ns}"
            yield stamp


class Items(Protocol):
    """A sequence, as far as it is needed: its images may be made when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class ItemSource(_Undecoded):
    """Images of a sequence: Pillow's, arrays [H, W] or [H, W, C], paths, or open files; or an array [N, H, W] or [N, H, W, C] of them all."""

    def __init__(self, items: Items, label: str, pixels: Pixels = RGB) -> None:
        """`label` is what the sequence is called in messages."""
        super().__init__(pixels)
        self.items = items
        self.label = label

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """That of an array of them all, whether or not its first images can be used."""
        if isinstance(self.items, np.ndarray) and self.pixels is not RGB:
            return np.dtype(np.uint8 if self.items.dtype == np.uint8 else np.float32)
        return super().dtype

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """`label[index]`."""
        return f"{self.label}[{index}]"

    def size(self, index: int) -> tuple[int, int]:
        """Of a file from its header."""
        item = self._item(index)
        if isinstance(item, Image.Image):
            return item.size
        array = isinstance(item, np.ndarray)
        return self.pixels.array_size(item.shape) if array else self.pixels.size(item)

    def _read(self, index: int, canvas: int) -> NDArray[Any]:
        item = self._item(index)
        with failures_told():
            if isinstance(item, Image.Image):
                return self.pixels.from_image(item, canvas)
            if isinstance(item, np.ndarray):
                return self.pixels.from_array(item, canvas)
        return self.pixels.read(item, canvas)

    def _item(self, index: int) -> Any:
        """An image, an array of two or three dimensions, or a file. Raises `CorruptImage` for whatever the sequence raises."""
        with failures_told():
            item = self.items[index]
        if isinstance(item, str | PathLike):
            return os.fspath(item)
        if isinstance(item, np.ndarray) and item.ndim == 3 and item.shape[-1] == 1:
            item = item[..., 0]
        is_array = isinstance(item, np.ndarray) and item.ndim in (2, 3)
        if not is_array and not isinstance(item, Image.Image) and not hasattr(item, "read"):
            shape = f" of shape {item.shape}" if isinstance(item, np.ndarray) else ""
            raise CorruptImage(
                f"a {type(item).__name__}{shape}; expected an image, an array [H, W] or [H, W, C], or a file"
            )
        return item
