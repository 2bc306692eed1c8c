"""Image sets: order, shuffling, and the same pixels from memory and from files."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Literal

import pytest
import torch
from PIL import Image
from torch import Tensor

from headsearch.data.decode import decode_all
from headsearch.data.left_out import LeftOut
from headsearch.data.sets import ImageSet, MemoryImages, StreamedImages
from headsearch.data.sources import FileSource
from headsearch.errors import DataError


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    pixels = torch.randint(0, 256, (23, 20, 30, 3), generator=generator(0), dtype=torch.uint8).numpy()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    return FileSource(tmp_path, [f"{number:02}.png" for number in range(23)])


def in_memory(source: FileSource) -> MemoryImages:
    images, _, _ = decode_all(source, range(len(source)), 16)
    return MemoryImages(images, torch.arange(len(source)) % 3)


def all_of(images: ImageSet, **options: object) -> tuple[list[Tensor], list[Tensor]]:
    batches = list(images.batches(5, **options))  # type: ignore[arg-type]
    return [batch for batch, _ in batches], [index for _, index in batches]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("seed", [None, 7])
def test_streaming_gives_what_memory_gives(
    source: FileSource, workers: int, drop_last: bool, seed: int | None
) -> None:
    streamed = StreamedImages(source, list(range(23)), 16, workers=workers)
    options = {"drop_last": drop_last}
    draw = {} if seed is None else {"generator": generator(seed)}
    pixels, index = all_of(in_memory(source), **options, **draw)
    draw = {} if seed is None else {"generator": generator(seed)}
    streamed_pixels, streamed_index = all_of(streamed, **options, **draw)
    assert len(pixels) == len(streamed_pixels) == (4 if drop_last else 5)
    assert all(torch.equal(one, other) for one, other in zip(pixels, streamed_pixels, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(index, streamed_index, strict=True))
    assert pixels[0].dtype == torch.uint8
    assert pixels[0].shape == (5, 3, 16, 16)


def test_images_are_decoded_by_as_many_processes_as_this_one_has_cores(
    source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = len(multiprocessing.active_children())
    for share in (1, 3):
        monkeypatch.setenv("HEADSEARCH_CORES", str(share))
        batches = StreamedImages(source, list(range(23)), 16).batches(5)
        next(batches)
        assert len(multiprocessing.active_children()) - others == share - 1
        assert len(list(batches)) == 4


def test_a_pass_visits_every_image_once_and_the_index_says_which(source: FileSource) -> None:
    images = in_memory(source)
    pixels, index = all_of(images, generator=generator(3))
    assert torch.cat(index).sort().values.tolist() == list(range(23))
    assert torch.cat(index).tolist() != list(range(23))
    assert torch.equal(torch.cat(pixels), images.images[torch.cat(index)])


def test_the_generator_decides_and_moves_on(source: FileSource) -> None:
    images, draw = in_memory(source), generator(3)
    first, second = torch.cat(all_of(images, generator=draw)[1]), torch.cat(all_of(images, generator=draw)[1])
    again = torch.cat(all_of(images, generator=generator(3))[1])
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_streaming_leaves_the_global_random_state_alone(source: FileSource) -> None:
    before = torch.get_rng_state()
    list(StreamedImages(source, list(range(23)), 16, workers=1).batches(5))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_streaming_leaves_broken_files_out_and_names_them_once(source: FileSource, workers: int) -> None:
    (source.root / "06.png").write_bytes(b"broken")
    streamed = StreamedImages(source, list(range(5, 23)), 16, workers=workers)
    for _ in range(2):
        batches = list(streamed.batches(6))
        assert [len(pixels) for pixels, _ in batches] == [5, 6, 6]
        assert torch.cat([index for _, index in batches]).tolist() == [0, *range(2, 18)]
    assert streamed.left_out.unreadable == {"06.png": "not an image of a known format"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_breaks_between_two_passes_is_noted_and_not_repeated_silently(
    source: FileSource, workers: int
) -> None:
    streamed = StreamedImages(source, list(range(23)), 16, workers=workers)
    order = [torch.arange(8), torch.arange(8, 16)]
    assert [len(pixels) for pixels in streamed.read(order)] == [8, 8]
    assert not streamed.left_out
    os.truncate(source.root / "10.png", 200)
    first, second = streamed.read(order)
    whole = in_memory(source).images
    assert torch.equal(first, whole[:8])
    assert torch.equal(second[2], second[3])
    assert list(streamed.left_out.unreadable) == ["10.png"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("rule", ["refuse", "accept"])
def test_a_stream_ends_by_the_rule_where_too_many_files_break(
    source: FileSource, workers: int, rule: Literal["refuse", "accept"]
) -> None:
    for number in range(4, 9):
        (source.root / f"{number:02}.png").unlink()
    streamed = StreamedImages(
        source, list(range(23)), 16, left_out=LeftOut(rule=rule, files=23, place="'pics'"), workers=workers
    )
    if rule == "accept":
        assert sum(len(pixels) for pixels, _ in streamed.batches(6)) == 18
        return
    with pytest.raises(DataError, match=r"5 of 23 files of 'pics' cannot be read: 04.png") as error:
        list(streamed.batches(6))
    assert "\n" not in str(error.value)


def test_a_disk_that_is_gone_ends_a_stream_soon(tmp_path: Path) -> None:
    source = FileSource(tmp_path, [f"{number}.png" for number in range(100_000)])
    streamed = StreamedImages(source, list(range(100_000)), 16, left_out=LeftOut(rule="accept"), workers=0)
    with pytest.raises(DataError, match="images in a row cannot be read"):
        list(streamed.read([torch.arange(8)]))
