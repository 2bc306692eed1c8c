"""ResNet blocks: stacked 3×3 convolutions with batch statistics (He et al., arXiv 1512.03385)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headsearch.heads.common import COMMON_PARAMETERS, canonical_ratio, hidden_width
from headsearch.heads.config import Scalar
from headsearch.heads.family import BlockSpec, Family, Parameter

if TYPE_CHECKING:
    from torch import nn

    from headsearch.base.info import BaseInfo

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
        "act_layer": get_act_layer(spec.text("act")),
        "norm_layer": norm_2d(spec.text("norm")),
        "drop_path": DropPath(spec.drop_path) if spec.drop_path else None,
    }
    module: nn.Module
    if spec.text("block") == "basic":
        module = (BasicBlock if spec.shortcut else PlainBasicBlock)(spec.width, spec.width, **options)
    else:
        inner = hidden_width(spec.width, spec.real("bottle_ratio"))
        make = WidthBottleneck if spec.shortcut else PlainWidthBottleneck
        module = make(spec.width, inner, **options)
    return module


def simplify(params: Mapping[str, Scalar]) -> tuple[str, Mapping[str, Scalar]]:
    """A basic block has no bottleneck to size."""
    return "resnet", params if params["block"] == "bottleneck" else {**params, "bottle_ratio": _DEFAULT_RATIO}


def resolve(params: Mapping[str, Scalar], base: BaseInfo) -> Mapping[str, Scalar]:
    """The canonical ratio for the number of inner channels."""
    ratio = params["bottle_ratio"]
    assert isinstance(ratio, float)
    if params["block"] == "basic":
        return params
    canonical = canonical_ratio(ratio, lambda r: hidden_width(base.width, r), low=_LOWEST_RATIO)
    return {**params, "bottle_ratio": canonical}


FAMILY = Family(
    name="resnet",
    doc="Local mixing by dense 3x3 convolutions and batch statistics (ResNet, arXiv 1512.03385).",
    parameters=(
        *COMMON_PARAMETERS,
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
