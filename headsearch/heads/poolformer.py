"""PoolFormer blocks: mixing by average pooling alone, without weights (Yu et al., arXiv 2111.11418)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.base.info import BaseInfo
from headsearch.heads import common
from headsearch.heads.config import Params
from headsearch.heads.family import BlockSpec, Family, Parameter

if TYPE_CHECKING:
    from torch import nn

_POOL_SIZES = (3, 5, 7, 9)


def pool_size_parameter(default: int) -> Parameter:
    """Side of a pooling window."""
    return Parameter(
        "pool_size", "int", default, "side of the pooling window, in positions", choices=_POOL_SIZES, slug="p"
    )


def resolve_pool_size(params: Params, base: BaseInfo) -> Params:
    """The smallest window that does the same: one that covers the grid from every position pools all of it."""
    covering = next((choice for choice in _POOL_SIZES if choice // 2 >= max(base.grid) - 1), _POOL_SIZES[-1])
    return {**params, "pool_size": min(params["pool_size"], covering)}


def block(spec: BlockSpec) -> nn.Module:
    """timm's `MetaFormerBlock` as its PoolFormer models have it (version 1), without LayerScale."""
    from timm.layers.create_act import get_act_layer
    from timm.models.metaformer import Pooling

    from headsearch.heads.blocks import make_metaformer_block, norm_2d

    return make_metaformer_block(
        spec,
        token_mixer=Pooling,
        norm_layer=norm_2d(spec["norm"]),
        mlp_act=get_act_layer(spec["act"]),
        mlp_bias=True,
        pool_size=spec["pool_size"],
    )


FAMILY = Family(
    name="poolformer",
    doc="Local mixing by average pooling, which learns nothing (PoolFormer, arXiv 2111.11418).",
    parameters=(
        *common.COMMON_PARAMETERS,
        pool_size_parameter(3),
        common.mlp_ratio_parameter(),
        common.norm_parameter("group"),
        common.act_parameter(),
    ),
    layout="BCHW",
    block=block,
    resolve=common.in_turn(resolve_pool_size, common.resolve_mlp_ratio),
)
