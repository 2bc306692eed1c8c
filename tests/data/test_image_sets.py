"""Image sets: order, shuffling, and the same pixels from memory and from files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from headsearch.data.decode import decode_all
from headsearch.data.sets import ImageSet, MemoryImages, StreamedImages
from headsearch.data.sources import FileSource


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


@pytest.mark.parametrize("workers", [0, 1])
def test_streaming_leaves_broken_files_out_and_names_them_once(source: FileSource, workers: int) -> None:
    (source.root / "06.png").write_bytes(b"broken")
    streamed = StreamedImages(source, list(range(5, 23)), 16, workers=workers)
    for _ in range(2):
        batches = list(streamed.batches(6))
        assert [len(pixels) for pixels, _ in batches] == [5, 6, 6]
        assert torch.cat([index for _, index in batches]).tolist() == [0, *range(2, 18)]
    assert streamed.skipped == ["06.png: not an image that Pillow can read"]
