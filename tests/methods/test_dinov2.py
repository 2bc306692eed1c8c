"""DINOv2's balanced assignments and its KoLeo, by hand and against lightly's; what meets what is in test_masked_methods.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightly.loss.swav_loss import sinkhorn

from headsearch.errors import ExperimentError
from headsearch.methods import build_method, check_method


@given(st.integers(0, 1000), st.integers(1, 5))
def test_the_views_of_a_batch_are_balanced_together(seed: int, iterations: int) -> None:
    views = 2 * torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    method = build_method("dinov2", width=8, output_dim=4, sinkhorn_iterations=iterations)
    method.begin_step(10, 10)
    targets = method.targets(list(views))
    torch.testing.assert_close(torch.cat(targets), sinkhorn(views.flatten(0, 1), iterations, 0.07))
    patches = method.assigned_patches(views[0])
    torch.testing.assert_close(patches, sinkhorn(views[0], iterations, 0.07))


def test_prototypes_get_equal_shares_where_a_softmax_would_give_all_to_one() -> None:
    # Four images near the first of two prototypes, one of them exactly between.
    similarity = torch.tensor([[0.9, 0.0], [0.9, 0.0], [0.9, 0.0], [0.0, 0.0]])
    method = build_method("dinov2", width=8, output_dim=2, sinkhorn_iterations=100)
    (target,) = method.targets([similarity])
    torch.testing.assert_close(target.sum(dim=0), torch.tensor([2.0, 2.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(4))


def test_koleo_of_a_case_by_hand() -> None:
    # Nearest neighbours on the circle: 1, 1, and the square root of 2 twice. Lengths do not count.
    angles = torch.tensor([0.0, 60.0, 180.0, 270.0]).deg2rad()
    points = torch.tensor([[1.0], [2.0], [3.0], [0.5]]) * torch.stack([angles.cos(), angles.sin()], dim=1)
    loss = build_method("dinov2", width=8, koleo_weight=0.5).embedding_loss(points)
    assert float(loss) == pytest.approx(-0.5 * 2 * np.log(np.sqrt(2)) / 4, abs=1e-6)


def test_prototypes_without_a_centre_keep_no_state() -> None:
    assert dict(build_method("dinov2", width=8).named_buffers()) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"teacher_temperature": 0.02},
            "method.kwargs.teacher_temperature: expected greater than or equal to 0.03, got 0.02",
        ),
        ({"center_momentum": 0.9}, "method.kwargs: dinov2 has no option 'center_momentum'"),
    ],
)
def test_mistakes_are_told_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        check_method("dinov2", options)
    assert str(error.value).startswith(message)
