"""Mean IoU against torchmetrics, scikit-learn and brute force, and its jackknife against a bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor

from headsearch.evaluation.intervals import margin
from headsearch.evaluation.segmentation import contributions, counts, mean_iou

CLASSES = 5


@pytest.fixture(scope="module")
def masks() -> tuple[Tensor, Tensor]:
    """Predictions and truth of 150 images of 8x8 pixels, right more often than not; some pixels do not count."""
    random = torch.Generator().manual_seed(0)
    truth = torch.randint(0, CLASSES, (150, 8, 8), generator=random)
    wrong = torch.rand(truth.shape, generator=random) < 0.3 + 0.3 * torch.rand(150, 1, 1, generator=random)
    predicted = torch.where(wrong, torch.randint(0, CLASSES, truth.shape, generator=random), truth)
    truth[torch.rand(truth.shape, generator=random) < 0.1] = -1
    return predicted, truth


def test_it_is_torchmetrics_and_sklearns(masks: tuple[Tensor, Tensor]) -> None:
    from torchmetrics.classification import MulticlassJaccardIndex

    predicted, truth = masks
    intersection, union = counts(predicted, truth, CLASSES)
    found = mean_iou(intersection.sum(axis=0), union.sum(axis=0))
    metric = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=-1)
    assert found == pytest.approx(100 * float(metric(predicted, truth)), rel=1e-5)
    counted = truth >= 0
    expected = jaccard_score(truth[counted].numpy(), predicted[counted].numpy(), average="macro")
    assert found == pytest.approx(100 * expected)


def test_counts_are_those_of_a_loop_over_pixels(masks: tuple[Tensor, Tensor]) -> None:
    predicted, truth = (x[:3] for x in masks)
    intersection, union = counts(predicted, truth, CLASSES)
    expected = np.zeros((2, 3, CLASSES), dtype=int)
    for image, guess, true in zip(
        range(3), predicted.flatten(1).tolist(), truth.flatten(1).tolist(), strict=True
    ):
        for guessed, label in zip(guess, true, strict=True):
            if label < 0:
                continue
            for number in {guessed, label}:
                expected[0, image, number] += guessed == label
                expected[1, image, number] += 1
    np.testing.assert_array_equal(intersection, expected[0])
    np.testing.assert_array_equal(union, expected[1])


def test_a_class_that_neither_occurs_nor_is_predicted_is_left_out() -> None:
    assert mean_iou(np.array([3, 1, 0]), np.array([4, 4, 0])) == pytest.approx(50.0)


def test_the_jackknifes_interval_is_the_bootstraps(masks: tuple[Tensor, Tensor]) -> None:
    intersection, union = counts(*masks, CLASSES)
    random = np.random.default_rng(1)
    resampled = []
    for _ in range(2000):
        rows = random.integers(0, 150, 150)
        resampled.append(mean_iou(intersection[rows].sum(axis=0), union[rows].sum(axis=0)))
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert margin(contributions(intersection, union)[None]) == pytest.approx((high - low) / 2, rel=0.08)
