"""gMLP blocks: channels gated by a linear map over the positions (Liu et al., "Pay Attention to MLPs", arXiv 2105.08050)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.heads import common
from headsearch.heads.family import BlockSpec, Family

if TYPE_CHECKING:
    from torch import nn


def _even_hidden(width: int, ratio: float) -> int:
    """Channels inside the MLP: one half gates the other, so the number is even."""
    return max(2, common.hidden_width(width, ratio) // 2 * 2)


def block(spec: BlockSpec) -> nn.Module:
    """timm's `SpatialGatingBlock`, whose gate starts open, as in the paper. The gate keeps its own LayerNorm."""
    from timm.models.mlp_mixer import SpatialGatingUnit

    from headsearch.heads.blocks import PlainGatingBlock, make_block

    ratio = common.exact_ratio(spec.width, _even_hidden(spec.width, spec["mlp_ratio"]))
    module = make_block(spec, PlainGatingBlock, seq_len=spec.positions, mlp_ratio=ratio)
    for part in module.modules():
        if isinstance(part, SpatialGatingUnit):
            part.init_weights()
    return module


FAMILY = Family(
    name="gmlp",
    doc="Global mixing by multiplicative gates over positions (gMLP, arXiv 2105.08050).",
    parameters=(
        *common.COMMON_PARAMETERS,
        common.mlp_ratio_parameter(default=6.0),
        common.norm_parameter(),
        common.act_parameter(),
    ),
    layout="BNC",
    block=block,
    grid_bound=True,
    resolve=common.resolve_ratio("mlp_ratio", _even_hidden),
)
