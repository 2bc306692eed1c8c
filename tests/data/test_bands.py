"""Images that are not RGB: nothing of their values is lost on the way into a set, and views treat every band alike."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch.nn import functional as F

from headsearch.data.augment import Augmentation, Views, default_augmentation
from headsearch.data.bands import Bands
from headsearch.data.collection import Request
from headsearch.data.load import band_statistics, load_data
from headsearch.data.opening import CorruptImage
from headsearch.data.recipe import check_bands
from headsearch.data.sets import MemoryImages
from headsearch.errors import DataError, ExperimentError
from headsearch.experiment import DataSpec
from headsearch.training.augmentation import build_augmentation

RANDOM = np.random.default_rng(0)


def load(root: Path, channels: int, **settings: Any) -> Any:
    settings = {"dataset": "folder", "labels": "none", "seed": 0, "image_size": 8, **settings}
    return load_data(root=str(root), channels=channels, **settings)


def square(channels: int, kind: Any, side: int = 8) -> Any:
    return (RANDOM.random((side, side, channels)) * (200 if kind == np.uint8 else 60_000)).astype(kind)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32, np.float64, ">u2", "<f2"])
@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_an_array_is_read_as_it_is(tmp_path: Path, kind: Any, channels: int) -> None:
    image = (square(channels, np.float64) / 2).astype(kind)
    for layout in (image, np.moveaxis(image, -1, 0), np.asfortranarray(image)):
        np.save(tmp_path / "image.npy", layout)
        read = Bands(channels).read(str(tmp_path / "image.npy"), 8)
        assert read.dtype == (np.uint8 if kind == np.uint8 else np.float32)
        np.testing.assert_array_equal(read, image.astype(read.dtype))
        assert Bands(channels).size(str(tmp_path / "image.npy")) == (8, 8)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("layout", ["samples", "planes", "pages"])
def test_a_tiff_has_its_bands_as_samples_planes_or_pages(
    tmp_path: Path, kind: Any, compression: str | None, layout: str
) -> None:
    for width in (8, 6):
        image = square(13, kind)[:, :width]
        path = str(tmp_path / "image.tif")
        how: dict[str, Any] = {
            "samples": {"planarconfig": "contig"},
            "planes": {"planarconfig": "separate"},
            "pages": {"metadata": {"axes": "CYX"}},
        }[layout]
        planes = image if layout == "samples" else np.moveaxis(image, -1, 0)
        tifffile.imwrite(path, planes, photometric="minisblack", compression=compression, **how)
        assert Bands(13).size(path) == (width, 8)
        read = Bands(13).read(path, width)
        expected = image if width == 8 else Bands(13).from_array(image, width)
        np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("mode", ["L", "I;16", "I", "F", "RGB", "RGBA"])
def test_what_pillow_reads_without_loss_is_read(tmp_path: Path, mode: str) -> None:
    channels = {"RGB": 3, "RGBA": 4}.get(mode, 1)
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode, np.uint8)
    image = square(channels, kind)
    path = str(tmp_path / ("image.tif" if mode in "IF" else "image.png"))
    Image.fromarray(image[..., 0] if channels == 1 else image).save(path)
    np.testing.assert_array_equal(Bands(channels).read(path, 8), image.astype(np.float32))


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_bands_are_resized_each_as_pillow_resizes_an_image(kind: Any) -> None:
    image = square(3, kind, side=20)[:, :15]
    found = Bands(3).from_array(image, 10)
    if kind == np.uint8:
        box = (0, 2.5, 15, 17.5)
        expected = Image.fromarray(image).resize((10, 10), Image.Resampling.BILINEAR, box=box)
        np.testing.assert_array_equal(found, np.asarray(expected))
        return
    # Antialiased bilinear, by torch. 15 of 20 rows: an offset of 2.5 pixels, which torch has no word for, so rows are doubled first.
    tall = torch.from_numpy(image.repeat(2, axis=0).repeat(2, axis=1)).permute(2, 0, 1)[None, :, 5:35]
    expected = F.interpolate(tall, size=(10, 10), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0.25)
    flat = Bands(3).from_array(np.full((20, 15, 3), 12_345.678, np.float32), 10)
    np.testing.assert_allclose(flat, 12_345.678, rtol=1e-6)


def test_the_type_of_an_array_is_known_whatever_its_first_images_are(tmp_path: Path) -> None:
    images = np.arange(400 * 64, dtype=np.float32).reshape(400, 8, 8)
    images[:50] = np.nan
    np.savez(tmp_path / "gaps.npz", train_images=images, test_images=images[50:100])
    dataset = load(tmp_path / "gaps.npz", 1, dataset="npz")
    assert (len(dataset.train), len(dataset.held_out), len(dataset.left_out)) == (350, 50, 50)


@pytest.mark.parametrize("shape", [(30, 40, 4), (4, 30, 40)])
def test_an_array_of_a_sequence_may_have_its_bands_first(shape: tuple[int, ...]) -> None:
    images = RANDOM.random((2, *shape))
    source = Request(None, labels=False, pixels=Bands(4)).part(list(images), None, "sky").source
    assert source.size(1) == (40, 30)
    last = images[1] if shape[-1] == 4 else np.moveaxis(images[1], 0, -1)
    np.testing.assert_array_equal(source.read(1, 30), last[:, 5:35].astype(np.float32))


def test_sixteen_bits_keep_what_eight_would_lose(tmp_path: Path) -> None:
    np.savez(tmp_path / "deep.npz", images=np.arange(40 * 64, dtype=np.uint16).reshape(40, 8, 8))
    dataset = load(tmp_path / "deep.npz", 1, dataset="npz")
    values = torch.cat([dataset.train.images, dataset.held_out.images]).flatten()
    assert sorted(values.tolist()) == list(range(40 * 64))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((8, 8, 5)), r"shape \(8, 8, 5\); expected \[H, W, 4\] or \[4, H, W\]"),
        (np.zeros((8, 8, 4), complex), "values of type complex128; expected integers or floats"),
        (np.full((8, 8, 4), np.nan), "values that are not finite"),
        (np.full((8, 8, 4), 1e300), "values that are not finite"),
        (np.array([{}]), "holds Python objects"),
    ],
)
def test_an_array_that_is_no_image_is_told_why(tmp_path: Path, content: Any, message: str) -> None:
    np.save(tmp_path / "image.npy", content, allow_pickle=True)
    with pytest.raises(CorruptImage, match=message):
        Bands(4).read(str(tmp_path / "image.npy"), 8)


def test_damaged_files_are_corrupt_and_nothing_else(tmp_path: Path) -> None:
    image = square(4, np.uint16)
    np.save(tmp_path / "a.npy", image)
    tifffile.imwrite(
        tmp_path / "b.tif", image, photometric="minisblack", planarconfig="contig", compression="zlib"
    )
    for path in (tmp_path / "a.npy", tmp_path / "b.tif"):
        whole, refused = path.read_bytes(), 0
        for seed in range(20):
            random = np.random.default_rng(seed)
            damaged = bytearray(whole[: int(random.integers(1, len(whole)))] if seed % 2 else whole)
            for place in random.integers(0, min(len(damaged), 200), size=seed % 5):
                damaged[place] = int(random.integers(256))
            for read in (lambda file: Bands(4).read(file, 8), Bands(4).size):
                try:
                    read(io.BytesIO(bytes(damaged)))
                except CorruptImage:
                    refused += 1
        assert 0 < refused < 40, path.name


def test_colours_deeper_than_pillow_keeps_are_refused(tmp_path: Path) -> None:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    rows = b"".join(b"\0" + bytes(8 * 6) for _ in range(8))
    header = (8).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "deep.png").write_bytes(png)
    with pytest.raises(CorruptImage, match="PNG of mode RGB, 16 bits a channel; expected grey"):
        Bands(3).read(str(tmp_path / "deep.png"), 8)


def class_folders(root: Path, count: int = 30, kind: Any = np.uint16) -> None:
    for number in range(count):
        (root / str(number % 2)).mkdir(parents=True, exist_ok=True)
        np.save(root / str(number % 2) / f"{number}.npy", square(5, kind))


@pytest.mark.parametrize("memory_limit", [2**30, 0])
def test_folders_of_arrays_give_the_same_from_memory_and_from_files(
    tmp_path: Path, memory_limit: int
) -> None:
    class_folders(tmp_path)
    dataset = load(tmp_path, 5, labels="probe", memory_limit=memory_limit)
    assert isinstance(dataset.train, MemoryImages) is (memory_limit > 0)
    assert "5 bands as they are" in dataset.understood()
    (pixels, index), *_ = dataset.train.batches(100)
    assert (pixels.dtype, tuple(pixels.shape)) == (torch.float32, (24, 5, 8, 8))
    files = sorted(f"{number % 2}/{number}.npy" for number in range(30))
    kept = load(tmp_path, 5, labels="probe").train.images
    assert torch.equal(pixels, kept[index])
    assert {tuple(x.flatten().tolist()) for x in pixels} <= {
        tuple(np.load(tmp_path / file).transpose(2, 0, 1).flatten().astype(float).tolist()) for file in files
    }
    values = pixels.double().numpy()
    np.testing.assert_allclose(dataset.mean, values.mean(axis=(0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(dataset.std, values.std(axis=(0, 2, 3)), rtol=1e-9)


def test_files_of_another_depth_are_left_out(tmp_path: Path) -> None:
    class_folders(tmp_path)
    np.save(tmp_path / "1" / "zzz.npy", square(5, np.uint8))
    dataset = load(tmp_path, 5)
    assert dataset.left_out.unreadable == {
        "1/zzz.npy": "8 bits a channel, where the others have more than 8 bits a channel"
    }


def test_arrays_in_a_folder_read_as_rgb_are_hinted_at(tmp_path: Path) -> None:
    class_folders(tmp_path)
    with pytest.raises(
        DataError, match=r"its \.npy files are read where data\.channels is their number of bands"
    ):
        load(tmp_path, "rgb")  # type: ignore[arg-type]
    (tmp_path / "1" / "a.tar").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"its \.npy files .*; its \.tar shards are read with data\.dataset: webdataset"
    ):
        load(tmp_path, "rgb")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "channels", "message"),
    [
        (
            np.zeros((9, 8, 8, 13), np.uint8),
            12,
            r"shape \(8, 8, 13\); expected \[H, W, 12\] or \[12, H, W\], which is data.channels",
        ),
        (np.zeros((9, 8, 8, 13), np.uint8), "rgb", "data.channels set to a number of bands"),
        (np.zeros((9, 8, 8), np.uint16), "rgb", "data.channels set to a number of bands"),
        (np.zeros((9, 8, 8), complex), 1, "values of type complex128"),
    ],
)
def test_an_npz_of_other_bands_is_one_line(tmp_path: Path, images: Any, channels: Any, message: str) -> None:
    np.savez(tmp_path / "data.npz", images=images)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "data.npz", channels, dataset="npz")


def test_train_and_test_of_different_types_are_refused(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "data.npz",
        train_images=np.zeros((9, 8, 8), np.uint8),
        test_images=np.zeros((9, 8, 8), np.uint16),
    )
    with pytest.raises(DataError, match="values of different types, float32 and uint8"):
        load(tmp_path / "data.npz", 1, dataset="npz")


def test_statistics_are_exact_far_from_zero_and_where_nothing_varies() -> None:
    images = 290 + 1e-2 * torch.rand(600, 3, 4, 4)
    images[:, 2] = 0.1
    mean, std = band_statistics(images)
    np.testing.assert_allclose(mean, images.double().mean(dim=(0, 2, 3)).numpy(), rtol=1e-12)
    expected = images.double().numpy().std(axis=(0, 2, 3))
    np.testing.assert_allclose(std[:2], expected[:2], rtol=1e-9)
    assert std[2] == 1.0


def views_of(images: torch.Tensor, recipe: Augmentation) -> list[torch.Tensor]:
    mean, std = band_statistics(images)
    views = Views(recipe, image_size=32, mean=mean, std=std, channels=images.shape[1])
    return views(images, torch.Generator().manual_seed(0), "cpu")


RECIPE = default_augmentation("folder", 32, 5)


def test_views_of_bands_depend_on_neither_unit_nor_zero() -> None:
    images = torch.rand(8, 5, 36, 36)
    units, zeros = torch.tensor([1.0, 3.0, 1e-3, 65_535.0, 20.0]), torch.tensor([0.0, -5.0, 1.0, 0.0, 300.0])
    others = images * units[:, None, None] + zeros[:, None, None]
    for plain, other in zip(views_of(images, RECIPE), views_of(others, RECIPE), strict=True):
        torch.testing.assert_close(other, plain, atol=2e-3, rtol=0)


def test_every_band_has_a_contrast_and_a_shift_of_its_own() -> None:
    images = torch.rand(64, 1, 32, 32).expand(-1, 5, -1, -1).contiguous()
    recipe = Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=1.0, saturation=0.0, hue=0.0, grayscale=0.0,
                          blur=(0.0, 0.0), solarize=(0.0, 0.0))  # fmt: skip
    view = views_of(images, recipe)[0]
    mean, std = band_statistics(images)
    plain = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    gain = view.std(dim=(2, 3)) / plain.std(dim=(2, 3))
    shift = view.mean(dim=(2, 3)) - plain.mean(dim=(2, 3))
    for drawn, low, high in ((gain, 0.6, 1.4), (shift, -0.4, 0.4)):
        assert low - 1e-4 <= float(drawn.min()) < low + 0.05
        assert high - 0.05 < float(drawn.max()) <= high + 1e-4
        assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 0.35
    torch.testing.assert_close(
        view, gain[..., None, None] * (plain - plain.mean(dim=(2, 3), keepdim=True)) + view.mean(dim=(2, 3), keepdim=True),
        atol=1e-4, rtol=0,
    )  # fmt: skip
    assert float(view.max()) > 1.0, "nothing is clipped"


def test_rows_of_a_batch_have_the_views_they_have_in_the_whole() -> None:
    images = torch.rand(8, 5, 36, 36)
    mean, std = band_statistics(images)
    views = Views(RECIPE, image_size=32, mean=mean, std=std, channels=5)
    whole = views(images, torch.Generator().manual_seed(0), "cpu")
    part = views(images[2:5], torch.Generator().manual_seed(0), "cpu", rows=slice(2, 5), batch_size=8)
    for all_of_it, some in zip(whole, part, strict=True):
        torch.testing.assert_close(all_of_it[2:5], some)


@pytest.mark.parametrize("name", ["saturation", "hue", "grayscale", "solarize"])
def test_what_needs_colours_is_refused_for_bands(name: str) -> None:
    value = [0.0, 0.2] if name == "solarize" else 0.2
    with pytest.raises(
        ExperimentError, match=f"data.augmentation: augmentation {name}: got .*bands are no colours"
    ):
        build_augmentation(DataSpec(channels=5, augmentation={name: value}))
    check_bands(build_augmentation(DataSpec(channels=5)))


def test_an_experiment_that_is_rgb_is_written_as_of_old() -> None:
    assert "channels" not in DataSpec().model_dump()
    assert DataSpec(channels=3).model_dump()["channels"] == 3
