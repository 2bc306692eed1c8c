"""Opening image files: by content, within bounds, and one line for whatever a decoder or a disk comes up with."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from headsearch.data.decode import decode_file, header_size
from headsearch.data.opening import CorruptImage, opened
from headsearch.errors import DataError, printable


def test_only_the_documented_formats_are_opened_whatever_the_name(tmp_path: Path) -> None:
    for kind in ("EPS", "IM", "SGI", "PCX", "ICO", "DDS", "PDF"):
        file = tmp_path / f"{kind}.png"
        Image.new("RGB", (16, 16)).save(file, kind)
        with pytest.raises(CorruptImage, match="not an image of a known format"):
            decode_file(str(file), 16)


def test_no_outside_program_is_started(tmp_path: Path) -> None:
    ghostscript = tmp_path / "bin/gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    Image.new("RGB", (16, 16)).save(tmp_path / "picture.png", "EPS")
    code = (
        f"from headsearch.data.decode import decode_file; decode_file({str(tmp_path / 'picture.png')!r}, 16)"
    )
    environment = os.environ | {"PATH": f"{ghostscript.parent}:{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("decoding failed"),
        NotImplementedError("no such codec"),
        SyntaxError("bad"),
        ZeroDivisionError(),
        MemoryError(),
        OverflowError("too large"),
        AttributeError("x"),
        RecursionError(),
        AssertionError("two\nlines \x1b[31m"),
    ],
)
def test_whatever_a_decoder_raises_is_a_reason_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def load(image: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(CorruptImage) as raised:
        decode_file(str(tmp_path / "a.png"), 8)
    assert str(raised.value)
    assert str(raised.value).isprintable()


def test_errors_meant_for_a_person_pass(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError), opened(str(tmp_path / "a.png")):
        raise DataError("mine")


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name, message in [("pipe.png", "a FIFO"), ("zero.png", "a device"), (".", "a folder")]:
        with pytest.raises(CorruptImage, match=f"{message}, not a file"):
            header_size(str(tmp_path / name))
    with pytest.raises(CorruptImage, match="null"):
        header_size("a\0b.png")
    with pytest.raises(CorruptImage, match="too long"):
        header_size("a" * 5000)


def test_large_images_are_read_and_larger_ones_are_left_out_without_a_raw_warning(tmp_path: Path) -> None:
    large = Image.new("1", (10_000, 9_500))
    large.paste(1, (0, 0, 5_000, 9_500))
    large.save(tmp_path / "large.png")
    header = bytearray(b"P4 20000 12600\n")
    (tmp_path / "larger.pbm").write_bytes(header + bytes(100))
    (tmp_path / "bomb.pbm").write_bytes(b"P4 60000 60000\n" + bytes(100))
    code = f"""
from headsearch.data.decode import decode_file, CorruptImage
pixels = decode_file({str(tmp_path / "large.png")!r}, 32)
print(pixels[:, :15].min(), pixels[:, 17:].max())
for name in ("larger", "bomb"):
    try: decode_file({str(tmp_path)!r} + f"/{{name}}.pbm", 32)
    except CorruptImage as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    first, *rest = done.stdout.splitlines()
    assert first == "255 0"
    assert rest == ["20000x12600 pixels, more than 250 million", "more than 250 million pixels"]
    assert done.stderr == ""


@pytest.mark.parametrize("mode", ["RGB", "P", "I;16", "RGBA"])
def test_shrinking_in_strips_gives_what_resizing_gives(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = (
        Image.linear_gradient("L").resize((640, 480)).convert("RGB" if mode == "P" else "L").convert(mode)
    )
    file = io.BytesIO()
    picture.save(file, "PNG")
    whole = decode_file(file, 16).astype(int)
    monkeypatch.setattr("headsearch.data.decode.LARGE", 1000)
    file.seek(0)
    assert abs(decode_file(file, 16).astype(int) - whole).max() <= 3


def test_printable_text_stays_as_it_is() -> None:
    assert printable("caffè 😀.png") == "caffè 😀.png"
    assert printable("a\nb\x00\udcff") == "a\\nb\\x00\\udcff"
