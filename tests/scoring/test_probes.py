"""Probes against scikit-learn, and the promise that train and test never mix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from headsearch.errors import DataError
from headsearch.scoring import probes
from headsearch.scoring.probes import knn_accuracy, linear_accuracy


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)
    return x[:1280], y[:1280], x[1280:], y[1280:]


@pytest.fixture(scope="module")
def blobs():
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 16, generator=random)
    y = torch.randint(0, 5, (900,), generator=random)
    x = centres[y] + 1.3 * torch.randn(900, 16, generator=random)
    return x[:600], y[:600], x[600:], y[600:]


@pytest.mark.parametrize("k", [1, 20])
@pytest.mark.parametrize("name", ["digits", "blobs"])
def test_knn_is_sklearns_with_cosine_votes(request, name, k):
    train_x, train_y, test_x, test_y = request.getfixturevalue(name)
    classifier = KNeighborsClassifier(
        k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    classifier.fit(train_x.numpy(), train_y.numpy())
    expected = 100.0 * classifier.score(test_x.numpy(), test_y.numpy())
    assert 40 < expected < 100
    assert knn_accuracy(train_x, train_y, test_x, test_y, k=k) == pytest.approx(expected, abs=1e-9)


def test_knn_temperature_turns_votes_from_near_to_many():
    # One neighbour at similarity 1 against three at 0.8.
    train = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, 0.6], [0.8, 0.6]])
    labels = torch.tensor([0, 1, 1, 1])
    query, truth = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    assert knn_accuracy(train, labels, query, truth, k=4, temperature=0.07) == 100.0  # exp(0.2 / 0.07) > 3
    assert knn_accuracy(train, labels, query, truth, k=4, temperature=1.0) == 0.0  # exp(0.2) < 3


def test_knn_does_not_depend_on_how_much_is_held_at_a_time(monkeypatch, blobs):
    whole = knn_accuracy(*blobs)
    monkeypatch.setattr(probes, "_SIMILARITIES_AT_ONCE", 5_000)
    assert knn_accuracy(*blobs) == whole


def test_knn_with_fewer_images_than_neighbours_lets_all_vote():
    x = normalize(np.eye(3))
    train = torch.tensor(x, dtype=torch.float32)
    labels = torch.arange(3)
    assert knn_accuracy(train, labels, train, labels) == 100.0


def test_linear_is_sklearns_logistic_regression_with_the_best_of_its_penalties(digits):
    train_x, train_y, test_x, test_y = (part.numpy() for part in digits)
    # The same penalty on the mean loss, 0.01 * |w|^2 / 2, which every reasonable choice on these data is near to.
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(C=1 / (0.01 * len(train_x)), max_iter=1000)
    )
    expected = 100.0 * classifier.fit(train_x, train_y).score(test_x, test_y)
    assert linear_accuracy(*digits, seed=0) == pytest.approx(expected, abs=2.0)


def test_linear_with_one_penalty_to_choose_from_is_exactly_sklearn(monkeypatch, blobs):
    monkeypatch.setattr(probes, "_PENALTIES", (0.05,))
    train_x, train_y, test_x, test_y = (
        part.double().numpy() if part.is_floating_point() else part.numpy() for part in blobs
    )
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.05 * 600), max_iter=1000))
    expected = 100.0 * classifier.fit(train_x, train_y).score(test_x, test_y)
    assert linear_accuracy(*blobs, seed=0) == pytest.approx(expected, abs=1e-9)


def test_the_penalty_is_chosen_without_a_look_at_test(monkeypatch, blobs):
    """Test labels, however wrong, change the accuracy and not the classifier that was chosen."""
    chosen = []
    real = probes._fitted

    def spy(train_x, train_y, penalty):
        chosen.append((len(train_x), penalty))
        return real(train_x, train_y, penalty)

    monkeypatch.setattr(probes, "_fitted", spy)
    train_x, train_y, test_x, test_y = blobs
    right = linear_accuracy(train_x, train_y, test_x, test_y, seed=0)
    rows_and_penalty = chosen[-1]
    wrong = linear_accuracy(train_x, train_y, test_x, (test_y + 1) % 5, seed=0)
    assert chosen[-1] == rows_and_penalty
    assert right > 60 > 30 > wrong
    assert rows_and_penalty[0] == 600
    assert {rows for rows, _ in chosen} == {
        600,
        482,
    }  # a fifth of each class, rounded down, is left out to choose


def test_wrong_labels_in_train_are_met_with_a_strong_penalty(monkeypatch):
    random = torch.Generator().manual_seed(1)
    truth = torch.randint(0, 2, (2000,), generator=random)
    x = torch.randn(2000, 100, generator=random)
    x[:, :20] += 0.3 * (2.0 * truth[:, None] - 1.0)
    flipped = torch.where(torch.rand(2000, generator=random) < 0.3, 1 - truth, truth)
    parts = (x[:300], flipped[:300], x[300:], truth[300:])
    chosen = linear_accuracy(*parts, seed=0)
    monkeypatch.setattr(probes, "_PENALTIES", (1e-4,))
    assert chosen > linear_accuracy(*parts, seed=0) + 3.0


def test_linear_is_deterministic_and_blind_to_the_scale_of_a_feature(blobs):
    train_x, train_y, test_x, test_y = blobs
    first = linear_accuracy(*blobs, seed=3)
    assert linear_accuracy(*blobs, seed=3) == first
    scale = torch.logspace(-3, 3, 16)
    assert linear_accuracy(train_x * scale, train_y, test_x * scale, test_y, seed=3) == pytest.approx(
        first, abs=0.4
    )


def test_a_dead_feature_does_no_harm(blobs):
    train_x, train_y, test_x, test_y = (part.clone() for part in blobs)
    train_x[:, 0], test_x[:, 0] = 7.0, 7.0
    assert linear_accuracy(train_x, train_y, test_x, test_y, seed=0) > 50


def test_data_that_cannot_be_probed_are_refused_in_one_line(blobs):
    train_x, train_y, test_x, test_y = blobs
    with pytest.raises(DataError, match="two classes, got 1"):
        linear_accuracy(train_x, torch.zeros_like(train_y), test_x, test_y, seed=0)
    with pytest.raises(DataError, match="two images of a class"):
        linear_accuracy(train_x[:4], torch.arange(4), test_x, test_y, seed=0)
    with pytest.raises(ValueError, match="labels"):
        knn_accuracy(train_x, train_y[:-1], test_x, test_y)
