"""Decoding: every mode and orientation, broken files, and the choice of the canvas."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from headsearch.data import decode
from headsearch.data.decode import (
    canvas_side,
    choose_canvas,
    decode_all,
    decode_file,
    header_size,
)
from headsearch.data.opening import CorruptImage
from headsearch.data.sources import FileSource, ItemSource


def photo(width: int = 96, height: int = 64) -> Image.Image:
    return Image.fromarray(load_sample_image("flower.jpg")).resize((width, height))


def encoded(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_formats_give_the_centre_square_exactly(kind: str) -> None:
    pixels = decode_file(encoded(photo(96, 64), kind), 64)
    np.testing.assert_array_equal(pixels, np.asarray(photo(96, 64))[:, 16:80])


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "JPEG2000"])
def test_lossy_formats_give_nearly_the_centre_square(kind: str) -> None:
    smooth = photo(24, 16).resize((96, 64), Image.Resampling.BICUBIC)
    pixels = decode_file(encoded(smooth, kind), 64).astype(int)
    assert np.abs(pixels - np.asarray(smooth)[:, 16:80]).mean() < 6


def test_a_large_jpeg_decoded_at_reduced_size_looks_the_same() -> None:
    large = photo(1536, 1024)
    full = large.resize((64, 64), Image.Resampling.BILINEAR, box=(256, 0, 1280, 1024))
    pixels = decode_file(encoded(large, "JPEG", quality=95), 64).astype(int)
    assert np.abs(pixels - np.asarray(full)).mean() < 4


BACK = [
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_270,
]
"""What a camera held that way makes of the scene, by orientation from 1."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("MPO", {"quality": 95}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {"quality": 95}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg", "quality": 95}),
    ],
)
def test_every_format_is_turned_upright_once(orientation: int, kind: str, options: dict[str, object]) -> None:
    scene = photo(24, 16).resize((96, 64), Image.Resampling.BICUBIC)
    back = BACK[orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(scene if back is None else scene.transpose(back), kind, exif=exif, **options)
    pixels = decode_file(file, 64).astype(int)
    assert np.abs(pixels - np.asarray(scene)[:, 16:80]).mean() < 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode_file(encoded(photo(64, 64), "PNG", exif=exif), 64)
    np.testing.assert_array_equal(pixels, np.asarray(photo(64, 64)))


def test_grey_palette_and_one_bit_images_become_rgb() -> None:
    for mode in ("L", "P", "1"):
        image = photo(32, 32).convert(mode)
        np.testing.assert_array_equal(
            decode_file(encoded(image, "PNG"), 32), np.asarray(image.convert("RGB"))
        )


RAMP = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64


@pytest.mark.parametrize(
    "file",
    [
        encoded(Image.fromarray(RAMP), "PNG"),
        encoded(Image.fromarray(RAMP), "PPM"),
        encoded(Image.fromarray(RAMP), "TIFF"),
        encoded(Image.frombytes("I;16B", (32, 32), RAMP.astype(">u2").tobytes()), "TIFF"),
        encoded(Image.fromarray(RAMP), "JPEG2000"),
        io.BytesIO(b"P2 32 32 65535 " + b" ".join(b"%d" % value for value in RAMP.flatten())),
    ],
    ids=["PNG", "PGM", "TIFF", "big-endian TIFF", "JPEG 2000", "PGM in text"],
)
def test_sixteen_bit_grey_keeps_its_upper_bits(file: io.BytesIO) -> None:
    pixels = decode_file(file, 32)
    np.testing.assert_array_equal(pixels[..., 0], RAMP >> 8)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_floats_from_0_to_1_are_read_and_others_are_left_out() -> None:
    levels = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    for kind in ("TIFF", "PPM"):
        pixels = decode_file(encoded(Image.fromarray(levels), kind), 16)
        np.testing.assert_array_equal(pixels[..., 0].flatten(), np.arange(256))
    for wrong in (levels * 300, levels - 1, np.full((4, 4), np.nan, dtype=np.float32)):
        with pytest.raises(CorruptImage, match="expected 0 to 1"):
            decode_file(encoded(Image.fromarray(wrong), "TIFF"), 16)
    with pytest.raises(CorruptImage, match="no fixed range"):
        decode_file(encoded(Image.new("I", (4, 4)), "TIFF"), 16)


def test_lab_becomes_rgb() -> None:
    lab = Image.new("LAB", (8, 8), (136, 208, 195))
    assert np.abs(decode_file(encoded(lab, "TIFF"), 8).astype(int) - [254, 0, 0]).max() < 16


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TGA"])
def test_grey_with_transparency_lies_over_white(kind: str) -> None:
    grey = Image.new("LA", (8, 8), (40, 0))
    grey.putpixel((1, 2), (40, 255))
    pixels = decode_file(encoded(grey, kind), 8)
    assert pixels[2, 1].tolist() == [40, 40, 40]
    assert pixels[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "1"])
