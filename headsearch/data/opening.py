"""The one place that opens image files: by content and not by name, within bounds, with one line for every error.

Only the formats below are decoded. Some others that Pillow knows start external programs, and formats without a test are not promised.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# Importing a plugin registers its format.
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from headsearch.errors import UserError, printable

_FORMATS = {
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "JPEG2000": (".j2k", ".jp2"),
    "AVIF": (".avif",),
    # Last: it has no mark that a file could be told by.
    "TGA": (".tga",),
}
ENDINGS = frozenset(ending for endings in _FORMATS.values() for ending in endings)
"""Of the names of image files. Files with other endings are ignored."""

MOST_PIXELS = 250_000_000
"""Of an image: about 1 GiB decoded."""
_MOST_PIXELS_OF = {"WEBP": 100_000_000, "JPEG2000": 100_000_000, "AVIF": 100_000_000}
"""These decoders take three to four times the memory."""
MOST_BYTES = 2**30
"""Of a file: some decoders read all of it first."""

LARGE = 89_478_485
"""Pixels above which images are decoded one at a time and shrunk in strips."""
_ONE_LARGE_AT_A_TIME = threading.RLock()

# What Pillow has to say about a file is said as the reason for leaving it out; its own bound on pixels is replaced by ours.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
Image.MAX_IMAGE_PIXELS = MOST_PIXELS
for _library in (Path(Image.__file__).parent.parent / "pillow.libs").glob("libtiff*"):
    # libtiff writes what it finds to stderr by itself. Where Pillow is built on a libtiff of the system, it goes on to.
    ctypes.CDLL(str(_library)).TIFFSetErrorHandler(None)
    ctypes.CDLL(str(_library)).TIFFSetWarningHandler(None)


class CorruptImage(Exception):
    """An image that cannot be decoded. `str(error)` is the reason."""


@contextlib.contextmanager
def opened(file: BinaryIO | str) -> Iterator[Image.Image]:
    """An image file whose pixels are not decoded yet. Errors raised inside become a `CorruptImage` too, except for a `UserError`.

    Raises:
        CorruptImage: it is no regular file, none of the formats, too large, or its decoder fails, in whatever way.
    """
    with (
        failures_told(),
        stream(file) as bytes_of_it,
        Image.open(bytes_of_it, formats=tuple(_FORMATS)) as image,
    ):
        width, height = image.size
        most = _MOST_PIXELS_OF.get(image.format or "", MOST_PIXELS)
        if width * height > most:
            raise CorruptImage(
                f"{width}x{height} pixels, more than {most // 10**6} million"
                + ("" if most == MOST_PIXELS else f" of a {image.format} file")
            )
        with _ONE_LARGE_AT_A_TIME if width * height > LARGE else contextlib.nullcontext():
            yield image


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Turn every error raised inside, except for a `UserError`, into a `CorruptImage` with its reason."""
    try:
        yield
    except (CorruptImage, UserError):
        raise
    except Exception as error:
        raise CorruptImage(reason(error)) from error


def stream(file: BinaryIO | str) -> contextlib.AbstractContextManager[BinaryIO]:
    """The bytes of a file that is neither a device nor too large, from the first on. Raises `CorruptImage`, or `OSError`."""
    if not isinstance(file, str):
        try:
            file.seek(0)
        except (AttributeError, io.UnsupportedOperation):
            file = io.BytesIO(file.read())
        return contextlib.nullcontext(file)
    # Looked at before it is opened: opening a FIFO waits for ever.
    status = Path(file).stat()
    if not stat.S_ISREG(status.st_mode):
        raise CorruptImage(no_file(status.st_mode))
    if status.st_size > MOST_BYTES:
        raise CorruptImage(f"a file of {status.st_size / 2**30:.1f} GiB, more than {MOST_BYTES // 2**30}")
    return Path(file).open("rb")


def no_file(mode: int) -> str:
    """What a path that is no regular file is, from its mode."""
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
    return f"a {kinds.get(stat.S_IFMT(mode), 'device')}, not a file"


def reason(error: BaseException) -> str:
    """One line of why an image cannot be read, without the file's name."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MOST_PIXELS // 10**6} million pixels"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, FileNotFoundError):
        # fsspec's has nothing but the address.
        return "No such file"
    return printable(" ".join(str(error).split()))[:200] or type(error).__name__
