"""ResNet blocks: stacked 3×3 convolutions with batch statistics (He et al., arXiv 1512.03385)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.base.info import BaseInfo
from headsearch.heads import common
from headsearch.heads.config import Params
from headsearch.heads.family import BlockSpec, Family, Parameter

if TYPE_CHECKING:
    from torch import nn

_LOWEST_RATIO = 0.125
_DEFAULT_RATIO = 0.25


def block(spec: BlockSpec) -> nn.Module:
    """timm's `BasicBlock` or `Bottleneck`, ending in its activation as in the ResNet: the head's map is then non-negative.

    The last norm starts at one, not at zero: a block without a shortcut would be dead from the start.
    """
    from timm.layers.create_act import get_act_layer
    from timm.layers.drop import DropPath
    from timm.models.resnet import BasicBlock

    from headsearch.heads.blocks import PlainBasicBlock, PlainWidthBottleneck, WidthBottleneck, norm_2d

    options = {
        "act_layer": get_act_layer(spec["act"]),
        "norm_layer": norm_2d(spec["norm"]),
        "drop_path": DropPath(spec.drop_path) if spec.drop_path else None,
    }
    module: nn.Module
    if spec["block"] == "basic":
        module = (BasicBlock if spec.shortcut else PlainBasicBlock)(spec.width, spec.width, **options)
    else:
        inner = common.hidden_width(spec.width, spec["bottle_ratio"])
        make = WidthBottleneck if spec.shortcut else PlainWidthBottleneck
        module = make(spec.width, inner, **options)
    return module


def simplify(params: Params) -> tuple[str, Params]:
    """A basic block has no bottleneck to size."""
    return "resnet", params if params["block"] == "bottleneck" else {**params, "bottle_ratio": _DEFAULT_RATIO}


def resolve(params: Params, base: BaseInfo) -> Params:
    """The canonical ratio for the number of inner channels."""
    if params["block"] == "basic":
        return params
    return common.resolve_ratio("bottle_ratio", low=_LOWEST_RATIO)(params, base)


FAMILY = Family(
    name="resnet",
    doc="Local mixing by dense 3x3 convolutions and batch statistics (ResNet, arXiv 1512.03385).",
    parameters=(
        *common.COMMON_PARAMETERS,
        Parameter("block", "str", "bottleneck", "kind of block", choices=("basic", "bottleneck"), slug=""),
        Parameter(
            "bottle_ratio",
            "float",
            _DEFAULT_RATIO,
            "inner channels of a bottleneck over the width",
            low=_LOWEST_RATIO,
            high=2.0,
        ),
        Parameter("norm", "str", "batch", "normalisation", choices=("batch", "layer", "group")),
        Parameter("act", "str", "relu", "activation", choices=("relu", "gelu", "silu")),
    ),
    layout="BCHW",
    block=block,
    simplify=simplify,
    resolve=resolve,
)
