"""The losses, decoders and masks of MAE and I-JEPA; what meets what is in test_masked_methods.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headsearch.base.model import check_base
from headsearch.methods import build_method
from headsearch.methods.method import Method

INFO = check_base(
    "vit_tiny_patch16_224",
    image_size=16,
    kwargs={"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2},
)
PIXELS = 3 * 4 * 4


def make(name: str, **options: object) -> Method:
    method = build_method(name, width=16, **options)
    method.prepare(INFO)
    return method


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.5]))
def test_mae_is_the_squared_error_of_normalised_pixels_plus_that_of_features(
    seed: int, weight: float
) -> None:
    random = np.random.default_rng(seed)
    student, target = random.normal(size=(2, 7, PIXELS + 16))
    pixels = target[:, :PIXELS]
    pixels = (pixels - pixels.mean(axis=1, keepdims=True)) / np.sqrt(
        pixels.var(axis=1, ddof=1, keepdims=True) + 1e-6
    )
    apart = np.abs(student[:, PIXELS:] - target[:, PIXELS:])
    expected = ((student[:, :PIXELS] - pixels) ** 2).mean()
    expected += weight * np.where(apart < 1, 0.5 * apart**2, apart - 0.5).mean()
    loss = make("mae", feature_weight=weight).loss(torch.from_numpy(student), torch.from_numpy(target))
    assert float(loss) == pytest.approx(expected, rel=1e-9)


def test_ijepa_looks_at_features_alone() -> None:
    target = torch.zeros(2, PIXELS + 16)
    target[:, :PIXELS] = 100.0
    student = torch.tensor([0.5, 3.0])[:, None].expand(2, 16)
    loss = make("ijepa").loss(student, target)
    assert float(loss) == pytest.approx((0.5 * 0.25 + 2.5) / 2)


def test_a_quarter_is_seen_and_one_patch_at_least() -> None:
    assert make("mae").masks(10, (14, 14), None).sum(dim=(1, 2)).tolist() == [147] * 10
    assert make("mae", mask_ratio=0.999).masks(10, (4, 4), None).sum(dim=(1, 2)).tolist() == [15] * 10


@pytest.mark.parametrize(
    ("name", "width", "depth", "dim", "blocks"),
    [
        ("mae", 768, 12, 512, 8),
        ("mae", 1024, 24, 512, 8),
        ("mae", 64, 4, 32, 3),
        ("ijepa", 768, 12, 384, 6),
        ("ijepa", 1024, 24, 384, 12),
        ("ijepa", 1280, 32, 384, 12),
        ("ijepa", 16, 1, 8, 1),
    ],
)
def test_decoders_are_the_papers_for_large_bases_and_smaller_for_small_ones(
    name: str, width: int, depth: int, dim: int, blocks: int
) -> None:
    info = replace(INFO, width=width, depth=depth)
    with torch.device("meta"):
        method = build_method(name, width=width)
        method.prepare(info)
        decoder = method.predictor()
        assert decoder is not None
        predicted = decoder(torch.empty(2, 16, width))
    assert predicted.shape == (2, 16, width + (PIXELS if name == "mae" else 0))
    assert decoder.embed.out_features == dim
    assert len(decoder.transformer.blocks) == blocks
    chosen = build_method(name, width=width, decoder_dim=20, decoder_depth=2)
    chosen.prepare(info)
    assert chosen.predictor().embed.out_features == 20
