"""Images with masks: folders of every layout, what is refused, and the set made of digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headsearch.data.segmentation import IGNORED, load_masks
from headsearch.errors import DataError


def write(folder: Path, part: str, count: int, *, mask_size: int = 12, top: int = 2) -> None:
    """Images of 12x16 pixels, red where the mask says 1, blue where it says `top`; a row is void."""
    random = np.random.default_rng(len(part))
    for kind in ("images", "masks"):
        (folder / kind / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        mask = random.integers(0, 2, (12, 16)).astype(np.uint8) * (top - 1) + 1
        pixels = np.zeros((12, 16, 3), dtype=np.uint8)
        pixels[..., 0], pixels[..., 2] = 255 * (mask == 1), 255 * (mask == top)
        mask[5] = 255
        Image.fromarray(pixels).save(folder / "images" / part / f"{number}.png")
        Image.fromarray(mask[:mask_size]).save(folder / "masks" / part / f"{number}.png")


def load(folder: Path, **changes: int):
    return load_masks(
        "folder", root=str(folder), **{"image_size": 12, "most_train": 100, "seed": 0, **changes}
    )


def test_a_mask_lies_over_its_image_and_void_pixels_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, "train", 6, top=7)
    write(tmp_path, "val", 3, top=7)
    found = load(tmp_path)
    assert found.classes == [1, 7]
    assert (len(found.train), len(found.test)) == (6, 3)
    for part in (found.train, found.test):
        assert part.images.shape[1:] == (3, 12, 12)
        assert (part.masks[:, 5] == IGNORED).all()
        counted = part.masks >= 0
        torch.testing.assert_close((part.images[:, 0] == 255)[counted], (part.masks == 0)[counted])
        torch.testing.assert_close((part.images[:, 2] == 255)[counted], (part.masks == 1)[counted])
    enlarged = load(tmp_path, image_size=24).train.masks
    torch.testing.assert_close(enlarged[:, ::2, ::2], found.train.masks)


def test_test_goes_before_val(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("val", 3), ("test", 2)):
        write(tmp_path, part, count)
    assert len(load(tmp_path).test) == 2


def test_without_splits_a_seeded_part_is_held_out_and_a_large_train_is_sampled(tmp_path: Path) -> None:
    write(tmp_path, "", 20)
    whole = load(tmp_path)
    assert (len(whole.train), len(whole.test)) == (16, 4)
    again, other = load(tmp_path), load(tmp_path, seed=1)
    assert torch.equal(again.test.masks, whole.test.masks)
    assert not torch.equal(other.test.masks, whole.test.masks)
    assert len(load(tmp_path, most_train=5).train) == 5


def test_masks_of_palette_and_of_16_bits_are_class_numbers(tmp_path: Path) -> None:
    write(tmp_path, "", 10)
    for number in range(10):
        file = tmp_path / "masks" / f"{number}.png"
        values = np.asarray(Image.open(file)).astype(np.uint16)
        if number % 2:
            mask = Image.fromarray(values.astype(np.uint8), mode="P")
            mask.putpalette([channel for number in range(256) for channel in (number, 0, 255 - number)])
            mask.save(file)
        else:
            Image.fromarray(np.where(values == 2, 300, values).astype(np.uint16)).save(file)
    assert load(tmp_path, seed=3).classes == [1, 2, 300]


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs the folders 'images' and 'masks'"):
        load(tmp_path)
    write(tmp_path / "other", "", 10, mask_size=9)
    with pytest.raises(DataError, match="16x9 pixels, but its image has 16x12"):
        load(tmp_path / "other")
    write(tmp_path / "missing", "", 10)
    (tmp_path / "missing" / "masks" / "3.png").unlink()
    with pytest.raises(DataError, match=r"3\.png: no mask"):
        load(tmp_path / "missing")
    write(tmp_path / "colour", "", 10)
    Image.new("RGB", (16, 12)).save(tmp_path / "colour" / "masks" / "2.png")
    with pytest.raises(DataError, match="mode RGB; expected one channel"):
        load(tmp_path / "colour")
    write(tmp_path / "new", "train", 4)
    write(tmp_path / "new", "val", 4, top=9)
    with pytest.raises(DataError, match="class 9 does not occur"):
        load(tmp_path / "new")
    write(tmp_path / "broken", "", 10)
    (tmp_path / "broken" / "images" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.png: image or mask cannot be read"):
        load(tmp_path / "broken")
    with pytest.raises(DataError, match="needs the path"):
        load_masks("folder", root=None, image_size=12, most_train=5, seed=0)


def test_the_digits_fill_quarters_and_train_and_test_share_none() -> None:
    found = load_masks("digits", root=None, image_size=16, most_train=1, seed=5)
    assert (len(found.train), len(found.test)) == (500, 200)
    assert found.classes == list(range(11))

    def quarters(part):
        pixels = part.images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * 64)
        masks = part.masks.unfold(1, 8, 8).unfold(2, 8, 8).reshape(-1, 64)
        return pixels, masks

    pixels, masks = quarters(found.train)
    assert (masks == masks[:, :1]).all()
    assert ((masks[:, 0] == 0) == (pixels.max(dim=1).values == 0)).all()
    assert 0.2 < (masks[:, 0] == 0).float().mean() < 0.3
    others, _ = quarters(found.test)
    shared = {tuple(x) for x in pixels.tolist()} & {tuple(x) for x in others.tolist()}
    assert shared == {(0,) * 192}
