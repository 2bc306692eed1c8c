"""A ViT that sees a part of the patches, against lightly's, and the context and target blocks of I-JEPA."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightly.models.modules.masked_vision_transformer_timm import MaskedVisionTransformerTIMM
from torch import Tensor

from headsearch.base.model import Base, load_base
from headsearch.errors import ExperimentError
from headsearch.experiment import load_experiment
from headsearch.methods.masking import LeavingOut, context_masks, random_masks, tokens
from headsearch.training.evaluator import Evaluator

VIT = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


def make(model: str = "vit_tiny_patch16_224", **kwargs: Any) -> tuple[Base, LeavingOut]:
    torch.manual_seed(0)
    base = load_base(model, image_size=16, kwargs=VIT | kwargs).eval()
    leaving_out = LeavingOut(base)
    leaving_out.attach(base)
    return base, leaving_out


def some(ratio: float = 0.75, count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 16, 16, generator=generator), random_masks(count, (4, 4), ratio, generator)


@pytest.mark.parametrize(
    ("model", "kwargs"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_small_patch14_reg4_dinov2", {"init_values": 0.1}),
        ("vit_tiny_patch16_224", {"global_pool": "avg"}),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "class_token": False}),
    ],
    ids=["class token", "registers too", "mean of patches", "no class token"],
)
def test_what_is_seen_comes_out_as_from_lightlys_masked_vit(model: str, kwargs: dict[str, Any]) -> None:
    base, leaving_out = make(model, **kwargs)
    images, mask = some()
    lightly = MaskedVisionTransformerTIMM(
        vit=base.model, weight_initialization="skip", pos_embed_initialization="skip"
    )
    found = leaving_out(base, images, mask)
    seen = (~mask).flatten(1).nonzero()[:, 1].view(3, 4)
    prefix = base.model.num_prefix_tokens
    keep = torch.cat([torch.arange(prefix).expand(3, -1), seen + prefix], dim=1)
    expected = lightly.encode(images, idx_keep=keep)
    pooled = expected[:, prefix:].mean(dim=1) if "global_pool" in kwargs else expected[:, 0]
    torch.testing.assert_close(found.embedding, base.model.fc_norm(pooled))
    at_seen = base.model.norm(tokens(found.map, (~mask).flatten().nonzero().flatten()))
    torch.testing.assert_close(at_seen, expected[:, prefix:].flatten(0, 1))
    at_hidden = tokens(found.map, mask.flatten().nonzero().flatten())
    assert torch.equal(at_hidden, leaving_out.token.expand_as(at_hidden))
    others = torch.where(torch.kron(mask, torch.ones(1, 4, 4, dtype=torch.bool))[:, None], 7.0, images)
    assert all(torch.equal(a, b) for a, b in zip(found, leaving_out(base, others, mask), strict=True))


def test_with_nothing_hidden_it_is_the_base_as_it_is() -> None:
    base, leaving_out = make()
    images, _ = some()
    found, expected = leaving_out(base, images, torch.zeros(3, 4, 4, dtype=torch.bool)), base(images)
    torch.testing.assert_close(found.map, expected.map)
    torch.testing.assert_close(found.embedding, expected.embedding)


def test_images_may_show_different_numbers_of_patches() -> None:
    base, leaving_out = make()
    images, _ = some(count=5)
    masks = torch.cat([some(ratio, 1)[1] for ratio in (0.75, 0.25, 0.75, 0.5, 0.25)])
    together = leaving_out(base, images, masks)
    for place in range(5):
        alone = leaving_out(base, images[place : place + 1], masks[place : place + 1])
        torch.testing.assert_close(together.map[place], alone.map[0])
        torch.testing.assert_close(together.embedding[place], alone.embedding[0])


def test_the_stand_in_is_learned() -> None:
    base, leaving_out = make()
    leaving_out(base, *some()).map.square().sum().backward()
    assert leaving_out.token.grad is not None
    assert leaving_out.token.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("model", "kwargs", "message"),
    [
        ("resnet10t", {"channels": [8, 8, 16, 16]}, "leave patches out.*resnet10t is none"),
        ("vit_tiny_patch16_224", VIT | {"patch_size": [4, 8]}, "square grid.*16 pixels is 4x2"),
    ],
)
def test_a_base_that_cannot_is_refused_before_anything_is_written(
    model: str, kwargs: dict[str, Any], message: str
) -> None:
    experiment = load_experiment(
        "digits", [f"base.model={model}", f"base.kwargs={kwargs}", "method.name=mae"]
    )
    with pytest.raises(ExperimentError, match=message):
        Evaluator(experiment).prepare()


@given(st.integers(2, 16), st.integers(0, 1000), st.integers(1, 6))
def test_targets_weigh_the_same_in_every_image_and_context_is_as_large(
    side: int, seed: int, blocks: int
) -> None:
    def draw() -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return context_masks(
            7, (side, side), generator, blocks=blocks, targets=(0.15, 0.2), context=(0.85, 1.0)
        )

    masks = draw()
    assert torch.equal(masks, draw())
    [context] = set((masks == 0).sum(dim=(1, 2)).tolist())
    assert context >= side**2 / 4
    [weight] = set(masks.clamp_min(0).sum(dim=(1, 2)).tolist())
    assert weight % blocks == 0
    # Rounding of both sides of a block.
    assert (0.15**0.5 * side - 1) ** 2 <= weight / blocks <= (0.2**0.5 * side + 1) ** 2
    assert masks.min() >= -1
    assert masks.max() <= blocks


def test_blocks_are_rectangles_cut_out_of_a_context() -> None:
    (mask,) = context_masks(
        1, (14, 14), torch.Generator().manual_seed(3), blocks=1, targets=(0.15, 0.2), context=(1.0, 1.0)
    )
    rows, columns = (mask == 1).any(dim=1), (mask == 1).any(dim=0)
    assert int(rows.sum() * columns.sum()) == int((mask == 1).sum())
    assert int((mask == 0).sum() + (mask == 1).sum()) == 14 * 14