def test_a_transparent_value_lies_over_white(mode: str) -> None:
    image = Image.new(mode, (8, 8), 1)
    image.putpixel((1, 2), 0)
    if mode == "P":
        image.putpalette([10, 10, 10, 90, 90, 90])
    pixels = decode_file(encoded(image, "PNG", transparency=1), 8)
    assert pixels[2, 1].max() <= 10
    assert pixels[0, 0].tolist() == [255, 255, 255]


def test_transparent_pixels_become_white() -> None:
    image = Image.new("RGBA", (8, 8), (200, 10, 10, 0))
    image.putpixel((3, 4), (1, 2, 3, 255))
    pixels = decode_file(encoded(image, "PNG"), 8)
    assert pixels[4, 3].tolist() == [1, 2, 3]
    assert pixels[0, 0].tolist() == [255, 255, 255]


def test_cmyk_jpegs_become_rgb() -> None:
    pixels = decode_file(encoded(photo(64, 64).convert("CMYK"), "JPEG"), 64)
    assert pixels.shape == (64, 64, 3)
    assert np.abs(pixels.astype(int) - np.asarray(photo(64, 64))).mean() < 10


@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"]),
    keep=st.floats(0, 1),
    spoilt=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
)
def test_broken_bytes_are_corrupt_and_nothing_else(
    kind: str, keep: float, spoilt: list[tuple[float, int]]
) -> None:
    data = bytearray(encoded(photo(24, 16), kind).getvalue())
    data = data[: int(keep * len(data))]
    for place, value in spoilt:
        if data:
            data[int(place * len(data))] = value
    try:
        assert decode_file(io.BytesIO(bytes(data)), 16).shape == (16, 16, 3)
    except CorruptImage as error:
        reason = str(error)
    else:
        reason = "none"
    assert reason
    assert "\n" not in reason


def test_reasons_name_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    whole = encoded(photo(200, 200), "JPEG").getvalue()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptImage, match="not an image of a known format"):
        decode_file(str(tmp_path / "text.jpg"), 32)
    with pytest.raises(CorruptImage, match="truncated"):
        decode_file(str(tmp_path / "half.jpg"), 32)
    with pytest.raises(CorruptImage, match="No such file"):
        header_size(str(tmp_path / "gone.jpg"))


@pytest.mark.parametrize(
    ("sides", "image_size", "canvas"),
    [
        ([32, 32], 32, 32),
        ([8], 16, 16),
        ([500, 375, 400], 224, 256),
        ([33], 32, 33),
        ([64, 40, 35], 32, 37),
        ([], 32, 32),
    ],
)
def test_the_canvas_lies_between_the_image_size_and_eight_sevenths_of_it(
    sides: list[int], image_size: int, canvas: int
) -> None:
    assert canvas_side(sides, image_size) == canvas


def numbered(count: int) -> NDArray[np.uint8]:
    return np.arange(count, dtype=np.uint8)[:, None, None].repeat(4, axis=1).repeat(4, axis=2)


def test_many_images_keep_their_order_and_broken_ones_leave_no_gap(tmp_path: Path) -> None:
    broken = {0, 37, 64, 199}
    files = [f"{number:03}.png" for number in range(200)]
    for number, file in enumerate(files):
        Image.fromarray(numbered(200)[number]).save(tmp_path / file)
    for number in broken:
        (tmp_path / files[number]).write_bytes(b"broken")
    progress: list[int] = []
    images, kept, failures = decode_all(FileSource(tmp_path, files), range(200), 4, progress.append)
    assert kept == [number for number in range(200) if number not in broken]
    assert images[:, 0, 0, 0].tolist() == kept
    assert failures == {files[number]: "not an image of a known format" for number in sorted(broken)}
    assert sum(progress) == 200


def test_the_canvas_is_chosen_from_the_images_that_can_be_read(tmp_path: Path) -> None:
    photo(300, 200).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    assert choose_canvas(FileSource(tmp_path, ["b.png", "a.png"]), 190) == 200


