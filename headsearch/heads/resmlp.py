"""ResMLP blocks: one linear map over the positions, one MLP over the channels (Touvron et al., arXiv 2105.03404)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.heads import common
from headsearch.heads.family import BlockSpec, Family

if TYPE_CHECKING:
    from torch import nn


def block(spec: BlockSpec) -> nn.Module:
    """timm's `ResBlock`, whose scales start at 1: from 1e-4 a short schedule hardly moves them."""
    from headsearch.heads.blocks import PlainResBlock, make_block

    options = {"seq_len": spec.positions, "mlp_ratio": spec["mlp_ratio"], "init_values": 1.0}
    return make_block(spec, PlainResBlock, norm="affine", **options)


FAMILY = Family(
    name="resmlp",
    doc="Global mixing by one linear map over positions, of its own accord without normalisation (ResMLP, arXiv 2105.03404).",
    parameters=(
        *common.COMMON_PARAMETERS,
        common.mlp_ratio_parameter(),
        common.norm_parameter("affine"),
        common.act_parameter(),
    ),
    layout="BNC",
    block=block,
    grid_bound=True,
    resolve=common.resolve_mlp_ratio,
)
