"""The heads of the controls."""

import pytest
import torch

from headsearch.heads import FAMILIES
from headsearch.heads.build import build_head
from headsearch.heads.controls import mlp_head, same_head
from headsearch.testing.heads import toy_base


def size(config: object, base: object) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in build_head(config, base).parameters())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAMILIES)
def test_same_is_three_blocks_of_the_bases_own_kind(name: str) -> None:
    base = toy_base(96, (7, 7), kind=name)
    config = same_head(base).config
    assert (config.family, config.depth) == (name, 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_mlp_is_of_the_size_of_same(name: str) -> None:
    base = toy_base(96, (7, 7), kind=name)
    config = mlp_head(base).config
    assert (config.family, config.depth) == ("mlp", 3)
    assert size(config, base) == pytest.approx(size(same_head(base).config, base), rel=0.02)