def test_arrays_are_resized_like_files() -> None:
    image = np.asarray(photo(48, 48))
    expected, _, _ = decode_all(ItemSource(image[None], "x"), [0], 20)
    from_file = decode_file(encoded(photo(48, 48), "PNG"), 20)
    assert torch.equal(expected[0], torch.from_numpy(from_file.transpose(2, 0, 1).copy()))


def by_pillow(file: io.BytesIO, canvas: int) -> NDArray[np.uint8]:
    """The centre square, by Pillow alone; where it is shrunk, cut at a whole pixel."""
    image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    side = min(image.size)
    if side <= canvas:
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((canvas, canvas), Image.Resampling.BILINEAR, box=box))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((canvas, canvas), Image.Resampling.BILINEAR))


@pytest.fixture(params=["with simplejpeg", "without"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to decode JPEG files."""
    if request.param == "without":
        monkeypatch.setattr(decode, "simplejpeg", None)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
@pytest.mark.parametrize("canvas", [64, 97, 121, 180])
def test_a_jpeg_is_decoded_as_pillow_decodes_it(mode: str, options: dict[str, object], canvas: int) -> None:
    file = encoded(photo(170, 121).convert(mode), "JPEG", **options)
    difference = np.abs(decode_file(file, canvas).astype(int) - by_pillow(file, canvas))
    assert difference.max() <= (1 if canvas < 121 else 0)


@pytest.mark.parametrize("canvas", [16, 64, 180])
def test_a_jpeg_gives_the_same_pixels_without_simplejpeg(
    canvas: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [encoded(photo(170, 121), "JPEG", quality=quality) for quality in (20, 75, 98)]
    fast = [decode_file(file, canvas) for file in files]
    monkeypatch.setattr(decode, "simplejpeg", None)
    for file, pixels in zip(files, fast, strict=True):
        np.testing.assert_array_equal(decode_file(file, canvas), pixels)


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.usefixtures("decoder")
def test_a_jpeg_is_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Even sides: turning and cutting commute.
    file = encoded(photo(170, 120), "JPEG", exif=exif)
    assert np.abs(decode_file(file, 64).astype(int) - by_pillow(file, 64)).max() <= 1


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("profile", [b"", b"\xff\xda", b"\xff\xe1\x00\x02"], ids=["none", "scan", "exif"])
def test_a_jpeg_is_turned_by_xmp_whatever_its_colour_profile_holds(profile: bytes) -> None:
    plain = encoded(photo(170, 120), "JPEG", icc_profile=profile)
    turned = encoded(photo(170, 120), "JPEG", icc_profile=profile, xmp=XMP)
    np.testing.assert_array_equal(decode_file(turned, 64), np.rot90(decode_file(plain, 64), -1))


class Pipe(io.BytesIO):
    """Bytes that are read once, from the first to the last."""

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation("seek")


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_is_read_whole_wherever_it_stands_and_whether_or_not_it_can_go_back(kind: str) -> None:
    file = encoded(photo(170, 120), kind)
    expected = decode_file(file, 64)
    file.seek(100)
    np.testing.assert_array_equal(decode_file(file, 64), expected)
    np.testing.assert_array_equal(decode_file(Pipe(file.getvalue()), 64), expected)


@pytest.mark.usefixtures("decoder")
def test_a_jpeg_cut_short_anywhere_is_as_broken_as_pillow_says() -> None:
    whole = encoded(photo(64, 48), "JPEG").getvalue()
    read = 0
    for size in [*range(0, len(whole), 17), *range(len(whole) - 12, len(whole) + 1)]:
        file = io.BytesIO(whole[:size])
        try:
            expected = by_pillow(file, 32)
        except OSError:
            with pytest.raises(CorruptImage):
                decode_file(file, 16)
        else:
            read += 1
            assert np.abs(decode_file(file, 32).astype(int) - expected).max() <= 1
    assert read == 1


def test_photographs_are_shrunk_as_pillow_does_it() -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        width, height = random.integers(40, 300, 2)
        canvas = int(random.integers(8, min(width, height) + 1))
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        file = encoded(image, "PNG")
        # Torch rounds between its two passes: noise, where rounding errors do not cancel, may differ by 2.
        assert np.abs(decode_file(file, canvas).astype(int) - by_pillow(file, canvas)).max() <= 2
