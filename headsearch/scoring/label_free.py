"""Whether a training is healthy, without labels: the shape of a base's embeddings, beside `quality` (views) and `collapse` (rank).

Pure functions of embeddings (N, D), in float64. NaN if there are too few images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headsearch.scoring.collapse import effective_rank

_FIRST, _LAST = 5, 50
"""Alpha-ReQ fits the decay of the eigenvalues of these ranks."""
_LIDAR_DELTA = 1e-4
_TWONN_KEPT = 0.9


def alpha_req(x_ND: Tensor) -> float:
    """The exponent a of the decay i^-a of the covariance's eigenvalues: about 1 is healthy, much larger is few directions, near 0 is noise.

    Agrawal et al., "α-ReQ: Assessing Representation Quality in Self-Supervised Learning by Measuring Eigenspectrum Decay", NeurIPS 2022. The line
    through log eigenvalues over log ranks 5 to 50, or as far as eigenvalues are positive, weighted by 1 / rank as in Stringer et al., Nature 2019. NaN for
    fewer than 3 such ranks.
    """
    values = torch.linalg.svdvals(x_ND.double() - x_ND.double().mean(dim=0)).square()
    positive = int((values > values.max() * 1e-12).sum()) if float(values.max()) > 0 else 0
    last = min(_LAST, positive)
    if last < _FIRST + 2:
        return math.nan
    ranks = torch.arange(_FIRST, last + 1, dtype=torch.float64)
    x, y, weight = -ranks.log(), values[_FIRST - 1 : _FIRST - 1 + len(ranks)].log().cpu(), 1 / ranks
    x_mean, y_mean = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
    return float((weight * (x - x_mean) * (y - y_mean)).sum() / (weight * (x - x_mean).square()).sum())


def lidar(views_VND: Tensor) -> float:
    """Effective rank of what tells images apart from their views: V >= 2 views of N images.

    Thilak et al., "LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL Architectures", ICLR 2024: the exponential of the entropy of the
    eigenvalues of W^-1/2 B W^-1/2, where B is the covariance of the images' means over views and W that of views about them, plus 1e-4. In
    [1, min(N - 1, D)]. NaN for fewer than 2 images or views.
    """
    views = views_VND.double()
    count, images, width = views.shape
    if min(count, images) < 2:
        return math.nan
    means = views.mean(dim=0)
    within = (views - means).reshape(-1, width)
    between = means - means.mean(dim=0)
    w_DD = within.T @ within / (images * (count - 1)) + _LIDAR_DELTA * torch.eye(width, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(w_DD)
    whitened = between @ (vectors / values.sqrt())
    return effective_rank(torch.linalg.svdvals(whitened).square())


def wasserstein_uniformity(x_ND: Tensor) -> float:
    """2-Wasserstein distance of the L2-normalised embeddings, taken as Gaussian, to an isotropic one: 0 uniform, sqrt(2) one point.

    Fang et al., "Rethinking the Uniformity Metric in Self-Supervised Learning", ICLR 2024: sqrt(|mean|² + 1 + tr S - 2/sqrt(D) tr S^1/2). Unlike
    uniformity it tells embeddings apart that fill a part of the dimensions only.
    """
    unit = torch.nn.functional.normalize(x_ND.double(), dim=1)
    mean = unit.mean(dim=0)
    roots = torch.linalg.svdvals(unit - mean) / math.sqrt(len(unit))
    square = float(
        mean.square().sum() + 1 + roots.square().sum() - 2 * roots.sum() / math.sqrt(unit.shape[1])
    )
    return math.sqrt(max(square, 0.0))


def twonn(x_ND: Tensor) -> float:
    """Intrinsic dimension, from the ratio of the distances to the second and the first neighbour.

    Facco et al., "Estimating the intrinsic dimension of datasets by a minimal neighborhood information", Scientific Reports 2017: the slope through the
    origin of -log(1 - F) over log ratio, without the largest tenth. Images with a duplicate are left out. NaN for fewer than 10 others.
    """
    x = x_ND.double()
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(math.inf)
    if len(x) < 3:
        return math.nan
    first, second = distances.topk(2, largest=False, dim=1).values.unbind(dim=1)
    ratios = (second / first)[first > 0].sort().values
    if len(ratios) < 10:
        return math.nan
    kept = int(len(ratios) * _TWONN_KEPT)
    x_K = ratios[:kept].log()
    y_K = -torch.log1p(-torch.arange(1, kept + 1, dtype=torch.float64) / len(ratios))
    return float((x_K @ y_K) / (x_K @ x_K)) if float(x_K @ x_K) > 0 else math.nan


def verdict_of_health(rankme: float, reason: str | None, largest_before: float | None) -> str:
    """One plain sentence: `collapsed`, `collapsing` (the rank fell below half of what it was) or `healthy`."""
    if reason is not None:
        return f"collapsed: {reason}"
    if largest_before is not None and rankme < largest_before / 2:
        return f"collapsing: the effective rank fell from {largest_before:.1f} to {rankme:.1f}"
    return f"healthy: embeddings differ in about {rankme:.1f} directions"
