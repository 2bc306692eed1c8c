"""The heads of the controls: what a searched head must beat. (The control `none` is the empty head.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.heads.candidate import Candidate
from headsearch.heads.config import HeadConfig, Stage

if TYPE_CHECKING:
    from headsearch.base.info import BaseInfo

_DEPTH = 3
_LOWEST_MLP_RATIO = 0.5
_HIGHEST_MLP_RATIO = 16.0


def same_head(info: BaseInfo) -> Candidate:
    """Control `same`: three blocks of the base's own kind, which brings nothing new."""
    return Candidate.of(HeadConfig((Stage(info.family, {"depth": _DEPTH}),)), info)


def mlp_head(info: BaseInfo) -> Candidate:
    """Control `mlp`: three per-token MLPs with about as many parameters as `same`, to tell a better head from a deeper projector.

    The size of `same` is counted by building it without memory, so this imports torch when called.
    """
    import torch

    from headsearch.heads.build import build_head

    with torch.device("meta"):
        stages = build_head(same_head(info).config, info).stages
    per_block = sum(weight.numel() for weight in stages.parameters()) / _DEPTH
    # A block holds LayerNorm (2w), Linear w→h (wh + h) and Linear h→w (wh + w).
    hidden = (per_block - 3 * info.width) / (2 * info.width + 1)
    ratio = min(max(round(hidden / info.width, 2), _LOWEST_MLP_RATIO), _HIGHEST_MLP_RATIO)
    return Candidate.of(HeadConfig((Stage("mlp", {"depth": _DEPTH, "mlp_ratio": ratio}),)), info)


def control_heads(info: BaseInfo) -> dict[str, Candidate]:
    """The head of every control by its name. `same` and `mlp` also tie the joint runs of a screen together, by being in all of them."""
    return {"none": Candidate.of(HeadConfig()), "same": same_head(info), "mlp": mlp_head(info)}
