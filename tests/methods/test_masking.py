"""What is hidden stays hidden, from bases of every kind, and masks are of the sizes asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from headsearch.base.model import Base, load_base
from headsearch.methods.masking import (
    Masking,
    block_masks,
    embeds_patches_one_by_one,
    patches,
    random_masks,
    tokens,
)

BASES: dict[str, tuple[dict[str, Any], bool]] = {
    "vit_tiny_patch16_224": ({"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}, True),
    "swin_tiny_patch4_window7_224": (
        {"patch_size": 4, "window_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1]},
        True,
    ),
    "resnet10t": ({"channels": [8, 8, 16, 16]}, False),
    "convnext_atto": ({"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}, False),
    "hiera_tiny_224": ({"embed_dim": 8, "num_heads": 1, "stages": (1, 1, 1, 1)}, False),
}
"""With their keywords, and whether a patch is hidden by its embedding."""


def make(model: str) -> tuple[Base, Masking]:
    torch.manual_seed(0)
    kwargs, _ = BASES[model]
    base = load_base(model, image_size=64, kwargs=kwargs).eval()
    masking = Masking(base)
    masking.attach(base)
    return base, masking


def squares(mask_BHW: Tensor, size: int) -> Tensor:
    """The mask in pixels, [B, 1, size, size]."""
    side = size // mask_BHW.shape[1]
    return torch.kron(mask_BHW, torch.ones(1, side, side, dtype=torch.bool))[:, None]


@pytest.mark.parametrize("model", BASES)
def test_a_base_sees_nothing_of_what_is_hidden_and_all_of_the_rest(model: str) -> None:
    base, masking = make(model)
    assert embeds_patches_one_by_one(base.model) is BASES[model][1]
    images, others = torch.randn(2, 2, 3, 64, 64)
    mask = random_masks(2, base.info.grid, 0.5, torch.Generator().manual_seed(0))
    hidden = squares(mask, 64)
    seen = masking(base, images, mask)
    assert all(
        torch.equal(a, b)
        for a, b in zip(seen, masking(base, torch.where(hidden, others, images), mask), strict=True)
    )
    assert not torch.allclose(seen.map, masking(base, torch.where(hidden, images, others), mask).map)
    assert not torch.allclose(seen.map, base(images).map)


@pytest.mark.parametrize("model", BASES)
def test_nothing_hidden_is_the_base_as_it_is(model: str) -> None:
    base, masking = make(model)
    images = torch.randn(2, 3, 64, 64)
    nothing = torch.zeros(2, *base.info.grid, dtype=torch.bool)
    expected = load_base(model, image_size=64, kwargs=BASES[model][0])
    expected.load_state_dict(base.state_dict())
    assert torch.equal(masking(base, images, nothing).map, expected.eval()(images).map)
    assert torch.equal(base(images).map, expected(images).map)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnet10t"])
def test_the_stand_in_is_learned(model: str) -> None:
    base, masking = make(model)
    mask = random_masks(2, base.info.grid, 0.5, None)
    masking(base, torch.randn(2, 3, 64, 64), mask).map.square().sum().backward()
    assert masking.token.grad is not None
    assert masking.token.grad.abs().sum() > 0


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_random_masks_hide_the_same_number_everywhere(
    height: int, width: int, ratio: float, seed: int
) -> None:
    masks = random_masks(5, (height, width), ratio, torch.Generator().manual_seed(seed))
    assert masks.shape == (5, height, width)
    [hidden] = set(masks.sum(dim=(1, 2)).tolist())
    # Halves are rounded either way, by single precision.
    assert abs(hidden - ratio * height * width) <= 0.5 + 1e-4 or hidden == 1


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_block_masks_hide_as_much_as_asked(height: int, width: int, seed: int) -> None:
    ratios = torch.tensor([0.0, 0.1, 0.33, 0.5, 1.0])
    masks = block_masks(5, (height, width), ratios, torch.Generator().manual_seed(seed))
    expected = [(ratio * height * width).round().long() for ratio in ratios]
    assert masks.sum(dim=(1, 2)).tolist() == expected


def test_block_masks_hide_what_lies_together() -> None:
    ratios = torch.full((200,), 0.4)
    blocks = block_masks(200, (14, 14), ratios, torch.Generator().manual_seed(0))
    scattered = random_masks(200, (14, 14), 0.4, torch.Generator().manual_seed(0))

    def alike(masks: Tensor) -> float:
        return float((masks[:, 1:] == masks[:, :-1]).float().mean())

    assert alike(scattered) == pytest.approx(0.4**2 + 0.6**2, abs=0.02)
    assert alike(blocks) > 0.8
    # The middle is hidden most, as wherever rectangles lie at random, but no side is favoured.
    often = blocks.float().mean(dim=0)
    for half in (often[:7], often[7:], often[:, :7], often[:, 7:]):
        assert float(half.mean()) == pytest.approx(0.4, abs=0.05)


def test_tokens_and_patches_come_in_the_same_order() -> None:
    images, feature_map = torch.randn(2, 3, 12, 12), torch.randn(2, 5, 4, 4)
    mask = random_masks(2, (4, 4), 0.5, None)
    hidden = mask.flatten().nonzero().flatten()
    unfolded = F.unfold(images, kernel_size=3, stride=3).transpose(1, 2)
    assert torch.equal(patches(images, (4, 4), hidden), unfolded[mask.flatten(1)])
    assert torch.equal(tokens(feature_map, hidden), feature_map.permute(0, 2, 3, 1)[mask])
