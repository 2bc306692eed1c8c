"""Where undecoded images come from: files, arrays, and the items of someone else's data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headsearch.data.decode import decode_file, header_size, to_canvas
from headsearch.data.opening import CorruptImage, reason


class FileSource:
    """Image files below a folder."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        """`files` are POSIX paths relative to `root`."""
        self.root = root
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """The path relative to the root."""
        return self.files[index]

    def size(self, index: int) -> tuple[int, int]:
        """From the file's header."""
        return header_size(str(self.root / self.files[index]))

    def read(self, index: int, canvas: int) -> NDArray[np.uint8]:
        """Decode one file."""
        return decode_file(str(self.root / self.files[index]), canvas)


class ArraySource:
    """Images of one size in an array: uint8 [N, H, W] grey or [N, H, W, C] with C = 1, 3 or 4."""

    def __init__(self, images: NDArray[np.uint8], label: str) -> None:
        """`label` names the array in messages."""
        self.images = images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images
        self.label = label

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """`label[index]`."""
        return f"{self.label}[{index}]"

    def size(self, index: int) -> tuple[int, int]:
        """The same for all."""
        return self.images.shape[2], self.images.shape[1]

    def read(self, index: int, canvas: int) -> NDArray[np.uint8]:
        """Resize one image."""
        return to_canvas(Image.fromarray(self.images[index]), canvas)


class ReaderSource:
    """A timm reader: it hands out open files, so that large JPEGs need not be decoded in full."""

    def __init__(self, reader: Any, label: str) -> None:
        self.reader = reader
        self.label = label

    def __len__(self) -> int:
        return len(self.reader)

    def name(self, index: int) -> str:
        """`label[index]`."""
        return f"{self.label}[{index}]"

    def size(self, index: int) -> tuple[int, int]:
        """From the file's header."""
        with self._open(index) as file:
            return header_size(file)

    def read(self, index: int, canvas: int) -> NDArray[np.uint8]:
        """Decode one file."""
        with self._open(index) as file:
            return decode_file(file, canvas)

    def _open(self, index: int) -> Any:
        try:
            return self.reader[index][0]
        except Exception as error:
            # Whatever the library behind a name raises for an item that it cannot hand out.
            raise CorruptImage(reason(error)) from error
