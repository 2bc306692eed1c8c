"""From an image to a square of pixels (the canvas), here of uint8 RGB, and many of them in parallel.

The canvas keeps the centre square of an image. Its side is the images' own where they are small, and image_size * 8/7
where they are large: room for random crops, and the usual 87.5 % centre crop for evaluation.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps
from PIL.Image import Resampling
from torch import Tensor

from headsearch.cores import cores
from headsearch.data.opening import ENDINGS, LARGE, CorruptImage, failures_told, opened, stream

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

_JPEG = b"\xff\xd8\xff"
"""What a JPEG file begins with."""
_EXIF_ORIENTATION = 0x0112

_CHUNK = 32
"""Images a thread decodes between two reports of progress."""


class Source(Protocol):
    """Images by number, decoded only when asked for."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call the image in messages; the same on every machine, since the held-out cut is keyed by it."""

    def size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels, without decoding where possible. Raises `CorruptImage`."""

    def read(self, index: int, canvas: int) -> NDArray[Any]:
        """Pixels [canvas, canvas, channels] of the type `dtype`. Raises `CorruptImage`."""

    @property
    def channels(self) -> int:
        """Of every image: 3 for RGB, else the bands."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of every pixel: uint8, or float32 for bands of any other type."""


@runtime_checkable
class Fetching(Protocol):
    """A source whose images come sooner if many are asked for at once."""

    def fetch(self, indices: Sequence[int]) -> None:
        """Get ready to read these once. Raises nothing: what goes wrong is met when they are read."""


class Pixels(Protocol):
    """What the pixels of a data set are, and how they come from images of any kind. Squares are [canvas, canvas, channels]."""

    @property
    def channels(self) -> int: ...

    @property
    def endings(self) -> frozenset[str]:
        """Of the names of files that may hold such images."""

    def size(self, file: BinaryIO | str, /) -> tuple[int, int]:
        """Width and height of a file's image, without decoding where possible. Raises `CorruptImage`."""

    def read(self, file: BinaryIO | str, canvas: int, /) -> NDArray[Any]:
        """The centre square of a file's image. Raises `CorruptImage`."""

    def array_size(self, shape: tuple[int, ...], /) -> tuple[int, int]:
        """Width and height of an array of this shape. Raises `CorruptImage`."""

    def from_array(self, pixels: NDArray[Any], canvas: int, /) -> NDArray[Any]:
        """The centre square of an array [H, W] or [H, W, C]. Raises `CorruptImage`."""

    def from_image(self, image: Image.Image, canvas: int, /) -> NDArray[Any]:
        """The centre square of an image. Raises `CorruptImage`."""


def header_size(file: BinaryIO | str) -> tuple[int, int]:
    """Width and height of an image file, from its header. Raises `CorruptImage`."""
    with opened(file) as image:
        return image.size


def decode_file(file: BinaryIO | str, canvas: int) -> NDArray[np.uint8]:
    """The centre square of an image file, upright, as RGB [canvas, canvas, 3]. Raises `CorruptImage`.

    JPEG files much larger than the canvas are decoded at 1/2, 1/4 or 1/8 of their size.
    """
    with failures_told(), stream(file) as encoded:
        pixels = _jpeg_pixels(encoded, canvas)
        if pixels is not None:
            return pixels
        with opened(encoded) as image:
            image.draft("RGB", (canvas, canvas))
            # Some formats are turned while they are decoded: what the tag says afterwards is left to do.
            image.load()
            return to_canvas(image, canvas, _orientation(image))


