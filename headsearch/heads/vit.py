"""Transformer blocks of the ViT: every position attends to every other (Dosovitskiy et al., arXiv 2010.11929)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.heads import common
from headsearch.heads.family import BlockSpec, Family

if TYPE_CHECKING:
    from torch import nn


def block(spec: BlockSpec) -> nn.Module:
    """timm's ViT `Block` with biases on the queries, keys and values, as its models have, and no LayerScale."""
    from headsearch.heads.blocks import PlainTransformerBlock, make_block

    options = {name: spec[name] for name in ("num_heads", "mlp_ratio")}
    return make_block(spec, PlainTransformerBlock, qkv_bias=True, **options)


FAMILY = Family(
    name="vit",
    doc="Global mixing by self-attention, without any notion of place (ViT, arXiv 2010.11929).",
    parameters=(
        *common.COMMON_PARAMETERS,
        common.num_heads_parameter(),
        common.mlp_ratio_parameter(),
        common.norm_parameter(),
        common.act_parameter(),
    ),
    layout="BNC",
    block=block,
    resolve=common.in_turn(common.resolve_num_heads, common.resolve_mlp_ratio),
)
