"""Classifiers on the frozen base's embeddings: k-NN, linear, and linear with few labels.

Everything is fitted and chosen on train. The conventions are those of DINO (Caron et al., ICCV 2021).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsearch.errors import BaseModelError
from headsearch.evaluation.intervals import Outcome
from headsearch.evaluation.spec import EvaluationSpec
from headsearch.evaluation.subject import Subject, accuracy_outcome
from headsearch.scoring.probes import (
    knn_predictions,
    linear_predictions,
    logistic_predictions,
    standardised,
)
from headsearch.scoring.quality import found_views
from headsearch.training.seeds import derived_generator, derived_seed

_MOST_RETRIEVED = 1_000
"""Held-out images among which views are looked for; of a larger set, a fixed random part. The score depends on how many there are."""


def knn(subject: Subject, spec: EvaluationSpec) -> dict[str, Outcome]:
    """Accuracy of the weighted k-NN classifier, one outcome for each k. Nothing in it is random."""
    e = subject.embeddings
    return {
        f"{k}-NN": accuracy_outcome(
            [knn_predictions(e.train_x, e.train_y, e.test_x, k=k, temperature=spec.knn.temperature)],
            e.test_y,
        )
        for k in spec.knn.neighbours
    }


def linear(subject: Subject, spec: EvaluationSpec) -> dict[str, Outcome]:
    """Accuracy of logistic regression whose penalty is chosen on a part of train, another part for every seed."""
    e = subject.embeddings
    predicted = [
        linear_predictions(e.train_x, e.train_y, e.test_x, seed=derived_seed(spec.seed, "linear", seed))
        for seed in range(spec.seeds)
    ]
    return {"linear": accuracy_outcome(predicted, e.test_y)}


def few_shot(subject: Subject, spec: EvaluationSpec) -> dict[str, Outcome]:
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


def retrieval(subject: Subject, spec: EvaluationSpec) -> dict[str, Outcome]:
    """How often one of two augmented views of a held-out image finds the other among those of about 1,000 images; other views for every seed.

    Without labels. See `headsearch.scoring.quality.view_retrieval`.

    Raises:
        BaseModelError: the embeddings are not finite, or there is one image alone.
    """
    found = torch.stack([_found_views(subject, spec, seed) for seed in range(spec.seeds)])
    contributions = found.cpu().numpy()
    return {"retrieval": Outcome(tuple(contributions.mean(axis=1).tolist()), contributions)}


def _found_views(subject: Subject, spec: EvaluationSpec, seed: int) -> Tensor:
    images = subject.some_held_out(_MOST_RETRIEVED, derived_generator(spec.seed, "retrieval images"))
    views = subject.two_views(images, derived_generator(spec.seed, "retrieval views", seed))
    if len(views[0]) < 2 or not all(torch.isfinite(view).all() for view in views):
        raise BaseModelError(
            f"weights '{subject.name}': retrieval needs finite embeddings of two held-out images or more"
        )
    there_N, back_N = found_views(*views)
    return 50.0 * (there_N + back_N)


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
