"""MLP-Mixer blocks: one MLP over the positions, one over the channels (Tolstikhin et al., arXiv 2105.01601)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.heads import common
from headsearch.heads.family import BlockSpec, Family, Parameter

if TYPE_CHECKING:
    from torch import nn


def block(spec: BlockSpec) -> nn.Module:
    """timm's `MixerBlock`. Its MLP over positions is sized by the width, as in the paper's models, not by the grid."""
    from headsearch.heads.blocks import PlainMixerBlock, make_block

    ratios = spec["token_mlp_ratio"], spec["mlp_ratio"]
    return make_block(spec, PlainMixerBlock, seq_len=spec.positions, mlp_ratio=ratios)


FAMILY = Family(
    name="mixer",
    doc="Global mixing by an MLP over positions, each with weights of its own (MLP-Mixer, arXiv 2105.01601).",
    parameters=(
        *common.COMMON_PARAMETERS,
        common.mlp_ratio_parameter(),
        Parameter(
            "token_mlp_ratio",
            "float",
            0.5,
            "hidden units of the MLP over positions over the width",
            low=0.5,
            high=4.0,
            slug="t",
        ),
        common.norm_parameter(),
        common.act_parameter(),
    ),
    layout="BNC",
    block=block,
    grid_bound=True,
    resolve=common.in_turn(common.resolve_mlp_ratio, common.resolve_ratio("token_mlp_ratio")),
)
