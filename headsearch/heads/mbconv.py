"""Inverted residuals of MobileNetV2 and EfficientNet (Sandler et al., arXiv 1801.04381; Tan and Le, arXiv 1905.11946)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from headsearch.heads import common
from headsearch.heads.family import BlockSpec, Family, Parameter

if TYPE_CHECKING:
    from torch import nn


def block(spec: BlockSpec) -> nn.Module:
    """timm's `InvertedResidual`; squeeze and excitation reduces to a quarter of the outer width, as in EfficientNet."""
    from timm.models._efficientnet_blocks import InvertedResidual, SqueezeExcite

    from headsearch.heads.blocks import norm_2d

    squeeze: Any = partial(SqueezeExcite, rd_channels=max(1, spec.width // 4)) if spec["se"] else None
    module: nn.Module = InvertedResidual(
        spec.width,
        spec.width,
        dw_kernel_size=spec["kernel_size"],
        exp_ratio=spec["exp_ratio"],
        noskip=not spec.shortcut,
        act_layer=spec["act"],
        norm_layer=norm_2d(spec["norm"]),
        se_layer=squeeze,
        drop_path_rate=spec.drop_path,
    )
    return module


FAMILY = Family(
    name="mbconv",
    doc="Inverted residuals: wide depthwise convolutions gated by the image's mean (EfficientNet, arXiv 1905.11946).",
    parameters=(
        *common.COMMON_PARAMETERS,
        common.kernel_parameter(3),
        Parameter("exp_ratio", "int", 4, "inner channels over the width", low=1, high=8, slug="e"),
        Parameter("se", "bool", True, "squeeze and excitation"),
        Parameter("norm", "str", "batch", "normalisation", choices=("batch", "layer", "group")),
        Parameter("act", "str", "silu", "activation", choices=("relu", "gelu", "silu")),
    ),
    layout="BCHW",
    block=block,
)
