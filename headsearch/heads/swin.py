"""Swin blocks: attention within windows that shift by half in every second block (Liu et al., arXiv 2103.14030)."""

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
from headsearch.heads.family import BlockSpec, Family, Parameter

if TYPE_CHECKING:
    from torch import nn

    from headsearch.base.info import BaseInfo


def block(spec: BlockSpec) -> nn.Module:
    """timm's `SwinTransformerBlock`; odd blocks shift, and a window as large as the grid is one window without a shift."""
    from headsearch.heads.blocks import PlainSwinBlock, SwinBlock, chosen_layers

    window = spec.integer("window")
    module: nn.Module = (SwinBlock if spec.shortcut else PlainSwinBlock)(
        spec.width,
        input_resolution=spec.grid,
        num_heads=spec.integer("num_heads"),
        window_size=window,
        shift_size=window // 2 if spec.index % 2 == 1 else 0,
        dynamic_mask=True,
        mlp_ratio=spec.real("mlp_ratio"),
        drop_path=spec.drop_path,
        **chosen_layers(spec),
    )
    return module


def resolve(params: Mapping[str, Scalar], base: BaseInfo) -> Mapping[str, Scalar]:
    """Heads for the width, the canonical MLP ratio, and a window no larger than the grid."""
    window = params["window"]
    assert isinstance(window, int)
    return {**resolve_mlp_ratio(resolve_num_heads(params, base), base), "window": min(window, max(base.grid))}


FAMILY = Family(
    name="swin",
    doc="Attention within shifted windows, with learned relative positions (Swin, arXiv 2103.14030).",
    parameters=(
        *COMMON_PARAMETERS,
        Parameter("window", "int", 7, "side of the attention window, in positions", low=1, high=64, slug="w"),
        num_heads_parameter(),
        mlp_ratio_parameter(),
        norm_parameter(),
        act_parameter(),
    ),
    layout="BHWC",
    block=block,
    resolve=resolve,
)
