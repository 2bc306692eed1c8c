"""Classifiers on the frozen base's embeddings: k-NN, linear, and linear with few labels.

Whatever is fitted or chosen is fitted or chosen on train. The conventions are DINO's (Caron et al., ICCV 2021) where it has them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from headsearch.evaluation.intervals import Outcome
from headsearch.evaluation.spec import EvaluationSpec
from headsearch.evaluation.subject import Labelled, accuracy_outcome
from headsearch.scoring.probes import (
    knn_predictions,
    linear_predictions,
    logistic_predictions,
    standardised,
)
from headsearch.training.seeds import derived_seed


def knn(subject: Labelled, spec: EvaluationSpec) -> dict[str, Outcome]:
    """Accuracy of the weighted k-NN classifier, one outcome for each k. Nothing in it is random."""
    e = subject.embeddings
    return {
        f"{k}-NN": accuracy_outcome(
            [knn_predictions(e.train_x, e.train_y, e.test_x, k=k, temperature=spec.knn.temperature)],
            e.test_y,
        )
        for k in spec.knn.neighbours
    }


def linear(subject: Labelled, spec: EvaluationSpec) -> dict[str, Outcome]:
    """Accuracy of logistic regression whose penalty is chosen on a part of train, another part for every seed."""
    e = subject.embeddings
    predicted = [
        linear_predictions(e.train_x, e.train_y, e.test_x, seed=derived_seed(spec.seed, "linear", seed))
        for seed in range(spec.seeds)
    ]
    return {"linear": accuracy_outcome(predicted, e.test_y)}


def few_shot(subject: Labelled, spec: EvaluationSpec) -> dict[str, Outcome]:
    """Accuracy of logistic regression on a share of the labels, another subset for every seed and the same ones for all weights.

    Features are standardised by all of train, whose images may be seen without their labels.
    """
    e = subject.embeddings
    train_x, test_x = standardised(e.train_x, e.train_x, e.test_x)
    train_y = e.train_y.numpy()
    outcomes = {}
    for fraction in spec.few_shot.fractions:
        predicted = []
        for seed in range(spec.seeds):
            random = np.random.default_rng(derived_seed(spec.seed, "few-shot", str(fraction), seed))
            rows = stratified_rows(train_y, fraction, random)
            predicted.append(
                logistic_predictions(train_x[rows], train_y[rows], test_x, penalty=spec.few_shot.penalty)
            )
        outcomes[f"few-shot {100 * fraction:g}%"] = accuracy_outcome(predicted, e.test_y)
    return outcomes


def stratified_rows(
    labels_N: NDArray[np.int64], fraction: float, random: np.random.Generator
) -> NDArray[np.int64]:
    """Rows that are a share of every class, rounded up, so that every class has one at least."""
    return np.concatenate(
        [
            random.permutation(np.flatnonzero(labels_N == label))[
                : math.ceil(fraction * (labels_N == label).sum())
            ]
            for label in np.unique(labels_N)
        ]
    )
