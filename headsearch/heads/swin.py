"""Swin blocks: attention within windows that shift by half in every second block (Liu et al., arXiv 2103.14030)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.base.info import BaseInfo
from headsearch.heads import common
from headsearch.heads.config import Params
from headsearch.heads.family import BlockSpec, Family, Parameter

if TYPE_CHECKING:
    from torch import nn


def block(spec: BlockSpec) -> nn.Module:
    """timm's `SwinTransformerBlock`; odd blocks shift, and a window as large as the grid is one window without a shift."""
    from headsearch.heads.blocks import PlainSwinBlock, make_block

    return make_block(
        spec,
        PlainSwinBlock,
        input_resolution=spec.grid,
        num_heads=spec["num_heads"],
        window_size=spec["window"],
        shift_size=spec["window"] // 2 if spec.index % 2 == 1 else 0,
        dynamic_mask=True,
        mlp_ratio=spec["mlp_ratio"],
    )


def _resolve_window(params: Params, base: BaseInfo) -> Params:
    """A window no larger than the grid."""
    return {**params, "window": min(params["window"], max(base.grid))}


FAMILY = Family(
    name="swin",
    doc="Attention within shifted windows, with learned relative positions (Swin, arXiv 2103.14030).",
    parameters=(
        *common.COMMON_PARAMETERS,
        Parameter("window", "int", 7, "side of the attention window, in positions", low=1, high=64, slug="w"),
        common.num_heads_parameter(),
        common.mlp_ratio_parameter(),
        common.norm_parameter(),
        common.act_parameter(),
    ),
    layout="BHWC",
    block=block,
    resolve=common.in_turn(common.resolve_num_heads, common.resolve_mlp_ratio, _resolve_window),
)
