"""DSE against a closed form, and against its definition where the clusters are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from headsearch.scoring.dense import dse


def spread_out(noise: float = 0.0, repeats: int = 2, images: int = 8) -> Tensor:
    """Every image has three directions of its own, each at several positions."""
    directions = torch.eye(3 * images, dtype=torch.float64).view(images, 3, 3 * images)
    tokens = directions.repeat_interleave(repeats, dim=1)
    generator = torch.Generator().manual_seed(0)
    return tokens + noise * torch.randn(tokens.shape, generator=generator, dtype=torch.float64)


def test_24_orthogonal_points_without_width() -> None:
    # Centres are the square root of 2 apart, a point is sqrt(1 - 1/24) from the mean, and 8 images use 8 dimensions.
    expected = math.sqrt(2) / math.sqrt(1 - 1 / 24) + 1
    assert dse(spread_out(), seed=0) == pytest.approx(expected, rel=1e-9)
    assert dse(5.0 * spread_out(), seed=3) == pytest.approx(expected, rel=1e-9), "lengths do not count"


def test_clusters_with_width_are_as_defined() -> None:
    tokens = spread_out(noise=0.02, repeats=5)
    x = (tokens / tokens.norm(dim=2, keepdim=True)).numpy()
    scale = np.linalg.norm(x - x.mean(axis=(0, 1)), axis=2).mean()
    clusters = x.reshape(24, 5, 24)
    centres = clusters.mean(axis=1)
    # Of an image and of the group the clusters are the same.
    intra = np.mean(
        [
            np.linalg.norm(cluster - centre, ord="nuc") / math.sqrt(24)
            for cluster, centre in zip(clusters, centres, strict=True)
        ]
    )
    apart = np.linalg.norm(x.reshape(120, 1, 24) - centres, axis=2)
    apart[np.arange(120), np.arange(120) // 5] = np.inf
    dimensions = dse(tokens, seed=0) - (apart.min(axis=1).mean() - intra) / scale
    # What is left is the effective rank of 8 nearly orthogonal tokens, over 8.
    assert 0.99 < dimensions <= 1.0


def test_more_of_the_same_direction_is_fewer_dimensions() -> None:
    common = torch.zeros(24, dtype=torch.float64)
    common[0] = 1.0
    values = [dse(spread_out(noise=0.05) + weight * common, seed=0) for weight in (0.0, 0.5, 2.0)]
    assert values[0] > values[1] > values[2]


def test_images_beyond_the_last_group_and_too_few_tokens() -> None:
    assert math.isfinite(dse(torch.randn(11, 6, 5, generator=torch.Generator().manual_seed(0)), seed=0))
    assert math.isnan(dse(torch.ones(8, 6, 5), seed=0)), "all the same"
    assert math.isnan(dse(torch.full((8, 6, 5), math.inf), seed=0))
    assert math.isnan(dse(torch.randn(1, 40, 5), seed=0))
    assert math.isnan(dse(torch.randn(8, 2, 5), seed=0))


def test_the_same_seed_gives_the_same_value() -> None:
    tokens = torch.randn(16, 9, 7, generator=torch.Generator().manual_seed(0))
    assert dse(tokens, seed=1) == dse(tokens, seed=1)