def _jpeg_pixels(encoded: BinaryIO, canvas: int) -> NDArray[np.uint8] | None:
    """The square of a JPEG file, to the bit as Pillow would give it, but faster; None for other files, for those with which something is
    wrong, which is left for Pillow to say, and where simplejpeg is not installed."""
    if simplejpeg is None or encoded.read(len(_JPEG)) != _JPEG:
        return None
    content = _JPEG + encoded.read()
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content, strict=True)
        if width * height > LARGE or colours not in ("Gray", "RGB", "YCbCr"):
            return None
        # The same as Pillow's `draft`.
        scale = next((factor for factor in (8, 4, 2) if min(width, height) >= factor * canvas), 1)
        pixels_HWC = simplejpeg.decode_jpeg(
            content,
            min_height=-(-height // scale),
            min_width=-(-width // scale),
            min_factor=scale,
            strict=True,
        )
    except ValueError:
        return None
    square = _square(pixels_HWC, canvas)
    if not _may_be_turned(content):
        return square
    with opened(encoded) as image:
        return _upright(square, _orientation(image))


def _may_be_turned(content: bytes) -> bool:
    """Whether EXIF or XMP (segments APP1) come before the first scan of a JPEG file. Where it is not plain, yes."""
    place = 2
    while (mark := content[place : place + 2]) != b"\xff\xda":
        if mark[:1] != b"\xff" or mark in (b"\xff\xe1", b"\xff\xff"):
            return True
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return False


def _orientation(image: Image.Image) -> object:
    return image.getexif().get(_EXIF_ORIENTATION, 1)


def to_canvas(image: Image.Image, canvas: int, orientation: object = 1) -> NDArray[np.uint8]:
    """Centre square of `image`, resized with an antialiased bilinear filter, as RGB [canvas, canvas, 3].

    `orientation` is the EXIF code; turning the finished square is the same as turning the image first, and cheaper.
    """
    if image.mode == "I" and image.format == "PPM":
        image = Image.fromarray(np.asarray(image).astype(np.uint16))
    rgb = _as_rgb(image) if image.width * image.height <= LARGE else _shrunk(image, canvas)
    return _upright(_square(np.array(rgb), canvas), orientation)


def _upright(square: NDArray[np.uint8], orientation: object) -> NDArray[np.uint8]:
    if orientation == 1:
        return square
    image = Image.fromarray(square)
    image.getexif()[_EXIF_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def _square(pixels_HWC: NDArray[np.uint8], canvas: int) -> NDArray[np.uint8]:
    """The centre square; shrunk by torch, which takes less than half of Pillow's time for the same filter, from a whole pixel on."""
    height, width, _ = pixels_HWC.shape
    side = min(height, width)
    if side <= canvas:
        return np.asarray(centre_square(Image.fromarray(pixels_HWC), canvas))
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels_HWC[top : top + side, left : left + side]
    # With these strides torch takes it for channels-last, for which it has a faster kernel; those of `permute(2, 0, 1)[None]` do not tell.
    pixels_BCHW = torch.from_numpy(square)[None].permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(
        pixels_BCHW, size=(canvas, canvas), mode="bilinear", antialias=True
    )
    shrunk: NDArray[np.uint8] = small[0].permute(1, 2, 0).numpy()
    return shrunk


def centre_square(image: Image.Image, canvas: int) -> Image.Image:
    """The centre square, resized with an antialiased bilinear filter."""
    width, height = image.size
    if (width, height) == (canvas, canvas):
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((canvas, canvas), Resampling.BILINEAR, box=(left, top, left + side, top + side))


class Rgb:
    """`Pixels` of three colours, uint8: grey is repeated, transparency is laid over white, 16 bits become 8."""

    channels = 3
    endings = ENDINGS
    size = staticmethod(header_size)
    read = staticmethod(decode_file)
    from_image = staticmethod(to_canvas)

    @staticmethod
    def array_size(shape: tuple[int, ...]) -> tuple[int, int]:
        """Of [H, W] or [H, W, C]."""
        return shape[1], shape[0]

    @staticmethod
    def from_array(pixels: NDArray[Any], canvas: int) -> NDArray[np.uint8]:
        """Of uint8 [H, W] grey, or [H, W, C] with 3 or 4 channels."""
        return to_canvas(Image.fromarray(pixels), canvas)


RGB = Rgb()


def _shrunk(image: Image.Image, canvas: int) -> Image.Image:
    """The centre square of a large image as RGB, four times the canvas or so, made strip by strip: its pixels are never there twice."""
    square = min(image.size)
    factor = max(1, square // (4 * canvas))
    side = square // factor
    left, top = (image.width - square) // 2, (image.height - square) // 2
    rows = max(1, 2**22 // (square * factor))
    small = Image.new("RGB", (side, side))
    for row in range(0, side, rows):
        end = min(row + rows, side)
        strip = image.crop((left, top + row * factor, left + side * factor, top + end * factor))
        small.paste(_as_rgb(strip).reduce(factor), (0, row))
    return small


def _as_rgb(image: Image.Image) -> Image.Image:
    """RGB; transparency is laid over white, 16-bit grey keeps its upper 8 bits."""
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and transparent is None:
        return image
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        grey = (values >> 8).astype(np.uint8)
        return Image.fromarray(np.where(values == transparent, np.uint8(255), grey)).convert("RGB")
    if image.mode == "F":
        levels = np.asarray(image)
        if not (levels.min() >= 0 and levels.max() <= 1):
            raise ValueError(f"floats from {levels.min():g} to {levels.max():g}; expected 0 to 1")
        return Image.fromarray((levels * 255).round().astype(np.uint8)).convert("RGB")
    if image.mode == "I":
        raise ValueError("32-bit integers have no fixed range; expected 8 or 16 bits a channel")
    if image.mode == "LAB":
        return _from_lab(image)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or transparent is not None:
        rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        white = Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    """RGB from CIELAB, which Pillow converts through colour profiles alone."""
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
    rgb = ImageCms.applyTransform(image, transform)
    assert rgb is not None
    return rgb


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
) -> tuple[Tensor, list[int], dict[str, str]]:
    """Decode images in a pool of threads; the result does not depend on their number or timing.

    Returns:
        pixels [N, C, canvas, canvas] of the source's type in the order of `indices`, the indices that could be read, and
        the reason by the name of each that could not. `progress` is called with the number of images done since the last call.
    """
    pixels = np.empty((len(indices), source.channels, canvas, canvas), dtype=source.dtype)

    def decode(start: int) -> dict[int, str]:
        failed = {}
        if isinstance(source, Fetching):
            source.fetch(indices[start : start + _CHUNK])
        for row in range(start, min(start + _CHUNK, len(indices))):
            try:
                pixels[row] = source.read(indices[row], canvas).transpose(2, 0, 1)
            except CorruptImage as error:
                failed[row] = str(error)
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
    return (
        images[: len(kept)],
        [indices[row] for row in kept],
        {source.name(indices[row]): why for row, why in failures.items()},
    )


def _move_forward(images: Tensor, kept: Sequence[int]) -> None:
    """Close the gaps in place, without a second copy of all pixels: row i becomes row kept[i], and kept[i] >= i."""
    rows = torch.tensor(kept, dtype=torch.long)
    for start in range(0, len(rows), 1024):
        source_rows = rows[start : start + 1024]
        images[start : start + len(source_rows)] = images[source_rows]
