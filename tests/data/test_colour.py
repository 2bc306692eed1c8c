"""Colour matrices against torchvision, on values that no step clips."""

from __future__ import annotations

import colorsys

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from headsearch.data.colour import colour_transforms, hue_matrices

UNCHANGED = (1.0, 1.0, 1.0, 0.0)


@pytest.fixture
def images() -> Tensor:
    return 0.3 + 0.3 * torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def change(images: Tensor, **factors: float) -> Tensor:
    names = ("brightness", "contrast", "saturation", "hue")
    row = [factors.get(name, default) for name, default in zip(names, UNCHANGED, strict=True)]
    matrix, offset = colour_transforms(torch.tensor([row]).expand(len(images), 4), images.mean(dim=(2, 3)))
    return torch.einsum("bij,bjhw->bihw", matrix, images) + offset[:, :, None, None]


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
def test_brightness_contrast_and_saturation_agree_with_torchvision(images: Tensor, factor: float) -> None:
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(
        change(images, brightness=factor), tv.adjust_brightness(images, factor), **close
    )
    torch.testing.assert_close(change(images, contrast=factor), tv.adjust_contrast(images, factor), **close)
    torch.testing.assert_close(
        change(images, saturation=factor), tv.adjust_saturation(images, factor), **close
    )


def test_a_chain_agrees_with_torchvision_step_by_step(images: Tensor) -> None:
    expected = tv.adjust_saturation(tv.adjust_contrast(tv.adjust_brightness(images, 1.2), 0.7), 1.3)
    ours = change(images, brightness=1.2, contrast=0.7, saturation=1.3)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_saturation_of_zero_is_torchvisions_grayscale(images: Tensor) -> None:
    expected = tv.rgb_to_grayscale(images, num_output_channels=3)
    torch.testing.assert_close(change(images, saturation=0.0), expected, atol=1e-5, rtol=0)


def test_hue_keeps_grey_and_brightness_and_comes_full_circle(images: Tensor) -> None:
    grey = torch.full((1, 3, 2, 2), 0.4)
    torch.testing.assert_close(change(grey, hue=0.3), grey, atol=1e-6, rtol=0)
    luma = tv.rgb_to_grayscale(images)
    torch.testing.assert_close(tv.rgb_to_grayscale(change(images, hue=0.2)), luma, atol=2e-4, rtol=0)
    torch.testing.assert_close(hue_matrices(torch.ones(1))[0], torch.eye(3), atol=1e-5, rtol=0)
    third = hue_matrices(torch.full((1,), 1 / 3))[0]
    torch.testing.assert_close(third @ third @ third, torch.eye(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("turns", [-0.1, -0.05, 0.05, 0.1])
def test_hue_turns_about_as_far_as_torchvisions(turns: float) -> None:
    colours = 0.4 + 0.2 * torch.rand(2000, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    turned = change(colours, hue=turns)

    def hues(images: Tensor) -> Tensor:
        return torch.tensor([colorsys.rgb_to_hsv(*colour)[0] for colour in images.flatten(1).tolist()])

    moved = (hues(turned) - hues(colours) + 0.5) % 1 - 0.5
    torchvisions = (hues(tv.adjust_hue(colours, turns)) - hues(colours) + 0.5) % 1 - 0.5
    assert abs(torchvisions.mean() - turns) < 1e-3
    assert abs(moved.mean() - turns) < 0.1 * abs(turns)
    assert (moved.sign() == torch.tensor(turns).sign()).float().mean() > 0.99
