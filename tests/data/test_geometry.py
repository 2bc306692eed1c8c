"""Crops, resizing and blur against Pillow and torchvision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torchvision.transforms.v2 import functional as tv

from headsearch.data.geometry import blur_kernel_size, blur_matrices, crop_boxes, resize_matrices


@given(
    low=st.floats(0.01, 1.0),
    span=st.floats(0.0, 1.0),
    narrow=st.floats(0.1, 1.0),
    wide=st.floats(1.0, 10.0),
    seed=st.integers(0, 2**32),
)
def test_crops_lie_inside_the_image(low: float, span: float, narrow: float, wide: float, seed: int) -> None:
    scale = (low, low + span * (1 - low))
    boxes = crop_boxes(64, scale, (narrow, wide), torch.Generator().manual_seed(seed))
    left, top, width, height = boxes.unbind(dim=1)
    assert boxes.min() >= 0
    assert (left + width).max() <= 1 + 1e-6
    assert (top + height).max() <= 1 + 1e-6
    whole = (width == 1) & (height == 1)
    area, ratio = (width * height)[~whole], (width / height)[~whole]
    assert ((area >= scale[0] - 1e-5) & (area <= scale[1] + 1e-5)).all()
    assert ((ratio >= narrow - 1e-4) & (ratio <= wide * 1.0001)).all()


def test_crops_are_spread_evenly_over_area_log_ratio_and_position() -> None:
    boxes = crop_boxes(20_000, (0.1, 0.4), (0.5, 2.0), torch.Generator().manual_seed(0)).numpy()
    left, top, width, height = boxes.T
    for sample, low, high in [
        (width * height, 0.1, 0.4),
        (np.log(width / height), math.log(0.5), math.log(2)),
        (left / (1 - width), 0, 1),
        (top / (1 - height), 0, 1),
    ]:
        assert stats.kstest(sample, "uniform", args=(low, high - low)).pvalue > 1e-3


def test_crops_that_never_fit_become_the_whole_image() -> None:
    boxes = crop_boxes(10, (0.9, 1.0), (4.0, 5.0), torch.Generator().manual_seed(0))
    assert torch.equal(boxes, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(10, 4))


@pytest.mark.parametrize("size_out", [9, 24, 40, 61])
def test_resizing_a_crop_agrees_with_pillow(size_out: int) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(40, 40, generator=generator)
    boxes = 40 * crop_boxes(8, (0.1, 1.0), (0.5, 2.0), generator)
    left, top, width, height = boxes.unbind(dim=1)
    upright = torch.zeros(8, dtype=torch.bool)
    rows = resize_matrices(top, height, upright, 40, size_out)
    columns = resize_matrices(left, width, upright, 40, size_out)
    ours = rows @ image @ columns.transpose(1, 2)
    picture = Image.fromarray(image.numpy())
    for row, (x, y, across, down) in enumerate(boxes.tolist()):
        box = (x, y, min(x + across, 40), min(y + down, 40))
        expected = np.asarray(picture.resize((size_out, size_out), Image.Resampling.BILINEAR, box=box))
        np.testing.assert_allclose(ours[row].numpy(), expected, atol=2e-5)


def test_a_flip_runs_backwards() -> None:
    start, length = torch.tensor([3.0, 3.0]), torch.tensor([11.5, 11.5])
    straight, flipped = resize_matrices(start, length, torch.tensor([False, True]), 20, 8)
    assert torch.allclose(straight.flip(0), flipped, atol=1e-6)


def test_an_uncropped_line_of_the_same_size_is_untouched() -> None:
    matrix = resize_matrices(torch.zeros(1), torch.full((1,), 32.0), torch.zeros(1, dtype=torch.bool), 32, 32)
    assert torch.equal(matrix[0], torch.eye(32))


@pytest.mark.parametrize("size", [32, 40, 64])
def test_blur_agrees_with_torchvision(size: int) -> None:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(4, 3, size, size, generator=generator)
    sigma = torch.tensor([0.1, 0.5, 1.3, 2.0])
    blurs = blur_matrices(sigma, size)
    ours = blurs[:, None] @ images @ blurs.transpose(1, 2)[:, None]
    kernel = blur_kernel_size(size)
    for row, value in enumerate(sigma.tolist()):
        expected = tv.gaussian_blur(images[row], [kernel, kernel], [value, value])
        torch.testing.assert_close(ours[row], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "kernel"), [(16, 1), (29, 3), (32, 3), (96, 9), (224, 23)])
def test_the_kernel_spans_a_tenth_of_the_image(size: int, kernel: int) -> None:
    assert blur_kernel_size(size) == kernel
