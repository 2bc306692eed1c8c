"""Transformer blocks of the ViT: every position attends to every other (Dosovitskiy et al., arXiv 2010.11929)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.heads import common
from headsearch.heads.family import BlockSpec, Family

if TYPE_CHECKING:
    from torch import nn


def block(spec: BlockSpec) -> nn.Module:
    """timm's ViT `Block` with biases on the queries, keys and values, as its models have, and no LayerScale."""
    from timm.models.vision_transformer import Block

    from headsearch.heads.blocks import PlainTransformerBlock, chosen_layers

    module: nn.Module = (Block if spec.shortcut else PlainTransformerBlock)(
        spec.width,
        num_heads=spec["num_heads"],
        mlp_ratio=spec["mlp_ratio"],
        qkv_bias=True,
        drop_path=spec.drop_path,
        **chosen_layers(spec),
    )
    return module


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
