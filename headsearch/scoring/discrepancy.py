"""How differently a base and a head represent the same held-out images; every discrepancy is 0 for the same up to rotation and scale.

Three measures (debiased linear CKA, mutual k-NN, angular Procrustes) on two kinds of samples (embeddings, tokens) of two things
(the head's output h(x), its change h(x) - x). Pure functions on tensors of shape (samples, features); the two sides may differ
in their number of features. All are blind to rotation, isotropic scale and translation of either side.

Undefined is NaN in the functions (too few samples, or a side that is the same for all samples) and absent from `discrepancies`.
Torch is imported where it is needed: an experiment can be checked by the names of measures without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headsearch.registry import Entry, Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from headsearch.scoring.features import Features


@dataclass(frozen=True)
class Measure(Entry):
    """A way to tell how different two representations of the same samples are."""

    of: Callable[[Any, Any], float]
    """Of two sides with as many samples: 0 where they are the same up to rotation and scale, larger the more they differ, NaN where that is undefined."""
    side: Callable[[Tensor], Any] | None = None
    """What `of` needs of one side, of (samples, features) on whatever device: computed once for a base that many heads are compared with.
    None: `of` takes both sides as they are, on the CPU."""

    def __call__(self, x_ND: Tensor, y_NE: Tensor) -> float:
        """`of` these two. Raises `ValueError` for shapes that do not pair up, or values that are not finite."""
        _check_pair(x_ND, y_NE)
        return self.of(*((x_ND, y_NE) if self.side is None else map(self.side, (x_ND, y_NE))))


_CONSTANT = 1e-10
"""A side whose spread is below this share of its norm counts as constant: what varies is float64 rounding."""

_ROWS_PER_CHUNK = 1024
"""Rows of a distance matrix held at a time: an n x n matrix never exists."""


def debiased_cka(x_ND: Tensor, y_NE: Tensor) -> float:
    """Linear centred kernel alignment with the unbiased HSIC estimator: 1 for equal up to rotation and scale, about 0 for unrelated.

    HSIC of Song et al., "Feature Selection via Dependence Maximization", JMLR 2012, equation 5, as debiased CKA in Nguyen et al.,
    "Do Wide and Deep Networks Learn the Same Things?", ICLR 2021; CKA of Kornblith et al., ICML 2019. Works in the smaller of
    feature space, O(n d e), and sample space, O(n^2 (d + e)), in float64. In [-1, 1]; NaN for fewer than 4 samples or a side
    that is the same for all samples.

    Raises:
        ValueError: shapes that do not pair up, or values that are not finite.
    """
    _check_pair(x_ND, y_NE)
    return cka_of_sides(cka_side(x_ND), cka_side(y_NE))


@dataclass(frozen=True)
class CkaSide:
    """One side prepared for debiased CKA, to be compared with many others."""

    features: Tensor
    """(N, D), centred and of unit norm, float64."""
    squares: Tensor
    """(N,): the diagonal of the kernel x x^T."""
    rows: Tensor
    """(N,): sums of the kernel's rows without the diagonal."""

    @cached_property
    def self_hsic(self) -> float:
        """HSIC of the side with itself."""
        return _hsic(self, self)


def cka_side(x_ND: Tensor) -> CkaSide | None:
    """`x_ND` prepared for `cka_of_sides`; None where CKA is undefined: fewer than 4 samples, or all samples the same."""
    x = _unit(x_ND)
    if x is None or len(x) < 4:
        return None
    squares_N = x.square().sum(dim=1)
    return CkaSide(x, squares_N, x @ x.sum(dim=0) - squares_N)


def cka_of_sides(x: CkaSide | None, y: CkaSide | None) -> float:
    """`debiased_cka` of two prepared sides of as many samples; NaN where one is None."""
    if x is None or y is None:
        return math.nan
    normaliser = x.self_hsic * y.self_hsic
    return _hsic(x, y) / math.sqrt(normaliser) if normaliser > 0 else math.nan


def mutual_knn(x_ND: Tensor, y_NE: Tensor, k: int = 10) -> float:
    """Mean share of the k nearest neighbours (Euclidean, a sample is not its own) that a sample has in common on both sides.

    1 for the same neighbourhoods, k / (n - 1) by chance. After Huh et al., "The Platonic Representation Hypothesis", ICML 2024, who
    take cosine neighbours; Euclidean ones are blind to translation too, as the other measures here are. NaN for k >= n - 1, where
    everyone is a neighbour, or a side that is the same for all samples.

    Raises:
        ValueError: shapes that do not pair up, or values that are not finite.
    """
    _check_pair(x_ND, y_NE)
    return _shared(_neighbours(x_ND, k), _neighbours(y_NE, k))


def angular_procrustes(x_ND: Tensor, y_NE: Tensor) -> float:
    """Angle in radians between the two sides after the best rotation: arccos of the nuclear norm of X^T Y, both centred and of unit norm.

    Williams et al., "Generalized Shape Metrics on Neural Representations", NeurIPS 2021, equation 5; a true metric. In [0, pi/2]. Not
    debiased: for few samples per feature, unrelated sides read far below pi/2. NaN for fewer than 2 samples or a side that is the same
    for all samples.

    Raises:
        ValueError: shapes that do not pair up, or values that are not finite.
    """
    _check_pair(x_ND, y_NE)
    return _angle(_rotated(x_ND), _rotated(y_NE))


def _check_pair(x_ND: Tensor, y_NE: Tensor) -> None:
    if x_ND.ndim != 2 or y_NE.ndim != 2 or len(x_ND) != len(y_NE):
        raise ValueError(
            f"expected two (samples, features) tensors of as many samples, got {tuple(x_ND.shape)} and {tuple(y_NE.shape)}"
        )
    if not (x_ND.isfinite().all() and y_NE.isfinite().all()):
        raise ValueError("features must be finite")


