"""Probes of embeddings against scikit-learn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from headsearch.evaluation.frozen import few_shot, knn, linear, stratified_rows
from headsearch.evaluation.spec import EvaluationSpec, evaluation_spec
from headsearch.evaluation.subject import Embeddings


@pytest.fixture(scope="module")
def subject() -> Any:
    """Digits' pixels as embeddings."""
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)
    return SimpleNamespace(embeddings=Embeddings(x[:1200], y[:1200], x[1200:], y[1200:]))


def arrays(subject: Any) -> tuple[np.ndarray, ...]:
    return tuple(value.numpy() for value in vars(subject.embeddings).values())


def test_every_k_has_an_outcome_and_it_is_sklearns(subject: Any) -> None:
    found = knn(subject, evaluation_spec({"knn": {"neighbours": [5, 20]}}))
    train_x, train_y, test_x, test_y = arrays(subject)
    assert list(found) == ["5-NN", "20-NN"]
    for k in (5, 20):
        classifier = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
        right = classifier.fit(train_x, train_y).predict(test_x) == test_y
        np.testing.assert_array_equal(found[f"{k}-NN"].contributions, 100.0 * right[None])
        assert found[f"{k}-NN"].score == pytest.approx(100 * right.mean())


def test_linear_is_repeated_with_other_splits_of_train(subject: Any) -> None:
    outcome = linear(subject, evaluation_spec({"seeds": 2}))["linear"]
    assert outcome.contributions.shape == (2, 597)
    assert all(score > 85 for score in outcome.by_seed)


def test_few_shot_is_sklearns_on_the_same_rows(subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def spy(labels: Any, fraction: float, random: Any) -> Any:
        drawn.append(stratified_rows(labels, fraction, random))
        return drawn[-1]

    monkeypatch.setattr("headsearch.evaluation.frozen.stratified_rows", spy)
    spec = evaluation_spec({"seeds": 3, "few_shot": {"fractions": [0.01, 0.1], "penalty": 0.02}})
    found = few_shot(subject, spec)
    train_x, train_y, test_x, test_y = arrays(subject)
    scaler = StandardScaler().fit(train_x.astype(float))
    scaled_x, scaled_test_x = scaler.transform(train_x.astype(float)), scaler.transform(test_x.astype(float))
    expected = []
    for rows in drawn:
        classifier = LogisticRegression(C=1 / (0.02 * len(rows)), max_iter=2000)
        classifier.fit(scaled_x[rows], train_y[rows])
        expected.append(100 * classifier.score(scaled_test_x, test_y))
    scores = [*found["few-shot 1%"].by_seed, *found["few-shot 10%"].by_seed]
    assert scores == pytest.approx(expected, abs=0.2)
    assert len({tuple(sorted(rows)) for rows in drawn}) == 6, "another subset for every seed and share"


def test_subsets_are_the_same_for_all_weights(subject: Any) -> None:
    spec = evaluation_spec({"seeds": 2})
    first, second = (few_shot(subject, spec)["few-shot 1%"].by_seed for _ in range(2))
    assert first == second


def test_a_share_is_of_every_class_and_one_at_least() -> None:
    labels = np.repeat([0, 1, 2], [100, 33, 2])
    rows = stratified_rows(labels, 0.1, np.random.default_rng(0))
    assert np.bincount(labels[rows]).tolist() == [10, 4, 1]
    assert len(set(rows.tolist())) == len(rows)


def test_the_defaults_are_dinos() -> None:
    spec = EvaluationSpec()
    assert (spec.knn.neighbours, spec.knn.temperature) == ([20], 0.07)
