"""Whether the positions of a map are good for dense tasks, without labels: pure functions of tokens (B images, N positions, C channels)."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

_IN_IMAGE, _IN_GROUP = 3, 24
"""Clusters of the positions of one image, and of a group."""
_GROUP = 8
"""Images of a group."""
_RUNS = 4
"""Of k-means, each from another start; the best is taken."""
_MOST_DRAWS = 64


def dse(tokens_BNC: Tensor, *, seed: int) -> float:
    """Dense representation Structure Estimator: how far apart clusters of positions are, less how wide they are, plus how many dimensions are in use.

    Dai et al., "Exploring Structural Degradation in Dense Representations for Self-supervised Learning", NeurIPS 2025, arXiv 2510.17299, as in the
    authors' code: with tokens of unit length, M_inter + M_dim - (M_intra of images + M_intra of groups of 8) / 2, where

    - M_inter is the mean distance of a token to the nearest centre of another of the 24 clusters of its group;
    - M_intra is the mean over clusters (3 of an image, 24 of a group) of the nuclear norm of the centred cluster of n tokens over sqrt(max(n - 1, C));
      both are divided by the mean distance of all tokens to their mean;
    - M_dim is the effective rank, over min(B, C), of one random token of every image; the mean over min(N, 64) draws (the paper: N).

    Images beyond the last whole group take no part in M_inter and the groups' M_intra. NaN for fewer than 2 images or 3 positions, or where all tokens
    are the same, or one is not finite. `seed` is of k-means and the draws. Compare values for one number of images and positions only.
    """
    images, positions, width = tokens_BNC.shape
    if images < 2 or positions < _IN_IMAGE or images * positions < _IN_GROUP:
        return math.nan
    x_BNC = torch.nn.functional.normalize(tokens_BNC.double(), dim=2)
    scale = float((x_BNC - x_BNC.mean(dim=(0, 1))).norm(dim=2).mean())
    if not scale > 1e-12:
        return math.nan
    size = min(_GROUP, images)
    groups = x_BNC[: images // size * size].reshape(-1, size * positions, width).numpy()
    of_groups = [_clusters(group, _IN_GROUP, seed) for group in groups]
    inter = np.mean([_to_others(group, *found) for group, found in zip(groups, of_groups, strict=True)])
    intra_group = np.mean(
        [_width(group, labels) for group, (labels, _) in zip(groups, of_groups, strict=True)]
    )
    intra_image = np.mean([_width(x, _clusters(x, _IN_IMAGE, seed)[0]) for x in x_BNC.numpy()])
    return float((inter - (intra_image + intra_group) / 2) / scale) + _dimensions(x_BNC, seed)


def _clusters(
    x_NC: NDArray[np.float64], count: int, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The cluster of every token, and the centres."""
    with warnings.catch_warnings():
        # Fewer different tokens than clusters: some stay empty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(count, n_init=_RUNS, random_state=seed % 2**32).fit(x_NC)
    return found.labels_, found.cluster_centers_


def _to_others(
    x_NC: NDArray[np.float64], labels_N: NDArray[np.intp], centres_KC: NDArray[np.float64]
) -> float:
    """The mean distance of a token to the nearest centre but its own."""
    distances_NK = np.linalg.norm(x_NC[:, None] - centres_KC[None], axis=2)
    distances_NK[np.arange(len(x_NC)), labels_N] = np.inf
    return float(distances_NK.min(axis=1).mean())


def _width(x_NC: NDArray[np.float64], labels_N: NDArray[np.intp]) -> float:
    """The mean over clusters of two tokens or more of their nuclear norm about the centre; 1 where there is none, as the authors have it."""
    widths = []
    for label in np.unique(labels_N):
        cluster = x_NC[labels_N == label]
        if len(cluster) > 1:
            norm = np.linalg.svd(cluster - cluster.mean(axis=0), compute_uv=False).sum()
            widths.append(norm / math.sqrt(max(len(cluster) - 1, x_NC.shape[1])))
    return float(np.mean(widths)) if widths else 1.0


def _dimensions(x_BNC: Tensor, seed: int) -> float:
    images, positions, width = x_BNC.shape
    generator = torch.Generator().manual_seed(seed)
    draws = min(positions, _MOST_DRAWS)
    order_BD = torch.rand(images, positions, generator=generator).argsort(dim=1)[:, :draws]
    drawn_DBC = x_BNC.gather(1, order_BD[:, :, None].expand(-1, -1, width)).transpose(0, 1)
    values_DR = torch.linalg.svdvals(drawn_DBC)
    entropy_D = torch.special.entr(values_DR / values_DR.sum(dim=1, keepdim=True)).sum(dim=1)
    return float(entropy_D.exp().mean()) / min(images, width)
