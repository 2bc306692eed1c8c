"""PoolFormer blocks: mixing by average pooling alone, without weights (Yu et al., arXiv 2111.11418)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headsearch.heads.common import (
    COMMON_PARAMETERS,
    act_parameter,
    mlp_ratio_parameter,
    norm_parameter,
    resolve_mlp_ratio,
)
from headsearch.heads.config import Scalar
from headsearch.heads.family import BlockSpec, Family, Parameter

if TYPE_CHECKING:
    from torch import nn

    from headsearch.base.info import BaseInfo

_POOL_SIZES = (3, 5, 7, 9)


def pool_size_parameter(default: int) -> Parameter:
    """Side of a pooling window."""
    return Parameter(
        "pool_size", "int", default, "side of the pooling window, in positions", choices=_POOL_SIZES, slug="p"
    )


def resolve_pool_size(params: Mapping[str, Scalar], base: BaseInfo) -> dict[str, Scalar]:
    """The smallest window that does the same: one that covers the grid from every position pools all of it."""
    size = params["pool_size"]
    assert isinstance(size, int)
    covering = next((choice for choice in _POOL_SIZES if choice // 2 >= max(base.grid) - 1), _POOL_SIZES[-1])
    return {**params, "pool_size": min(size, covering)}


def block(spec: BlockSpec) -> nn.Module:
    """timm's `MetaFormerBlock` as its PoolFormer models have it (version 1), without LayerScale."""
    from timm.layers.create_act import get_act_layer
    from timm.models.metaformer import Pooling

    from headsearch.heads.blocks import make_metaformer_block, norm_2d

    return make_metaformer_block(
        spec,
        token_mixer=Pooling,
        norm_layer=norm_2d(spec.text("norm")),
        mlp_act=get_act_layer(spec.text("act")),
        mlp_bias=True,
        pool_size=spec.integer("pool_size"),
    )


def resolve(params: Mapping[str, Scalar], base: BaseInfo) -> Mapping[str, Scalar]:
    """The canonical window and MLP ratio."""
    return resolve_mlp_ratio(resolve_pool_size(params, base), base)


FAMILY = Family(
    name="poolformer",
    doc="Local mixing by average pooling, which learns nothing (PoolFormer, arXiv 2111.11418).",
    parameters=(
        *COMMON_PARAMETERS,
        pool_size_parameter(3),
        mlp_ratio_parameter(),
        norm_parameter("group"),
        act_parameter(),
    ),
    layout="BCHW",
    block=block,
    resolve=resolve,
)
