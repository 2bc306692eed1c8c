"""ResMLP blocks: one linear map over the positions, one MLP over the channels (Touvron et al., arXiv 2105.03404)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.heads import common
from headsearch.heads.family import BlockSpec, Family

if TYPE_CHECKING:
    from torch import nn


def block(spec: BlockSpec) -> nn.Module:
    """timm's `ResBlock`, whose scales start at 1: from 1e-4 a short schedule hardly moves them."""
    from timm.models.mlp_mixer import ResBlock

    from headsearch.heads.blocks import PlainResBlock, chosen_layers

    module: nn.Module = (ResBlock if spec.shortcut else PlainResBlock)(
        spec.width,
        seq_len=spec.grid[0] * spec.grid[1],
        mlp_ratio=spec["mlp_ratio"],
        init_values=1.0,
        drop_path=spec.drop_path,
        **chosen_layers(spec, norm="affine"),
    )
    return module


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
