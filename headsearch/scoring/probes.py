"""Probes of a frozen base: accuracy of a k-NN and of a linear classifier on its embeddings, in percent.

Input: embeddings (N, D) and integer labels (N,) of the train and the test split. Train and test never mix: everything is fitted and chosen on train.
Deterministic.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsearch.errors import DataError

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

_PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""L2 penalties on the mean loss that the linear probe chooses from, strongest first."""

_SELECTION_ROWS = 10_000
"""At most so many train images take part in choosing the penalty; the final fit takes all."""

_MAX_ITERATIONS = 200
"""Of L-BFGS. Bounds the time; what has not converged by then has long stopped to gain accuracy."""

_SIMILARITIES_AT_ONCE = 1 << 24
"""Entries of the similarity matrix held at a time (64 MB in float32)."""


def knn_accuracy(
    train_x_ND: Tensor,
    train_y_N: Tensor,
    test_x_MD: Tensor,
    test_y_M: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Accuracy in percent of `knn_predictions`."""
    _check(train_x_ND, train_y_N, test_x_MD, test_y_M)
    predicted_M = knn_predictions(train_x_ND, train_y_N, test_x_MD, k=k, temperature=temperature)
    return _accuracy(predicted_M, test_y_M)


def knn_predictions(
    train_x_ND: Tensor, train_y_N: Tensor, test_x_MD: Tensor, *, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Labels (M,) by a weighted k-NN classifier by cosine similarity, each neighbour's vote weighing exp(similarity / T).

    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, section 3.4, with the k and T of
    DINO (Caron et al., ICCV 2021). All train images vote where there are fewer than `k`. The lowest label wins a tie.
    """
    bank_DN = torch.nn.functional.normalize(train_x_ND.float(), dim=1).T
    queries_MD = torch.nn.functional.normalize(test_x_MD.float(), dim=1)
    classes = int(train_y_N.max()) + 1
    rows = max(1, _SIMILARITIES_AT_ONCE // len(train_x_ND))
    predicted = []
    for query_RD in torch.split(queries_MD, rows):
        similarity_RK, neighbour_RK = (query_RD @ bank_DN).topk(min(k, len(train_x_ND)), dim=1)
        votes_RC = torch.zeros(len(query_RD), classes, dtype=torch.float64, device=query_RD.device)
        votes_RC.scatter_add_(1, train_y_N[neighbour_RK], (similarity_RK.double() / temperature).exp())
        predicted.append(votes_RC.argmax(dim=1))
    return torch.cat(predicted)


def linear_accuracy(
    train_x_ND: Tensor, train_y_N: Tensor, test_x_MD: Tensor, test_y_M: Tensor, *, seed: int
) -> float:
    """Accuracy in percent of `linear_predictions`. Raises `DataError` as it does."""
    _check(train_x_ND, train_y_N, test_x_MD, test_y_M)
    return _accuracy(linear_predictions(train_x_ND, train_y_N, test_x_MD, seed=seed), test_y_M)


def linear_predictions(train_x_ND: Tensor, train_y_N: Tensor, test_x_MD: Tensor, *, seed: int) -> Tensor:
    """Labels (M,) by multinomial logistic regression on features standardised by train's mean and deviation.

    The L2 penalty is chosen on a fifth of train (stratified, drawn by `seed`), then all of train is fitted with it. The penalty is on the
    mean loss (scikit-learn's C is 1 / (penalty * n)), so that a choice made on part of train holds for all of it.

    Raises:
        DataError: fewer than two classes, or no class with two train images.
    """
    train_x, test_x = standardised(train_x_ND, train_x_ND, test_x_MD)
    train_y = train_y_N.cpu().numpy()
    fit_rows, choice_rows = _split(train_y, np.random.default_rng(seed))
    right = [
        np.mean(
            _fitted(train_x[fit_rows], train_y[fit_rows], penalty).predict(train_x[choice_rows])
            == train_y[choice_rows]
        )
        for penalty in _PENALTIES
    ]
    chosen = _PENALTIES[int(np.argmax(right))]
    return torch.from_numpy(_fitted(train_x, train_y, chosen).predict(test_x))


def logistic_predictions(
    train_x: NDArray[np.float64], train_y: NDArray[np.int64], test_x: NDArray[np.float64], *, penalty: float
) -> Tensor:
    """Labels (M,) by multinomial logistic regression with a given L2 penalty on the mean loss; features as `standardised` gives them."""
    return torch.from_numpy(_fitted(train_x, train_y, penalty).predict(test_x))


def standardised(reference_ND: Tensor, *features_ND: Tensor) -> list[NDArray[np.float64]]:
    """Each of `features_ND`, shifted and scaled by the mean and deviation of the reference; a feature that is constant there is only shifted."""
    deviation_D, mean_D = torch.std_mean(reference_ND.double(), dim=0, correction=0)
    scale_D = torch.where(deviation_D > 0, deviation_D, 1.0)
    return [((x.double() - mean_D) / scale_D).cpu().numpy() for x in features_ND]


def _fitted(train_x: NDArray[np.float64], train_y: NDArray[np.int64], penalty: float) -> LogisticRegression:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(C=1.0 / (penalty * len(train_x)), max_iter=_MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # the iteration limit is a choice, see _MAX_ITERATIONS
        return classifier.fit(train_x, train_y)


def _accuracy(predicted_M: Tensor, test_y_M: Tensor) -> float:
    right = int((predicted_M == test_y_M.to(predicted_M.device)).sum())
    return 100.0 * right / len(test_y_M)


def _split(
    labels_N: NDArray[np.int64], random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to fit on and rows to choose the penalty on: a fifth of each class, at least one where a class has two images."""
    rows = random.permutation(len(labels_N))[:_SELECTION_ROWS]
    classes, counts = np.unique(labels_N[rows], return_counts=True)
    if len(classes) < 2:
        raise DataError(f"a linear probe needs images of two classes, got {len(classes)}")
    if counts.max() < 2:
        raise DataError("a linear probe needs two images of a class; no class has more than one")
    fit, choice = [], []
    for label, count in zip(classes, counts, strict=True):
        of_class = rows[labels_N[rows] == label]
        held_out = max(math.floor(count / 5), min(1, count - 1))
        choice.append(of_class[:held_out])
        fit.append(of_class[held_out:])
    return np.concatenate(fit), np.concatenate(choice)


def _check(train_x_ND: Tensor, train_y_N: Tensor, test_x_MD: Tensor, test_y_M: Tensor) -> None:
    for name, x, y in (("train", train_x_ND, train_y_N), ("test", test_x_MD, test_y_M)):
        if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or len(x) == 0:
            raise ValueError(
                f"expected {name} embeddings (N, D) and labels (N,), got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        if not torch.isfinite(x).all():
            raise ValueError(f"{name} embeddings must be finite")
