"""From an image file to a square of uint8 RGB pixels (the canvas), and many of them in parallel.

The canvas keeps the centre square of an image. Its side is the images' own where they are small, and image_size * 8/7
where they are large: room for random crops, and the usual 87.5 % centre crop for evaluation.
"""

from __future__ import annotations

import os
import statistics
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.Image import Resampling, Transpose
from torch import Tensor

DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on broken files."""

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

_CHUNK = 32
"""Images a thread decodes between two reports of progress."""


class CorruptImage(Exception):
    """An image that cannot be decoded. `str(error)` is the reason."""


class Source(Protocol):
    """Images by number, decoded only when asked for."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call the image in messages; the same on every machine, since the held-out cut is keyed by it."""

    def size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels, without decoding where possible. Raises `CorruptImage`."""

    def read(self, index: int, canvas: int) -> NDArray[np.uint8]:
        """Pixels [canvas, canvas, 3]. Raises `CorruptImage`."""


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def header_size(file: BinaryIO | str) -> tuple[int, int]:
    """Width and height of an image file, from its header. Raises `CorruptImage`."""
    try:
        with Image.open(file) as image:
            return image.size
    except DECODER_ERRORS as error:
        raise CorruptImage(_reason(error)) from error


def decode_file(file: BinaryIO | str, canvas: int) -> NDArray[np.uint8]:
    """The centre square of an image file, upright, as RGB [canvas, canvas, 3]. Raises `CorruptImage`.

    JPEG files much larger than the canvas are decoded at 1/2, 1/4 or 1/8 of their size.
    """
    try:
        with Image.open(file) as image:
            image.draft("RGB", (canvas, canvas))
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
            return to_canvas(image, canvas, orientation)
    except DECODER_ERRORS as error:
        raise CorruptImage(_reason(error)) from error


def to_canvas(image: Image.Image, canvas: int, orientation: int = 1) -> NDArray[np.uint8]:
    """Centre square of `image`, resized with an antialiased bilinear filter, as RGB [canvas, canvas, 3].

    `orientation` is the EXIF code; turning the finished square is the same as turning the image first, and cheaper.
    """
    rgb = _as_rgb(image)
    width, height = rgb.size
    if (width, height) != (canvas, canvas):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        rgb = rgb.resize((canvas, canvas), Resampling.BILINEAR, box=(left, top, left + side, top + side))
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    return np.asarray(rgb)


def _as_rgb(image: Image.Image) -> Image.Image:
    """RGB; transparency is laid over white, 16-bit grey keeps its upper 8 bits."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range; expected 8 or 16 bits a channel")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def choose_canvas(source: Source, image_size: int) -> int:
    """Side of the canvas for a source: 33 images spread over it are looked at; broken ones have no say."""
    sides = []
    for index in np.linspace(0, len(source) - 1, num=min(33, len(source))).astype(int):
        try:
            sides.append(min(source.size(int(index))))
        except CorruptImage:
            continue
    return canvas_side(sides, image_size)


def canvas_side(sides: Sequence[int], image_size: int) -> int:
    """Side of the canvas: the median of the images' shorter sides, but image_size at least and image_size * 8/7 at most."""
    native = int(statistics.median(sides)) if sides else image_size
    return min(max(native, image_size), round(image_size * 8 / 7))


def decode_all(
    source: Source,
    indices: Sequence[int],
    canvas: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, list[int], list[str]]:
    """Decode images in a pool of threads; the result does not depend on their number or timing.

    Returns:
        uint8 pixels [N, 3, canvas, canvas] in the order of `indices`, the indices that could be read, and
        `name: reason` of those that could not. `progress` is called with the number of images done since the last call.
    """
    pixels = np.empty((len(indices), 3, canvas, canvas), dtype=np.uint8)

    def decode(start: int) -> list[tuple[int, str]]:
        failed = []
        for row in range(start, min(start + _CHUNK, len(indices))):
            try:
                pixels[row] = source.read(indices[row], canvas).transpose(2, 0, 1)
            except CorruptImage as error:
                failed.append((row, f"{source.name(indices[row])}: {error}"))
        return failed

    failures: dict[int, str] = {}
    with ThreadPoolExecutor(max_workers=cores()) as pool:
        for start, failed in zip(
            range(0, len(indices), _CHUNK), pool.map(decode, range(0, len(indices), _CHUNK)), strict=True
        ):
            failures.update(failed)
            if progress is not None:
                progress(min(_CHUNK, len(indices) - start))
    images = torch.from_numpy(pixels)
    kept = [row for row in range(len(indices)) if row not in failures]
    if failures:
        _move_forward(images, kept)
    return images[: len(kept)], [indices[row] for row in kept], list(failures.values())


def _move_forward(images: Tensor, kept: Sequence[int]) -> None:
    """Close the gaps in place, without a second copy of all pixels: row i becomes row kept[i], and kept[i] >= i."""
    rows = torch.tensor(kept, dtype=torch.long)
    for start in range(0, len(rows), 1024):
        source_rows = rows[start : start + 1024]
        images[start : start + len(source_rows)] = images[source_rows]


def _reason(error: BaseException) -> str:
    """One line of why an image cannot be read, without the file's name."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
