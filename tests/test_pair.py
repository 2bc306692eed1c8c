"""`HSSLPair`: what meets what, what heads it takes, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

import headsearch
from headsearch.errors import HeadError
from headsearch.testing.pretraining import small_export

SHAPE = (16, 4, 4)
Features = list[tuple[Tensor, Tensor]]


def linear(width: int) -> nn.Module:
    return nn.Linear(width, 8)


def make_features(views: int = 2, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(6, *SHAPE, generator=generator, requires_grad=True),
            torch.randn(6, 16, generator=generator, requires_grad=True),
        )
        for _ in range(views)
    ]


def make_pair(head: Any = "convnext", **options: Any) -> headsearch.HSSLPair:
    torch.manual_seed(0)
    head = {"convnext": {"depth": 1, "kernel_size": 3}} if head == "convnext" else head
    return headsearch.HSSLPair(head, **{"projector": linear, "map_shape": SHAPE, **options})


def test_base_and_head_meet_the_teachers_head_in_the_other_global_views() -> None:
    pair = make_pair()
    seen, slow = make_features(3), make_features(2, seed=1)
    terms = pair(seen, slow).terms(F.mse_loss)
    head, slow_head = pair.student.heads[0], pair.teacher.heads[0]
    targets = [pair.teacher.projectors[0](slow_head.embed(slow_head(x))).detach() for x, _ in slow]
    b = [pair.student.base_branches[0](embedding) for _, embedding in seen]
    a = [pair.student.head_branches[0](head.embed(head(x))) for x, _ in seen]
    met = [(0, 1), (1, 0), (2, 0), (2, 1)]
    for term, outputs in ((terms.base, b), (terms.head, a)):
        torch.testing.assert_close(
            term, torch.stack([F.mse_loss(outputs[u], targets[v]) for u, v in met]).mean()
        )
    assert terms.head is not None
    torch.testing.assert_close(terms.loss, (terms.base + terms.head) / 2)


def test_the_gradient_reaches_the_map_through_the_head_and_never_the_teacher() -> None:
    pair, seen, slow = make_pair(), make_features(), make_features(seed=1)
    terms = pair(seen, slow).terms(F.mse_loss)
    assert terms.head is not None
    terms.head.backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x, _ in seen)
    assert all(x.grad is None for features in slow for x in features)
    assert all(weight.grad is None for weight in pair.teacher.parameters())


def test_without_a_head_the_base_meets_the_teachers_base() -> None:
    pair, seen, slow = make_pair(None), make_features(), make_features(seed=1)
    projections = pair(seen, slow)
    assert projections.head is None
    targets = [pair.teacher.projectors[0](embedding) for _, embedding in slow]
    torch.testing.assert_close(projections.target, targets)
    terms = projections.terms(F.mse_loss)
    assert terms.head is None
    assert terms.loss is terms.base


def test_stacked_rows_give_a_criterion_of_all_views_the_same_loss() -> None:
    pair, seen, slow = make_pair(), make_features(3), make_features(2, seed=1)
    projections = pair(seen, slow)
    student, teacher = projections.stacked()
    criterion = DINOLoss(8)

    def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
        return -(F.softmax(target / 0.04, dim=-1) * F.log_softmax(logits / 0.1, dim=-1)).sum(dim=-1).mean()

    torch.testing.assert_close(criterion(teacher, student), projections.terms(cross_entropy).loss)
    torch.testing.assert_close(criterion.center[0], 0.1 * torch.cat(projections.target).mean(dim=0)[None])


def test_the_teacher_follows_all_that_is_in_the_pair_and_the_student_stays_itself() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 16, 4), nn.BatchNorm2d(16))
    names = set(backbone.state_dict())
    pair = make_pair(student=backbone)
    assert set(backbone.state_dict()) == names
    before = [weight.clone() for weight in pair.teacher.parameters()]
    with torch.no_grad():
        for weight in pair.student.parameters():
            weight.add_(1.0)
        backbone[1].running_mean.fill_(5.0)
    pair.update_teacher(0.9)
    for was, weight in zip(before, pair.teacher.parameters(), strict=True):
        torch.testing.assert_close(weight, was + 0.1)
    assert pair.teacher.base is not None
    assert float(pair.teacher.base[1].running_mean[0]) == 5.0


def test_a_teacher_of_ones_own_is_moved_in_its_place() -> None:
    student, teacher = nn.Linear(3, 3), nn.Linear(3, 3)
    before = teacher.weight.clone()
    pair = make_pair(student=student, teacher=teacher)
    pair.update_teacher(0.5)
    torch.testing.assert_close(teacher.weight, (before + student.weight) / 2)
    with pytest.raises(ValueError, match="a teacher follows a student"):
        make_pair(teacher=teacher)


def test_a_head_comes_from_a_file_a_description_or_a_module(tmp_path: Path) -> None:
    file = tmp_path / "head.yaml"
    file.write_text(small_export().to_yaml())
    assert make_pair(file).student.heads[0].config.family == "convnext"
    assert make_pair(str(file)).student.heads[0].config.family == "convnext"
    assert make_pair(headsearch.load_head(file)).student.heads[0].config.family == "convnext"
    convolution = nn.Conv2d(16, 16, 3, padding=1)
    pair = make_pair(convolution)
    x, embedding = make_features(1)[0]
    (a,) = pair([(x, embedding)], [(x, embedding)]).head or []
    seen = F.layer_norm(convolution(x).mean(dim=(2, 3)), (16,))
    torch.testing.assert_close(a, pair.student.head_branches[0](seen))


def test_a_preset_is_named_as_on_the_command_line() -> None:
    named, written = (
        headsearch.HSSLPair(head, lambda width: nn.Linear(width, 8), map_shape=(16, 4, 4))
        .student.heads[0]
        .config
        for head in ("paper", {"convnext": {"first_shortcut": False}})
    )
    assert named == written


def test_base_and_head_can_share_a_part_of_their_projectors() -> None:
    pair = make_pair(projector=lambda width: DINOProjectionHead(width, 8, 4, 32), shared="last_layer")
    of_base, of_head = pair.student.projectors()
    assert of_base.last_layer is of_head.last_layer
    assert of_base.layers is not of_head.layers
    torch.testing.assert_close(pair.teacher.projectors[0].last_layer.weight_v, of_head.last_layer.weight_v)
    assert pair.teacher.projectors[0].last_layer is not of_head.last_layer
    names = [name for name, _ in pair.student.named_parameters() if "last_layer.weight_v" in name]
    assert len(names) == 1, "an optimiser sees it once"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"convnxt": {}}, "unknown family of heads 'convnxt'; did you mean 'convnext'"),
        (
            {"set": [{"vit": {"depth": 1}}, {"mixer": {"depth": 1}}]},
            "a set of 2 heads; expected a single one",
        ),
        ("nowhere.yaml", "nowhere.yaml"),
        ({"vit": {"num_heads": 3}}, "expected a divisor of the width 16"),
    ],
)
def test_a_head_that_cannot_be_is_told_in_one_line(head: Any, message: str) -> None:
    with pytest.raises(HeadError, match=message) as error:
        make_pair(head)
    assert "\n" not in str(error.value)


def test_a_head_of_another_width_or_shape_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "head.yaml"
    file.write_text(small_export().to_yaml())
    for head in (file, headsearch.load_head(file)):
        with pytest.raises(HeadError, match="the head has width 16: the map has 32 channels"):
            make_pair(head, map_shape=(32, 4, 4))
    shrinks = make_pair(nn.Conv2d(16, 16, 3))
    with pytest.raises(
        HeadError, match=r"Conv2d is no head: from a map of shape \(6, 16, 4, 4\) it makes \(6, 16, 2, 2\)"
    ):
        shrinks(make_features(1), make_features(1))


def test_a_projector_that_is_not_new_is_refused() -> None:
    one = nn.Linear(16, 8)
    with pytest.raises(ValueError, match="student and teacher have weights in common"):
        make_pair(projector=lambda _: one)
