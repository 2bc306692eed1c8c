"""The loss of hidden pixels and features against a hand-written numpy version."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headsearch.base.model import check_base
from headsearch.errors import ExperimentError
from headsearch.methods import build_method, check_method
from headsearch.methods.method import Method

INFO = check_base(
    "vit_tiny_patch16_224",
    image_size=16,
    kwargs={"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2},
)
PIXELS = 3 * 4 * 4


def make(**options: object) -> Method:
    method = build_method("simmim", width=16, **options)
    method.prepare(INFO)
    return method


def smooth_l1(difference: NDArray[np.float64]) -> float:
    size = np.abs(difference)
    return float(np.where(size < 1, 0.5 * size**2, size - 0.5).mean())


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.5, 2.0]), st.booleans())
def test_the_loss_is_that_of_pixels_plus_that_of_features(seed: int, weight: float, normalise: bool) -> None:
    random = np.random.default_rng(seed)
    student, target = random.normal(size=(2, 7, PIXELS + 16))
    pixels = target[:, :PIXELS]
    if normalise:
        pixels = (pixels - pixels.mean(axis=1, keepdims=True)) / np.sqrt(
            pixels.var(axis=1, ddof=1, keepdims=True) + 1e-6
        )
    expected = np.abs(student[:, :PIXELS] - pixels).mean()
    expected += weight * smooth_l1(student[:, PIXELS:] - target[:, PIXELS:])
    method = make(feature_weight=weight, normalise_patches=normalise)
    loss = method.loss(torch.from_numpy(student), torch.from_numpy(target))
    assert float(loss) == pytest.approx(expected, rel=1e-9)


def test_the_projector_has_nothing_to_learn_and_the_predictor_is_one_layer() -> None:
    method = make()
    projector, predictor = method.projector(16), method.predictor()
    assert predictor is not None
    assert list(projector.parameters()) == []
    projected = projector(torch.randn(5, 16) * 3 + 2)
    torch.testing.assert_close(projected.mean(dim=1), torch.zeros(5), atol=1e-5, rtol=0)
    assert predictor(projected).shape == (5, PIXELS + 16)
    assert sum(parameter.numel() for parameter in predictor.parameters()) == 17 * (PIXELS + 16)


def test_six_tenths_are_hidden() -> None:
    assert make().masks(10, (14, 14), None).sum(dim=(1, 2)).tolist() == [round(0.6 * 196)] * 10


def test_an_image_that_its_grid_does_not_divide_is_refused() -> None:
    with pytest.raises(ExperimentError, match="multiple of the base's grid, 4x4; got 18"):
        build_method("simmim", width=16).prepare(replace(INFO, image_size=18))


def test_there_are_no_sizes_to_choose() -> None:
    with pytest.raises(ExperimentError, match="simmim has no option 'hidden_dim'"):
        check_method("simmim", {"hidden_dim": 4})
