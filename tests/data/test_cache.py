"""The cache of decoded images: the same pixels, decoded once, whatever happens to the files or to who writes them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import files_of_at_most
from numpy.typing import NDArray
from PIL import Image

from headsearch.data.cache import Cached, cache_folder
from headsearch.data.load import load_data
from headsearch.data.sets import Dataset, MemoryImages, StreamedImages
from headsearch.data.sources import FileSource
from headsearch.errors import DataError
from headsearch.experiment import parse_experiment
from headsearch.runs.directory import changed_keys
from headsearch.search.zero_cost import ZeroCostScorer

COUNT = 40
CANVAS = 18


class Counting(FileSource):
    """Keeps the numbers of the images that were decoded."""

    def __init__(self, root: Path, files: list[str]) -> None:
        super().__init__(root, files)
        self.decoded: list[int] = []

    def read(self, index: int, canvas: int) -> NDArray[Any]:
        self.decoded.append(index)
        return super().read(index, canvas)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 20, 30, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        folder = root / ("ape", "bee")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def source(root: Path) -> Counting:
    return Counting(root, sorted(str(path.relative_to(root)) for path in root.rglob("*.png")))


def cached(root: Path, folder: Path) -> tuple[Cached, Counting]:
    files = source(root)
    return Cached(files, CANVAS, folder), files


def all_pixels(images: Cached | FileSource) -> NDArray[Any]:
    return np.stack([images.read(index, CANVAS) for index in range(len(images))])


def load(root: Path, **options: object) -> Dataset:
    settings = {"image_size": 16, "labels": "probe", "seed": 0, "root": str(root)} | options
    return load_data("folder", **settings)  # type: ignore[arg-type]


def test_every_image_is_decoded_once_and_stays_the_same(images: Path, folder: Path) -> None:
    plain = all_pixels(source(images))
    first, files = cached(images, folder)
    np.testing.assert_array_equal(all_pixels(first), plain)
    np.testing.assert_array_equal(all_pixels(first), plain)
    assert files.decoded == list(range(COUNT))
    again, files = cached(images, folder)
    np.testing.assert_array_equal(all_pixels(again), plain)
    assert files.decoded == []
    assert again.trouble == ""


def test_it_is_an_array_that_numpy_reads(images: Path, folder: Path) -> None:
    images_in_it, _ = cached(images, folder)
    plain = all_pixels(images_in_it)
    array = np.load(images_in_it.path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(array.transpose(0, 2, 3, 1), plain)


def test_what_was_there_when_a_job_was_killed_is_not_decoded_again(images: Path, folder: Path) -> None:
    def fill() -> None:
        slow, _ = cached(images, folder)
        for index in range(5):
            slow.read(index, CANVAS)
        time.sleep(3600)

    process = multiprocessing.get_context("fork").Process(target=fill)
    process.start()
    found, files = cached(images, folder)
    while found.lacking(range(COUNT))[0] > COUNT - 5:
        assert process.is_alive()
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    lacking, size = found.lacking(range(COUNT))
    assert lacking == COUNT - 5
    assert size == lacking * CANVAS * CANVAS * 3
    np.testing.assert_array_equal(all_pixels(found), all_pixels(source(images)))
    assert len(files.decoded) == lacking


def test_several_processes_fill_one_cache_at_once(images: Path, folder: Path) -> None:
    plain = all_pixels(source(images))

    def fill(seed: int) -> None:
        mine, _ = cached(images, folder)
        for index in np.random.default_rng(seed).permutation(COUNT):
            np.testing.assert_array_equal(mine.read(int(index), CANVAS), plain[index])
        assert mine.trouble == ""

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fill, args=(seed,)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert [path for path in folder.iterdir() if path.is_dir()] == [cached(images, folder)[0].path]
    full, files = cached(images, folder)
    np.testing.assert_array_equal(all_pixels(full), plain)
    assert files.decoded == []


def test_a_damaged_image_is_decoded_again_and_mended(images: Path, folder: Path) -> None:
    plain = all_pixels(cached(images, folder)[0])
    damaged, files = cached(images, folder)
    with (damaged.path / "images.npy").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"damage")
    np.testing.assert_array_equal(all_pixels(damaged), plain)
    assert files.decoded == [COUNT - 1]
    assert "damaged images in" in damaged.trouble
    mended, files = cached(images, folder)
    np.testing.assert_array_equal(all_pixels(mended), plain)
    assert files.decoded == []


@pytest.mark.parametrize("damage", ["shortened", "another array", "another text", "removed", "a file"])
def test_a_damaged_cache_is_made_anew_and_that_is_said_once(images: Path, folder: Path, damage: str) -> None:
    whole, _ = cached(images, folder)
    plain = all_pixels(whole)
    if damage == "shortened":
        os.truncate(whole.path / "images.npy", 1000)
    elif damage == "another array":
        np.save(whole.path / "images.npy", np.zeros(3))
    elif damage == "another text":
        (whole.path / "made_from.json").write_bytes(b"\xff{}")
    elif damage == "removed":
        (whole.path / "checksums.npy").unlink()
    else:
        whole.path.rename(folder / "away")
        whole.path.write_text("no folder")
    data = load(images, cache=str(folder))
    assert [line for line in data.told() if "damaged and is made anew" in line]
    assert isinstance(data.train, MemoryImages)
    assert torch.equal(data.train.images, load(images).train.images)  # type: ignore[attr-defined]
    assert not [line for line in load(images, cache=str(folder)).told() if "made anew" in line]
    found, files = cached(images, folder)
    np.testing.assert_array_equal(all_pixels(found), plain)
    assert files.decoded == []


def test_a_cache_that_is_removed_or_cut_short_meanwhile_costs_time_alone(images: Path, folder: Path) -> None:
    open_one, files = cached(images, folder)
    plain = all_pixels(open_one)
    os.truncate(open_one.path / "images.npy", 1000)
    np.testing.assert_array_equal(all_pixels(open_one), plain)
    assert len(files.decoded) > COUNT
    elsewhere = pickle.loads(pickle.dumps(open_one))
    open_one._remove()
    np.testing.assert_array_equal(all_pixels(elsewhere), plain)
    assert "No such file" in elsewhere.trouble


def test_a_changed_image_is_decoded_again(images: Path, folder: Path) -> None:
    before = all_pixels(cached(images, folder)[0])
    Image.new("RGB", (20, 20)).save(images / "ape" / "00.png")
    after = all_pixels(cached(images, folder)[0])
    assert not np.array_equal(before[0], after[0])
    np.testing.assert_array_equal(after, all_pixels(source(images)))


def test_what_a_killed_creation_left_is_removed(images: Path, folder: Path) -> None:
    (folder / ".new-abc").mkdir(parents=True)
    cached(images, folder)
    assert not (folder / ".new-abc").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_is_full_ends_the_writing_and_nothing_else(
    images: Path, folder: Path, workers: int
) -> None:
    kept, _ = cached(images, folder)
    streamed = StreamedImages(kept, list(range(COUNT)), CANVAS, workers=workers)
    plain = all_pixels(source(images)).transpose(0, 3, 1, 2)
    for _ in range(2):
        with files_of_at_most(26 * CANVAS * CANVAS * 3):
            pixels = torch.cat([batch for batch, _ in streamed.batches(8)])
        np.testing.assert_array_equal(pixels.numpy(), plain)
    told = streamed.left_out.told_unreadable()
    assert len(told) == 1
    assert "cannot be written: File too large" in told[0]
    assert streamed.left_out.told_unreadable() == []


@pytest.mark.parametrize("memory_limit", [0, 2**30])
@pytest.mark.parametrize("channels", ["rgb", 3])
def test_a_data_set_is_the_same_with_it_and_without(
    images: Path, folder: Path, memory_limit: int, channels: str | int
) -> None:
    (images / "ape" / "04.png").write_bytes(b"broken")
    options = {"memory_limit": memory_limit, "channels": channels}
    expected = load(images, **options)
    for ready in (0, 39):
        found = load(images, cache=str(folder), **options)
        assert found.told()[1] == f"data.cache: {ready} of 40 images at 18 pixels are in '{folder}'"
        assert (found.mean, found.std) == (expected.mean, expected.std)
        for name in ("train", "held_out"):
            one, other = getattr(found, name), getattr(expected, name)
            draws = (torch.Generator().manual_seed(1) for _ in range(2))
            batches = [
                list(each.batches(7, generator=draw)) for each, draw in zip((one, other), draws, strict=True)
            ]
            for (pixels, index), (same_pixels, same_index) in zip(*batches, strict=True):
                assert torch.equal(pixels, same_pixels)
                assert torch.equal(index, same_index)
        assert found.left_out.unreadable == expected.left_out.unreadable


def test_a_search_on_fewer_images_and_an_evaluation_share_it(images: Path, folder: Path) -> None:
    load(images, cache=str(folder), subset=10)
    told = load(images, cache=str(folder), labels="none", prefer="test").told()
    assert told[1].startswith("data.cache: 18 of 40 images at 18 pixels")
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1


def test_it_is_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    experiments = [
        parse_experiment({"data": {"dataset": "digits"} | cache}) for cache in ({}, {"cache": str(tmp_path)})
    ]
    assert "cache" not in experiments[0].to_yaml()
    assert f"cache: {tmp_path}" in experiments[1].to_yaml()
    assert changed_keys(*experiments) == []
    assert ZeroCostScorer(experiments[0]).identity == ZeroCostScorer(experiments[1]).identity


def test_images_that_are_no_files_have_none(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"root": None, "image_size": 16, "labels": "none", "seed": 0}
    told = load_data("digits", cache=str(tmp_path / "cache"), **settings).told()
    assert told[1] == "data.cache: not used: these images are no files"
    assert load_data("digits", cache="auto", **settings).told() == load_data("digits", **settings).told()
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_is_none_is_refused_in_one_line(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r"data.cache: .*/file' cannot be used: .*; expected a folder"
    ) as error:
        load(images, cache=str(tmp_path / "file"))
    assert "\n" not in str(error.value)


def test_too_little_room_is_said_before_anything_is_decoded(
    images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        DataError, match=r"40 images at 60000 pixels take 402.3 GiB; .* GiB free; expected another"
    ):
        load(images, image_size=60_000, cache=str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    assert cache_folder("auto") == folder / "headsearch" / "images"
    assert load(images, cache="auto").told()[1].endswith(f"'{folder}/headsearch/images'")