def _unit(x_ND: Tensor) -> Tensor | None:
    """`x_ND` in float64, centred and of Frobenius norm 1; None where all samples are the same."""
    x = x_ND.double()
    centred = x - x.mean(dim=0)
    norm = float(centred.norm())
    return centred / norm if norm > _CONSTANT * float(x.norm()) else None


def _hsic(x: CkaSide, y: CkaSide) -> float:
    """Unbiased HSIC of two linear kernels, without the factor 1 / (n (n - 3)), which CKA cancels.

    With K = X X^T and its diagonal set to zero, and L likewise of Y:
    tr(K L) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'K L1.
    """
    n = len(x.features)
    trace = _gram_product(x.features, y.features) - x.squares @ y.squares
    product_of_sums = x.rows.sum() * y.rows.sum() / ((n - 1) * (n - 2))
    return float(trace + product_of_sums - 2.0 / (n - 2) * (x.rows @ y.rows))


def _gram_product(x_ND: Tensor, y_NE: Tensor) -> Tensor:
    """tr(X X^T Y Y^T), by features or by samples, whichever is less work; float64 scalar."""
    n, d, e = len(x_ND), x_ND.shape[1], y_NE.shape[1]
    if d * e <= n * (d + e):
        return (x_ND.T @ y_NE).square().sum()
    return ((x_ND @ x_ND.T) * (y_NE @ y_NE.T)).sum()


def _neighbours(x_ND: Tensor, k: int = 10) -> Tensor | None:
    """Indices of the `k` nearest other samples of each, (N, k); None where `mutual_knn` is undefined."""
    import torch

    x = _unit(x_ND)
    if x is None or k >= len(x) - 1:
        return None
    if x_ND.dtype != torch.float64:
        # Ranking neighbours needs no more precision than the features came with, and float32 is twice as fast.
        x = x.float()
    squares_N = x.square().sum(dim=1)
    nearest: list[Tensor] = []
    for start in range(0, len(x), _ROWS_PER_CHUNK):
        distances_RN = (x[start : start + _ROWS_PER_CHUNK] @ x.T).mul_(-2.0).add_(squares_N)
        distances_RN.diagonal(start).fill_(math.inf)
        nearest.append(distances_RN.topk(k, dim=1, largest=False).indices)
    return torch.cat(nearest)


def _shared(x_NK: Tensor | None, y_NK: Tensor | None) -> float:
    """`mutual_knn` of two sides' neighbours."""
    if x_NK is None or y_NK is None:
        return math.nan
    return int((x_NK[:, :, None] == y_NK[:, None, :]).sum()) / x_NK.numel()


def _rotated(x_ND: Tensor) -> Tensor | None:
    """As `_unit`, at most as many features as samples: with more, its orthonormal factor is taken off, which changes no nuclear norm."""
    import torch

    x = _unit(x_ND)
    return torch.linalg.qr(x.T, mode="r").R.T if x is not None and len(x) < x.shape[1] else x


def _angle(x_ND: Tensor | None, y_NE: Tensor | None) -> float:
    """`angular_procrustes` of two sides as `_rotated` gives them."""
    import torch

    if x_ND is None or y_NE is None:
        return math.nan
    # A matrix this small is decomposed sooner on a CPU.
    similarity = float(torch.linalg.svdvals((x_ND.T @ y_NE).cpu()).sum())
    return math.acos(min(similarity, 1.0))


KINDS = Registry(
    Measure,
    "measure",
    (
        # In this order NaN stays NaN.
        Measure("cka", lambda x, y: max(1.0 - cka_of_sides(x, y), 0.0), cka_side),
        Measure("mutual_knn", lambda x_NK, y_NK: 1.0 - _shared(x_NK, y_NK), _neighbours),
        Measure("procrustes", _angle, _rotated),
    ),
)
"""What is measured, by name: 1 - debiased CKA (about 1 for unrelated representations, and a little above by chance), 1 - the share of common
neighbours, and the angle in radians (at most pi/2). A new measure is a function and a line here, or a plug-in."""


def measure_names() -> tuple[str, ...]:
    """Every discrepancy that there is now: `<kind>.<embedding|tokens>.<output|change>`."""
    return tuple(
        f"{kind}.{samples}.{side}"
        for kind in KINDS
        for samples in ("embedding", "tokens")
        for side in ("output", "change")
    )


MEASURES = measure_names()
"""Those that come with headsearch."""


class Discrepancies:
    """Every discrepancy of heads from their base, by the names of `measure_names`. The base's side is computed once for all heads."""

    def __init__(self, base: Features, device: torch.device) -> None:
        """`base` is what all heads see, `device` computes."""
        self._device = device
        self._base = {
            "embedding": self._sides(base.base_embedding),
            "tokens": self._sides(base.base_tokens),
        }

    def of(self, head: Features) -> dict[str, float]:
        """Those that are defined for a head, whose features are finite."""
        seen = {
            "embedding.output": head.head_embedding,
            "embedding.change": head.change_embedding,
            "tokens.output": head.head_tokens,
            "tokens.change": head.change_tokens,
        }
        sides = {name: self._sides(x_ND) for name, x_ND in seen.items() if x_ND is not None}
        values = {
            f"{kind}.{name}": measure.of(self._base[name.partition(".")[0]][kind], side[kind])
            for kind, measure in KINDS.items()
            for name, side in sides.items()
        }
        return {name: value for name, value in values.items() if not math.isnan(value)}

    def _sides(self, x_ND: Tensor) -> dict[str, Any]:
        there_ND = x_ND.to(self._device)
        return {
            kind: x_ND if measure.side is None else measure.side(there_ND) for kind, measure in KINDS.items()
        }
