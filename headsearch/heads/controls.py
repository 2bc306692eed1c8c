"""The heads of the controls: what a searched head must beat. (The control `none` is the empty `HeadConfig`.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.heads.canonical import canonical
from headsearch.heads.config import HeadConfig, Stage

if TYPE_CHECKING:
    from headsearch.base.info import BaseInfo

_DEPTH = 3
_LOWEST_MLP_RATIO = 0.5
_HIGHEST_MLP_RATIO = 16.0


def same_head(info: BaseInfo) -> HeadConfig:
    """Control `same`: three blocks of the base's own kind, which brings nothing new. Canonical."""
    return canonical(HeadConfig((Stage(info.family, {"depth": _DEPTH}),)), info)


def mlp_head(info: BaseInfo) -> HeadConfig:
    """Control `mlp`: three per-token MLPs with about as many parameters as `same`, to tell a better head from a deeper projector.

    Canonical. The size of `same` is counted by building it without memory, so this imports torch when called.
    """
    import torch

    from headsearch.heads.build import build_head

    with torch.device("meta"):
        stages = build_head(same_head(info), info).stages
    per_block = sum(weight.numel() for weight in stages.parameters()) / _DEPTH
    # A block holds LayerNorm (2w), Linear w→h (wh + h) and Linear h→w (wh + w).
    hidden = (per_block - 3 * info.width) / (2 * info.width + 1)
    ratio = min(max(round(hidden / info.width, 2), _LOWEST_MLP_RATIO), _HIGHEST_MLP_RATIO)
    return canonical(HeadConfig((Stage("mlp", {"depth": _DEPTH, "mlp_ratio": ratio}),)), info)


def anchor_heads(info: BaseInfo) -> tuple[HeadConfig, HeadConfig]:
    """The heads that tie the joint runs of a screen together by being in all of them: those of the controls `same` and `mlp`."""
    return same_head(info), mlp_head(info)
