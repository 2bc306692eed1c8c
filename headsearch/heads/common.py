"""What several families share: the parameters that all have, and how widths are derived from ratios. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

from headsearch.base.info import BaseInfo
from headsearch.errors import HeadError
from headsearch.heads.config import Params, Scalar
from headsearch.heads.family import Parameter, Resolve

MAX_DEPTH = 12
"""Most blocks in one stage. Even, so that splitting a longer run into stages keeps Swin's alternation of shifted windows."""

ODD_KERNELS: tuple[Scalar, ...] = (3, 5, 7, 9, 11, 13)
"""Kernel sizes that keep the grid: an even one would shrink it."""

COMMON_PARAMETERS = (
    Parameter("depth", "int", 3, "number of blocks", low=1, high=MAX_DEPTH, slug="d"),
    Parameter("first_shortcut", "bool", True, "whether the first block keeps its residual connections"),
    Parameter(
        "drop_path",
        "float",
        0.0,
        "probability of dropping a residual branch, the same for every block that has a shortcut",
        low=0.0,
        high=0.9,
    ),
)


def mlp_ratio_parameter(default: float = 4.0) -> Parameter:
    """The ratio of hidden to outer channels of a per-token MLP."""
    doc = "hidden channels of the MLP over the width"
    return Parameter("mlp_ratio", "float", default, doc, low=0.5, high=16.0, slug="m")


def num_heads_parameter() -> Parameter:
    """Number of attention heads, derived from the width where it is null."""
    doc = "attention heads; null: about one per 32 channels"
    return Parameter("num_heads", "int", None, doc, low=1, high=128, nullable=True, slug="h")


def kernel_parameter(default: int) -> Parameter:
    """Side of a convolution kernel, in positions."""
    doc = "side of the convolution kernel"
    return Parameter("kernel_size", "int", default, doc, choices=ODD_KERNELS, slug="k")


NORMS = ("layer", "batch", "group")
ACTIVATIONS = ("gelu", "relu", "silu")


def norm_parameter(default: str = "layer") -> Parameter:
    """Normalisation of a block, of a family that had none to choose at first; `default` is what timm's block has."""
    doc = "normalisation: of a position (layer), of a channel over the batch (batch), or of the whole map (group)"
    choices = tuple(dict.fromkeys((default, *NORMS)))
    return Parameter("norm", "str", default, doc, choices=choices, slug="", added_later=True)


def act_parameter() -> Parameter:
    """Activation of a block, of a family that had none to choose at first."""
    return Parameter("act", "str", "gelu", "activation", choices=ACTIVATIONS, slug="", added_later=True)


def in_turn(*steps: Resolve) -> Resolve:
    """One resolution after the other."""
    return lambda params, base: reduce(lambda known, step: step(known, base), steps, params)


def resolve_num_heads(params: Params, base: BaseInfo) -> Params:
    """Parameters with `num_heads` set: as asked, or the most heads of at least 32 channels that divide the width.

    Raises `HeadError` where the number asked for does not divide the width.
    """
    asked = params["num_heads"]
    if asked is None:
        most = max(1, base.width // 32)
        return {**params, "num_heads": next(heads for heads in range(most, 0, -1) if base.width % heads == 0)}
    if base.width % asked != 0:
        raise HeadError(f"num_heads is {asked}: expected a divisor of the width {base.width} of {base.model}")
    return params


def hidden_width(width: int, ratio: float) -> int:
    """Channels inside an MLP, as timm counts them.

    >>> hidden_width(384, 4.0)
    1536
    """
    return int(width * ratio)


def exact_ratio(width: int, hidden: int) -> float:
    """A ratio that timm turns into exactly `hidden` channels, whatever the rounding of floating point.

    >>> int(49 * exact_ratio(49, 21)), int(49 * (21 / 49))
    (21, 20)
    """
    return (hidden + 0.5) / width


def canonical_ratio(ratio: float, hidden_of: Callable[[float], int], low: float) -> float:
    """The shortest decimal from `low` up, and of those the smallest, that gives the same number of hidden channels.

    `hidden_of` is any non-decreasing map from ratios to channels; two ratios with the same channels have one canonical form.

    >>> canonical_ratio(4.003, lambda ratio: int(64 * ratio), low=0.5)
    4.0
    """
    hidden = hidden_of(ratio)
    for digits in range(18):
        scale = float(10**digits)
        smallest = math.ceil(low * scale)
        candidate = max(smallest, math.floor(ratio * scale))
        if hidden_of(candidate / scale) < hidden:
            candidate += 1
        if hidden_of(candidate / scale) != hidden:
            continue
        while candidate > smallest and hidden_of((candidate - 1) / scale) == hidden:
            candidate -= 1
        return candidate / scale
    return ratio


def resolve_ratio(
    name: str, hidden_of: Callable[[int, float], int] = hidden_width, *, low: float = 0.5
) -> Resolve:
    """Replaces a ratio by its canonical form at the base's width; `hidden_of` maps width and ratio to channels."""
    return lambda params, base: {
        **params,
        name: canonical_ratio(params[name], lambda ratio: hidden_of(base.width, ratio), low),
    }


resolve_mlp_ratio = resolve_ratio("mlp_ratio")
