"""Images that are not RGB: any number of bands with any range of values. Nothing is converted or clipped.

Read are arrays (`.npy`), TIFF files with any number of bands, pages or bits, and other formats as far as they are lossless: grey of 8, 16 or 32 bits,
and red, green, blue and alpha of 8 bits. 8 bits stay uint8, everything else becomes float32.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from headsearch.data.decode import centre_square
from headsearch.data.opening import ENDINGS, CorruptImage, failures_told, opened, stream
from headsearch.errors import require

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How TIFF and BigTIFF files begin."""
_HEADER_BYTES = 2**16
"""The header of an array must end within so many bytes."""
_MOST_BYTES = 2**30
"""Of a TIFF file's decoded pixels."""
_GREY = ("L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_EIGHT_BITS = ("PNG", "JPEG", "WEBP", "BMP", "TGA")
"""Formats whose colours Pillow reads without loss. Of deeper formats it keeps the upper 8 bits."""

# What tifffile has to say about a file is said as the reason for leaving it out.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Bands:
    """`Pixels` of so many bands."""

    channels: int

    @property
    def endings(self) -> frozenset[str]:
        """Those of images, and `.npy`."""
        return ENDINGS | {".npy"}

    def size(self, file: BinaryIO | str, /) -> tuple[int, int]:
        """Width and height, from the file's header. Raises `CorruptImage`."""
        with self._looked_at(file) as (size, _):
            return size

    def read(self, file: BinaryIO | str, canvas: int, /) -> NDArray[Any]:
        """The centre square [canvas, canvas, channels] of a file. Raises `CorruptImage`."""
        with self._looked_at(file) as (_, decode):
            return decode(canvas)

    @contextlib.contextmanager
    def _looked_at(
        self, file: BinaryIO | str
    ) -> Iterator[tuple[tuple[int, int], Callable[[int], NDArray[Any]]]]:
        """Width and height of a file's image, and what decodes its centre square. Errors inside become a `CorruptImage` too."""
        with failures_told(), stream(file) as found:
            start = found.read(6)
            found.seek(0)
            if start == np.lib.format.MAGIC_PREFIX:
                yield (
                    self.array_size(_header(found)),
                    lambda canvas: self.from_array(
                        np.lib.format.read_array(found, allow_pickle=False), canvas
                    ),
                )
            elif start[:4] in _TIFF:
                with _tiff(found) as (shape, decode):
                    yield self.array_size(shape), lambda canvas: self.from_array(decode(), canvas)
            else:
                with opened(found) as image:
                    yield image.size, lambda canvas: self.from_image(image, canvas)

    def from_image(self, image: Image.Image, canvas: int, /) -> NDArray[Any]:
        """The centre square of an image of Pillow's, upright. Raises `CorruptImage` for one of other bands, or whose depth Pillow does not keep."""
        is_deep = any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        if image.mode not in _GREY and (
            image.mode not in ("RGB", "RGBA") or image.format not in (None, *_EIGHT_BITS) or is_deep
        ):
            raise CorruptImage(
                f"{image.format} of mode {image.mode}{', 16 bits a channel' if is_deep else ''}; expected grey, or red, green, blue (and "
                "alpha) of 8 bits, or else a .tif or .npy file"
            )
        return self.from_array(np.asarray(ImageOps.exif_transpose(image)), canvas)

    def from_array(self, pixels: NDArray[Any], canvas: int, /) -> NDArray[Any]:
        """The centre square of [H, W, channels], [channels, H, W] or, of one band, [H, W], resized band by band. Raises `CorruptImage`."""
        height, width, first = self.layout(pixels.shape)
        check_values(pixels.dtype)
        bands = pixels.reshape(-1, height, width) if first else np.moveaxis(pixels, -1, 0)
        square = np.empty(
            (canvas, canvas, self.channels), np.uint8 if pixels.dtype == np.uint8 else np.float32
        )
        for number, band in enumerate(bands):
            with np.errstate(over="ignore"):  # infinite then, which is refused below
                plain = np.ascontiguousarray(band, dtype=square.dtype)
            square[..., number] = np.asarray(centre_square(Image.fromarray(plain), canvas))
        if not np.isfinite(square).all():
            raise CorruptImage("values that are not finite")
        return square

    def array_size(self, shape: tuple[int, ...], /) -> tuple[int, int]:
        """Width and height of an array of this shape. Raises `CorruptImage` as `layout` does."""
        height, width, _ = self.layout(shape)
        return width, height

    def layout(self, shape: tuple[int, ...]) -> tuple[int, int, bool]:
        """Height, width, and whether bands come first, of an array of this shape. Raises `CorruptImage` where it is no image of these bands."""
        if 0 not in shape:
            if len(shape) == 2 and self.channels == 1:
                return shape[0], shape[1], True
            if len(shape) == 3 and shape[2] == self.channels:
                return shape[0], shape[1], False
            if len(shape) == 3 and shape[0] == self.channels:
                return shape[1], shape[2], True
        raise CorruptImage(
            f"shape {shape}; expected {self.shapes()}{', which is data.channels' if self.channels > 1 else ''}"
        )

    def shapes(self, before: str = "") -> str:
        """The shapes of arrays that are images, for messages; `before` stands for a dimension before those."""
        one = f"[{before}H, W] or " if self.channels == 1 else ""
        return f"{one}[{before}H, W, {self.channels}] or [{before}{self.channels}, H, W]"


def check_values(dtype: np.dtype[Any]) -> None:
    """Raise `CorruptImage` for values that are neither integers nor real numbers."""
    if dtype.kind not in "uif":
        raise CorruptImage(f"values of type {dtype}; expected integers or floats")


def array_header(
    start: IO[bytes], size: int, name: str = "the array"
) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether it is in Fortran's order, type, and where the data begins, of an array of so many bytes as NumPy writes it.

    Raises `ValueError`, which names it, where they do not agree: nothing is allocated on a header's word.
    """
    head = io.BytesIO(start.read(_HEADER_BYTES))
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(head)
    if version not in read_header:
        raise ValueError(f"{name} has format version {version}; expected 1.0 or 2.0")
    shape, fortran, dtype = read_header[version](head)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are never unpickled")
    if min(shape, default=0) < 0 or head.tell() + math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{name} declares shape {shape}, but holds {size:,} bytes")
    return shape, fortran, dtype, head.tell()


def _header(file: BinaryIO) -> tuple[int, ...]:
    """The shape of the array in a file, which is left at its beginning."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    shape = array_header(file, size)[0]
    file.seek(0)
    return shape


@contextlib.contextmanager
def _tiff(file: BinaryIO) -> Iterator[tuple[tuple[int, ...], Callable[[], NDArray[Any]]]]:
    """The first image of a TIFF file: its shape [H, W, bands], and what decodes it. Bands may be samples, planes or pages."""
    require("tifffile", extra="tiff", where="data.channels with .tif files")
    from tifffile import TiffFile

    with TiffFile(file) as tiff:
        image = tiff.series[0]
        lengths = {axis: n for axis, n in zip(image.axes, image.shape, strict=True) if axis in "YX" or n > 1}
        bands = [axis for axis in lengths if axis not in "YX"]
        if not {"Y", "X"} <= set(lengths) or len(bands) > 1:
            raise CorruptImage(
                f"axes {image.axes} of shape {image.shape}; expected rows, columns and one of bands"
            )
        if image.nbytes > _MOST_BYTES:
            raise CorruptImage(f"{image.nbytes / 2**30:.1f} GiB decoded, more than {_MOST_BYTES / 2**30:.0f}")
        order = [list(lengths).index(axis) for axis in ("Y", "X", *bands)]

        def decode() -> NDArray[Any]:
            # One thread: images are decoded in parallel already.
            pixels: NDArray[Any] = image.asarray(maxworkers=1).reshape(tuple(lengths.values()))
            return pixels.transpose(order).reshape(shape)

        shape = (lengths["Y"], lengths["X"], lengths[bands[0]] if bands else 1)
        yield shape, decode
