"""Mutated image files of every format, and mutated `.npz` files, for `worker.py`."""

import functools
import io
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mutations import mutated_bytes

from headsearch.errors import DataError

EXTREMES = (0, 1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def image(rng: random.Random, folder: Path) -> Callable[[], None]:
    from headsearch.data.decode import decode_file, header_size
    from headsearch.data.opening import CorruptImage

    name = rng.choice(sorted(pictures()))
    file = folder / "input.png"
    file.write_bytes(_mutated(pictures()[name], list(pictures().values()), rng))

    def read() -> None:
        try:
            header_size(str(file))
            pixels = decode_file(str(file), 16)
        except CorruptImage as error:
            _check(str(error))
            raise DataError(str(error)) from None
        assert (pixels.shape, pixels.dtype) == ((16, 16, 3), "uint8")

    return read


def npz(rng: random.Random, folder: Path) -> Callable[[], None]:
    from headsearch.data.collection import Request
    from headsearch.data.npz import npz as read_npz

    file = folder / "input.npz"
    file.write_bytes(_mutated(rng.choice(archives()), archives(), rng))

    def read() -> None:
        try:
            found = read_npz(Request(str(file), labels=rng.random() < 0.5))
        except DataError as error:
            _check(str(error))
            raise
        for index in range(len(found.train.source)):
            assert found.train.source.read(index, 8).shape == (8, 8, 3)

    return read


def _check(reason: str) -> None:
    assert reason.isprintable()
    assert len(reason) <= 500


def _mutated(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Bytes changed; cut short; a header over another body; or a number in the header that is as large as can be."""
    data = bytearray(content)
    match rng.randrange(4):
        case 0:
            return mutated_bytes(content, rng, words=False)
        case 1:
            del data[rng.randrange(len(data)) :]
        case 2:
            head = rng.choice((4, 8, 16, 32, 64, 128, 256))
            return bytes(data[:head]) + rng.choice(others)[head:]
        case _:
            for _ in range(rng.choice((1, 2))):
                kind = rng.choice(("<H", ">H", "<I", ">I"))
                start = rng.randrange(min(len(data), 300))
                packed = struct.pack(kind, rng.choice(EXTREMES) & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF))
                data[start : start + len(packed)] = packed
    return bytes(data)


@functools.cache
def pictures() -> dict[str, bytes]:
    """A small picture in every format, in the kinds that its decoder tells apart."""
    from PIL import Image

    rgb = Image.linear_gradient("L").resize((24, 20)).convert("RGB")
    rgb.paste((200, 30, 90), (3, 4, 12, 15))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    palette = rgb.quantize(16)
    frames: dict[str, Any] = {"save_all": True, "append_images": [rgb.rotate(90)]}
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((rgb, kind, {}) for kind in ("BMP", "DIB", "GIF", "PPM", "JPEG2000", "TGA", "PNG", "TIFF", "AVIF")),
        *((rgb, kind, {"exif": exif}) for kind in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "MPO")),
        *((rgb, kind, frames) for kind in ("GIF", "PNG", "TIFF", "WEBP", "AVIF", "MPO")),
        *(
            (rgb.convert("RGBA"), kind, {})
            for kind in ("BMP", "PNG", "TIFF", "WEBP", "AVIF", "JPEG2000", "TGA")
        ),
        *((rgb.convert("L").convert("I;16"), kind, {}) for kind in ("PPM", "PNG", "TIFF", "JPEG2000")),
        *((rgb.convert("1"), kind, {}) for kind in ("BMP", "PPM", "PNG", "TIFF", "TGA")),
        *((rgb.convert("CMYK"), kind, {}) for kind in ("JPEG", "TIFF")),
        *((palette, kind, {}) for kind in ("BMP", "GIF", "TIFF", "TGA")),
        *((rgb, "TIFF", {"compression": f"tiff_{name}"}) for name in ("lzw", "adobe_deflate", "jpeg")),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (rgb, "TIFF", {"compression": "packbits"}),
        (palette, "PNG", {"transparency": 3}),
        (rgb, "JPEG", {"progressive": True}),
        (rgb, "WEBP", {"lossless": True}),
        (rgb, "TGA", {"compression": "tga_rle"}),
        (rgb.convert("L").convert("F"), "PPM", {}),
        (rgb.convert("L").convert("F"), "TIFF", {}),
        (Image.new("LAB", (24, 20), (120, 130, 140)), "TIFF", {}),
    ]
    made: dict[str, bytes] = {}
    for number, (picture, kind, options) in enumerate(kinds):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        made[f"{kind} {number}"] = file.getvalue()
    made["PPM text"] = b"P3\n# a comment\n4 3\n255\n" + b" ".join(b"%d" % (7 * n % 256) for n in range(36))
    return made


@functools.cache
def archives() -> list[bytes]:
    """Small `.npz` files, stored and compressed, with and without splits."""
    import numpy as np

    pixels = np.arange(6 * 9 * 7 * 3, dtype=np.uint8).reshape(6, 9, 7, 3)
    labels = np.arange(6) % 2
    split = {
        "train_images": pixels,
        "val_images": pixels[:2],
        "train_labels": labels,
        "val_labels": labels[:2, None],
    }
    made: list[bytes] = []
    for save in (np.savez, np.savez_compressed):
        for arrays in ({"images": pixels, "labels": labels}, split):
            file = io.BytesIO()
            save(file, **arrays)
            made.append(file.getvalue())
    return made
