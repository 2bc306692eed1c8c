"""gMLP blocks: channels gated by a linear map over the positions (Liu et al., "Pay Attention to MLPs", arXiv 2105.08050)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headsearch.heads.common import (
    COMMON_PARAMETERS,
    act_parameter,
    canonical_ratio,
    exact_ratio,
    hidden_width,
    mlp_ratio_parameter,
    norm_parameter,
)
from headsearch.heads.config import Scalar
from headsearch.heads.family import BlockSpec, Family

if TYPE_CHECKING:
    from torch import nn

    from headsearch.base.info import BaseInfo


def _even_hidden(width: int, ratio: float) -> int:
    """Channels inside the MLP: one half gates the other, so the number is even."""
    return max(2, hidden_width(width, ratio) // 2 * 2)


def block(spec: BlockSpec) -> nn.Module:
    """timm's `SpatialGatingBlock`, whose gate starts open, as in the paper. The gate keeps its own LayerNorm."""
    from timm.models.mlp_mixer import SpatialGatingBlock, SpatialGatingUnit

    from headsearch.heads.blocks import PlainGatingBlock, chosen_layers

    module: nn.Module = (SpatialGatingBlock if spec.shortcut else PlainGatingBlock)(
        spec.width,
        seq_len=spec.grid[0] * spec.grid[1],
        mlp_ratio=exact_ratio(spec.width, _even_hidden(spec.width, spec.real("mlp_ratio"))),
        drop_path=spec.drop_path,
        **chosen_layers(spec),
    )
    for part in module.modules():
        if isinstance(part, SpatialGatingUnit):
            part.init_weights()
    return module


def resolve(params: Mapping[str, Scalar], base: BaseInfo) -> Mapping[str, Scalar]:
    """The canonical ratio for the even number of hidden channels."""
    ratio = params["mlp_ratio"]
    assert isinstance(ratio, float)
    return {**params, "mlp_ratio": canonical_ratio(ratio, lambda r: _even_hidden(base.width, r), low=0.5)}


FAMILY = Family(
    name="gmlp",
    doc="Global mixing by multiplicative gates over positions (gMLP, arXiv 2105.08050).",
    parameters=(*COMMON_PARAMETERS, mlp_ratio_parameter(default=6.0), norm_parameter(), act_parameter()),
    layout="BNC",
    block=block,
    grid_bound=True,
    resolve=resolve,
)
