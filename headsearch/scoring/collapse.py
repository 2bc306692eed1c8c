"""Guards against representations that are worthless but look very different: constant, of rank one, or not finite.

A collapsed head has a large discrepancy from its base, so an unguarded search would rank it first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_STD = 0.01
"""Below this isotropy, embeddings of all images point the same way. Healthy bases dip to 0.07 in their first epoch."""

MIN_CENTRED_RANK = 1.2
"""Below this effective rank of the centred embeddings, images differ along one direction only. Healthy bases dip to 2.7."""

_RANK_NEEDS = 8
"""The rank is judged only if it could be this large: with few images or features it is low anyway."""


def collapse_reason(
    loss: float, base_embedding_ND: Tensor, head_embedding_ND: Tensor | None = None
) -> str | None:
    """Why these representations are worthless, in one line; None if they are not.

    They are worthless if the loss or an embedding is not finite, if `isotropy_std` is below `MIN_STD`, or if the effective rank of the
    centred embeddings is below `MIN_CENTRED_RANK`. They are centred because a common offset of all embeddings is harmless but pulls RankMe
    towards 1. Embeddings are of the same held-out images; the head's is None without a head. Ask this before any measure, since measures
    refuse values that are not finite.
    """
    if not math.isfinite(loss):
        return f"the loss is not finite ({loss})"
    reason = worthless_reason("base", base_embedding_ND)
    if reason is None and head_embedding_ND is not None:
        reason = worthless_reason("head", head_embedding_ND)
    return reason


def worthless_reason(name: str, embedding_ND: Tensor) -> str | None:
    """`collapse_reason` for one part alone, which is called `name`."""
    if not torch.isfinite(embedding_ND).all():
        return f"the {name}'s embeddings are not finite"
    std = isotropy_std(embedding_ND)
    if std < MIN_STD:
        return f"the {name} collapsed: its embeddings hardly differ between images (std {std:.2g}, needs {MIN_STD})"
    if min(len(embedding_ND) - 1, embedding_ND.shape[1]) < _RANK_NEEDS:
        return None
    rank = rankme(embedding_ND - embedding_ND.mean(dim=0))
    if rank < MIN_CENTRED_RANK:
        return (
            f"the {name} collapsed: its embeddings differ along one direction only "
            f"(effective rank {rank:.2f}, needs {MIN_CENTRED_RANK})"
        )
    return None


def rankme(x_ND: Tensor) -> float:
    """Effective rank: the exponential of the entropy of the singular values taken as shares of their sum; in [1, min(N, D)].

    Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations by Their Rank",
    ICML 2023, equation 1. Not centred, as there. Only comparable between embeddings of like width and number of samples.

    Raises:
        ValueError: values that are not finite.
    """
    if not torch.isfinite(x_ND).all():
        raise ValueError("features must be finite")
    return effective_rank(torch.linalg.svdvals(x_ND.double()))


def effective_rank(values: Tensor) -> float:
    """The exponential of the entropy of values from 0 up, taken as shares of their sum; 1 where all are 0."""
    total = float(values.sum())
    return math.exp(float(torch.special.entr(values / total).sum())) if total > 0.0 else 1.0


def isotropy_std(x_ND: Tensor) -> float:
    """Mean standard deviation over the features of the L2-normalised samples, times sqrt(D): 1 is isotropic, 0 collapsed.

    The collapse indicator of Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, section 4.1.
    """
    normalised_ND = torch.nn.functional.normalize(x_ND.double(), dim=1)
    return float(normalised_ND.std(dim=0, correction=0).mean()) * math.sqrt(x_ND.shape[1])
