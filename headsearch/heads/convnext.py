"""ConvNeXt blocks: large depthwise kernels (Liu et al., arXiv 2201.03545), with V2's response normalisation (arXiv 2301.00808)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.heads import common
from headsearch.heads.family import BlockSpec, Family, Parameter

if TYPE_CHECKING:
    from torch import nn


def block(spec: BlockSpec) -> nn.Module:
    """timm's `ConvNeXtBlock`, without LayerScale: from 1e-6 a short schedule hardly moves it."""
    from timm.models.convnext import ConvNeXtBlock

    from headsearch.heads.blocks import PlainConvNeXtBlock, chosen_layers

    make = ConvNeXtBlock if spec.shortcut else PlainConvNeXtBlock
    module: nn.Module = make(
        spec.width,
        kernel_size=spec["kernel_size"],
        mlp_ratio=spec["mlp_ratio"],
        use_grn=spec["use_grn"],
        ls_init_value=None,
        drop_path=spec.drop_path,
        **chosen_layers(spec),
    )
    return module


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
