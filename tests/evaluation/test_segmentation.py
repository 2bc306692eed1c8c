"""The linear segmentation probe: what a perfect base scores, what noise scores, and its parity with logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from headsearch.base.model import BaseOutput
from headsearch.data.augment import Augmentation, Views
from headsearch.data.segmentation import IGNORED, MaskedDataset, MaskedImages
from headsearch.errors import BaseModelError
from headsearch.evaluation.segmentation import Masked, segmentation
from headsearch.evaluation.spec import EvaluationSpec, evaluation_spec

SIZE, CLASSES = 8, 3


class Fake(nn.Module):
    """A base whose map is the image itself, shuffled in channels; or noise, or not finite."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, images: Tensor) -> BaseOutput:
        map_BCHW = images
        if self.kind == "noise":
            map_BCHW = torch.randn(images.shape, generator=torch.Generator().manual_seed(len(images)))
        if self.kind == "broken":
            map_BCHW = images / 0.0
        return BaseOutput(map_BCHW, images.mean(dim=(2, 3)))


def dataset(overlap: float) -> MaskedDataset:
    """Each class has a colour; with `overlap`, colours are noisy."""
    random = torch.Generator().manual_seed(0)
    colours = torch.tensor([[200.0, 30, 30], [30, 200, 30], [30, 30, 200]])

    def part(count: int) -> MaskedImages:
        masks = torch.randint(0, CLASSES, (count, SIZE, SIZE), generator=random)
        pixels = colours[masks] + overlap * torch.randn(count, SIZE, SIZE, 3, generator=random)
        masks[:, 0, 0] = IGNORED
        return MaskedImages(pixels.clamp(0, 255).permute(0, 3, 1, 2).byte(), masks)

    return MaskedDataset(part(60), part(40), [0, 1, 2])


def subject(kind: str, overlap: float = 0.0) -> Masked:
    base: Any = Fake(kind)
    views = Views(Augmentation(), image_size=SIZE, mean=(0.3,) * 3, std=(0.3,) * 3)
    return Masked(kind, base, dataset(overlap), views, 16, torch.device("cpu"))


@pytest.fixture(scope="module")
def spec() -> EvaluationSpec:
    return evaluation_spec({"segmentation": {"epochs": 20, "batch_size": 8, "learning_rate": 0.05}})


def test_classes_that_can_be_told_by_a_line_are(spec: EvaluationSpec) -> None:
    outcome = segmentation(subject("image"), spec)["segmentation mIoU"]
    assert outcome.score == pytest.approx(100.0)
    assert outcome.contributions.shape == (1, 40)


def test_a_map_that_tells_nothing_scores_chance(spec: EvaluationSpec) -> None:
    # Three classes alike in number: guessing gives an IoU of 1/3 / (1/3 + 2/3 * 1) = 20% each, one class for all 11%.
    assert 10 < segmentation(subject("noise"), spec)["segmentation mIoU"].score < 22


def test_it_is_about_sklearns_logistic_regression_of_positions(spec: EvaluationSpec) -> None:
    noisy = subject("image", overlap=110.0)

    def positions(images: MaskedImages) -> tuple[np.ndarray, np.ndarray]:
        x = noisy.views.prepare(images.images).permute(0, 2, 3, 1).reshape(-1, 3).numpy()
        return x, images.masks.flatten().numpy()

    train_x, train_y = positions(noisy.dataset.train)
    test_x, test_y = positions(noisy.dataset.test)
    scaler = StandardScaler().fit(train_x)
    classifier = LogisticRegression(C=1e4).fit(scaler.transform(train_x[train_y >= 0]), train_y[train_y >= 0])
    predicted = classifier.predict(scaler.transform(test_x))[test_y >= 0]
    truth = test_y[test_y >= 0]
    iou = [
        ((predicted == label) & (truth == label)).sum() / ((predicted == label) | (truth == label)).sum()
        for label in range(CLASSES)
    ]
    assert 40 < 100 * np.mean(iou) < 80
    assert segmentation(noisy, spec)["segmentation mIoU"].score == pytest.approx(100 * np.mean(iou), abs=1.5)


def test_maps_that_are_not_finite_are_refused(spec: EvaluationSpec) -> None:
    with pytest.raises(BaseModelError, match=r"broken.*not finite"):
        segmentation(subject("broken"), spec)
