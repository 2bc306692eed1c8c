"""Per-token MLPs: no mixing of positions at all. The control that shows how much of a gain is only a deeper projector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.heads import common
from headsearch.heads.family import BlockSpec, Family

if TYPE_CHECKING:
    from torch import nn


def block(spec: BlockSpec) -> nn.Module:
    """LayerNorm and timm's `Mlp` with a residual: the second half of a ViT block."""
    from headsearch.heads.blocks import MlpBlock

    return MlpBlock(spec.width, spec["mlp_ratio"], shortcut=spec.shortcut, drop_path=spec.drop_path)


FAMILY = Family(
    name="mlp",
    doc="Per-token MLPs without any mixing of positions: a deeper projector, and the control.",
    parameters=(*common.COMMON_PARAMETERS, common.mlp_ratio_parameter()),
    layout="BNC",
    block=block,
    resolve=common.resolve_mlp_ratio,
)
