"""How good a representation is, without labels: does it recognise two views of an image, and keep images apart?

A discrepancy shows that base and head differ, not that either of them sees anything: noise differs, too. These functions look at one side alone.
Input: embeddings (N, D) of two augmented views of the same images, in the same order. With fewer than two images the functions give NaN, and
`qualities` leaves the measure out.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

QUALITIES: tuple[str, ...] = tuple(
    f"{measure}.{of}" for of in ("base", "head") for measure in ("retrieval", "alignment", "uniformity")
)
"""`<retrieval|alignment|uniformity>.<base|head>`."""


def qualities(of: Literal["base", "head"], first_ND: Tensor, second_ND: Tensor) -> dict[str, float]:
    """Every measure of quality that is defined for the embeddings of two views, by name: `<retrieval|alignment|uniformity>.<of>`.

    Uniformity is that of each view's embeddings, averaged.

    Raises:
        ValueError: shapes that do not pair up, or values that are not finite.
    """
    values = {
        f"retrieval.{of}": view_retrieval(first_ND, second_ND),
        f"alignment.{of}": alignment(first_ND, second_ND),
        f"uniformity.{of}": (uniformity(first_ND) + uniformity(second_ND)) / 2,
    }
    return {name: value for name, value in values.items() if not math.isnan(value)}


def view_retrieval(first_ND: Tensor, second_ND: Tensor) -> float:
    """How often, in percent, the nearest of N second views by cosine is of the same image as a first view; mean of both directions.

    100 / N by chance, so values compare for one N only. The lowest position wins a tie: a constant embedding is at chance. O(N²) memory.
    NaN for fewer than 2 images.

    Raises:
        ValueError: shapes that do not pair up, or values that are not finite.
    """
    if len(first_ND) < 2:
        _normalised(first_ND, second_ND)
        return math.nan
    there_N, back_N = found_views(first_ND, second_ND)
    return 50.0 * float(there_N.mean() + back_N.mean())


def found_views(first_ND: Tensor, second_ND: Tensor) -> tuple[Tensor, Tensor]:
    """The hits behind `view_retrieval`: 1 for each image whose view finds the other, 0 for the rest, in both directions (N,), float64.

    Raises `ValueError` as it does.
    """
    first, second = _normalised(first_ND, second_ND)
    similarity_NN = first @ second.T
    own_N = torch.arange(len(first), device=first.device)
    there_N, back_N = ((similarity_NN.argmax(dim=dim) == own_N).double() for dim in (0, 1))
    return there_N, back_N


def alignment(first_ND: Tensor, second_ND: Tensor) -> float:
    """Mean squared distance of the two views' L2-normalised embeddings: 0 where they are the same, 2 for unrelated ones, at most 4.

    Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere", ICML
    2020 (arXiv 2005.10242), section 4.1, with exponent 2. NaN for no images.

    Raises:
        ValueError: shapes that do not pair up, or values that are not finite.
    """
    first, second = _normalised(first_ND, second_ND)
    return float((first - second).square().sum(dim=1).mean())


def uniformity(x_ND: Tensor) -> float:
    """Logarithm of the mean of exp(-2 ‖x - y‖²) over pairs of images: 0 where all are one point, about -4 where they fill the sphere.

    On L2-normalised embeddings, with t = 2; lower is more uniform. Wang and Isola, ICML 2020, section 4.1. NaN for fewer than 2 images.

    Raises:
        ValueError: values that are not finite.
    """
    normalised, _ = _normalised(x_ND, x_ND)
    if len(normalised) < 2:
        return math.nan
    exponents = -2.0 * torch.pdist(normalised).square()
    return float(exponents.logsumexp(dim=0)) - math.log(len(exponents))


def _normalised(first_ND: Tensor, second_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 on the unit sphere; an embedding of zeros stays at the origin."""
    if first_ND.ndim != 2 or first_ND.shape != second_ND.shape:
        raise ValueError(
            f"expected embeddings (N, D) of two views, got {tuple(first_ND.shape)} and {tuple(second_ND.shape)}"
        )
    if not (torch.isfinite(first_ND).all() and torch.isfinite(second_ND).all()):
        raise ValueError("embeddings must be finite")
    normalise = torch.nn.functional.normalize
    return normalise(first_ND.double(), dim=1), normalise(second_ND.double(), dim=1)
