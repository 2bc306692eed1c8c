"""ConvNeXt blocks: large depthwise kernels (Liu et al., arXiv 2201.03545), with V2's response normalisation (arXiv 2301.00808)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.heads import common
from headsearch.heads.family import BlockSpec, Family, Parameter

if TYPE_CHECKING:
    from torch import nn


def block(spec: BlockSpec) -> nn.Module:
    """timm's `ConvNeXtBlock`, without LayerScale: from 1e-6 a short schedule hardly moves it."""
    from headsearch.heads.blocks import PlainConvNeXtBlock, make_block

    options = {name: spec[name] for name in ("kernel_size", "mlp_ratio", "use_grn")}
    return make_block(spec, PlainConvNeXtBlock, ls_init_value=None, **options)


FAMILY = Family(
    name="convnext",
    doc="Local mixing by large depthwise kernels, the same at every position (ConvNeXt, arXiv 2201.03545).",
    parameters=(
        *common.COMMON_PARAMETERS,
        common.kernel_parameter(7),
        common.mlp_ratio_parameter(),
        Parameter("use_grn", "bool", False, "global response normalisation in the MLP, as in ConvNeXt V2"),
        common.norm_parameter(),
        common.act_parameter(),
    ),
    layout="BCHW",
    block=block,
    resolve=common.resolve_mlp_ratio,
)
