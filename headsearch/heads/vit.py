"""Transformer blocks of the ViT: every position attends to every other (Dosovitskiy et al., arXiv 2010.11929)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headsearch.heads.common import (
    COMMON_PARAMETERS,
    act_parameter,
    mlp_ratio_parameter,
    norm_parameter,
    num_heads_parameter,
    resolve_mlp_ratio,
    resolve_num_heads,
)
from headsearch.heads.config import Scalar
from headsearch.heads.family import BlockSpec, Family

if TYPE_CHECKING:
    from torch import nn

    from headsearch.base.info import BaseInfo


def block(spec: BlockSpec) -> nn.Module:
    """timm's ViT `Block` with biases on the queries, keys and values, as its models have, and no LayerScale."""
    from timm.models.vision_transformer import Block

    from headsearch.heads.blocks import PlainTransformerBlock, chosen_layers

    module: nn.Module = (Block if spec.shortcut else PlainTransformerBlock)(
        spec.width,
        num_heads=spec.integer("num_heads"),
        mlp_ratio=spec.real("mlp_ratio"),
        qkv_bias=True,
        drop_path=spec.drop_path,
        **chosen_layers(spec),
    )
    return module


def resolve(params: Mapping[str, Scalar], base: BaseInfo) -> Mapping[str, Scalar]:
    """Heads for the width, and the canonical MLP ratio."""
    return resolve_mlp_ratio(resolve_num_heads(params, base), base)


FAMILY = Family(
    name="vit",
    doc="Global mixing by self-attention, without any notion of place (ViT, arXiv 2010.11929).",
    parameters=(
        *COMMON_PARAMETERS,
        num_heads_parameter(),
        mlp_ratio_parameter(),
        norm_parameter(),
        act_parameter(),
    ),
    layout="BNC",
    block=block,
    resolve=resolve,
)
