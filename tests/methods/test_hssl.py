"""The pairing of student and teacher: which output meets which target, where gradients go, how the teacher follows."""

from __future__ import annotations

import pytest
import torch
from lightly.loss import BarlowTwinsLoss, DINOLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss
from torch import Tensor, nn
from torch.nn import functional as F

from headsearch.base.model import Base, load_base
from headsearch.heads.build import build_head
from headsearch.heads.config import HeadConfig
from headsearch.heads.registry import parse_head
from headsearch.methods import build_method
from headsearch.methods.hssl import HSSL

CONVNEXT = {"convnext": {"depth": 1, "first_shortcut": False}}


def make_base(**kwargs: object) -> Base:
    options = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return load_base("vit_tiny_patch16_224", image_size=16, kwargs={**options, **kwargs})


def make_pair(method: str = "mocov3", head: object = CONVNEXT, base: Base | None = None) -> HSSL:
    torch.manual_seed(0)
    base = make_base() if base is None else base
    config = HeadConfig() if head is None else parse_head(head)
    built = [build_head(single, base.info) for single in config.heads]
    torch.manual_seed(1)
    pair = HSSL(base, built, build_method(method, width=16))
    # A teacher unlike its student, so that no mix-up of the two goes unseen.
    with torch.no_grad():
        for parameter in pair.teacher.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return pair.train()


def make_views(count: int = 2, images: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(images, 3, 16, 16, generator=generator) for _ in range(count)]


def projected(branch: nn.Module, embedding_BD: Tensor) -> Tensor:
    projection: Tensor = branch.projector(embedding_BD)
    return projection if branch.predictor is None else branch.predictor(projection)


def students_and_targets(pair: HSSL, views: list[Tensor]) -> tuple[list[list[Tensor]], list[Tensor]]:
    """b_u and a_u for every view, and A_v (B_v without a head), put together from the parts, the views in one pass."""
    student, teacher = pair.student, pair.teacher
    map_BCHW, embedding_BD = student.base(torch.cat(views))
    branches = [projected(student.base_branches[0], embedding_BD)]
    if student.heads:
        branches.append(
            projected(student.head_branches[0], student.heads[0].embed(student.heads[0](map_BCHW)))
        )
    map_BCHW, embedding_BD = teacher.base(torch.cat(views))
    if teacher.heads:
        embedding_BD = teacher.heads[0].embed(teacher.heads[0](map_BCHW))
    targets = teacher.projectors[0](embedding_BD).detach().chunk(len(views))
    return [list(pieces) for pieces in zip(*(b.chunk(len(views)) for b in branches), strict=True)], list(
        targets
    )


def info_nce(student_BD: Tensor, target_BD: Tensor, temperature: float = 0.2) -> Tensor:
    """MoCo v3's loss, one row at a time."""
    student, target = F.normalize(student_BD), F.normalize(target_BD)
    rows = []
    for i in range(len(student)):
        exponentials = [torch.exp(student[i] @ target[j] / temperature) for j in range(len(target))]
        rows.append(-torch.log(exponentials[i] / sum(exponentials)))
    return 2 * temperature * torch.stack(rows).mean()


# tests/test_masked_methods.py has those that hide parts of an image.
REFERENCES = {
    "mocov3": info_nce,
    "byol": lambda s, t: 2 + 2 * NegativeCosineSimilarity()(s, t),
    "simclr": NTXentLoss(temperature=0.5),
    "vicreg": VICRegLoss(),
    "barlow": BarlowTwinsLoss(),
    "dino": lambda s, t: -(F.softmax(t / 0.04, dim=1) * F.log_softmax(s / 0.1, dim=1)).sum(dim=1).mean(),
}


@pytest.mark.parametrize("method", REFERENCES)
def test_with_a_head_both_students_meet_the_teachers_head_in_the_other_view(method: str) -> None:
    pair, views = make_pair(method), make_views()
    (first, second), targets = students_and_targets(pair, views)
    loss = REFERENCES[method]
    expected = 0.5 * (
        0.5 * (loss(first[0], targets[1]) + loss(first[1], targets[1]))
        + 0.5 * (loss(second[0], targets[0]) + loss(second[1], targets[0]))
    )
    torch.testing.assert_close(pair.loss(views), expected)


@pytest.mark.parametrize("method", REFERENCES)
def test_without_a_head_the_base_meets_the_teachers_base_in_the_other_view(method: str) -> None:
    pair, views = make_pair(method, head=None), make_views()
    (first, second), targets = students_and_targets(pair, views)
    loss = REFERENCES[method]
    expected = 0.5 * (loss(first[0], targets[1]) + loss(second[0], targets[0]))
    torch.testing.assert_close(pair.loss(views), expected)


def test_plain_dino_is_lightlys_loss_over_the_two_views() -> None:
    pair, views = make_pair("dino", head=None), make_views()
    (first, second), targets = students_and_targets(pair, views)
    lightly = DINOLoss(pair.methods[0].output_dim, teacher_temp=0.04)
    torch.testing.assert_close(pair.loss(views), lightly(targets, [first[0], second[0]]))


def test_local_views_meet_every_global_target_and_are_none_themselves() -> None:
    pair, global_views = make_pair("byol"), make_views()
    crops = [view[:, :, :8, :8] for view in make_views(3)]
    pair.student.base = Resizing(pair.student.base)
    pair.eval()
    outputs = [pair.student.project(pair.student.base(view)) for view in [*global_views, *crops]]
    targets = [pair.teacher.project(pair.teacher.base(view))[0] for view in global_views]
    loss = REFERENCES["byol"]
    terms = [loss(output, targets[v]) for v in range(2) for u in range(5) if u != v for output in outputs[u]]
    assert len(terms) == 16
    torch.testing.assert_close(pair.loss([*global_views, *crops]), torch.stack(terms).mean())


class Resizing(nn.Module):
    """A base that takes any size, by resizing."""

    def __init__(self, base: Base) -> None:
        super().__init__()
        self.base = base
        self.info = base.info

    def forward(self, images_BCHW: Tensor) -> object:
        return self.base(F.interpolate(images_BCHW, size=16))


def test_the_order_of_the_views_does_not_matter() -> None:
    pair, views = make_pair("byol"), make_views()
    torch.testing.assert_close(pair.loss(views), pair.loss(views[::-1]))


def test_the_teacher_gets_no_gradient_and_every_part_of_the_student_does() -> None:
    pair = make_pair()
    pair.loss(make_views()).backward()
    assert all(parameter.grad is None for parameter in pair.teacher.parameters())
    assert not any(parameter.requires_grad for parameter in pair.teacher.parameters())
    parts = [pair.student.base, pair.student.heads, pair.student.base_branches, pair.student.head_branches]
    for part in parts:
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_the_heads_term_trains_the_base_through_the_head() -> None:
    pair, views = make_pair(), make_views()
    (first, _), targets = students_and_targets(pair, views)
    info_nce(first[1], targets[1]).backward()
    assert pair.student.base.model.patch_embed.proj.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in pair.student.base_branches.parameters())


def test_the_teacher_is_an_exponential_moving_average() -> None:
    pair = make_pair()
    followed = [
        (pair.teacher.base, pair.student.base),
        (pair.teacher.heads, pair.student.heads),
        (pair.teacher.projectors[0], pair.student.head_branches[0].projector),
    ]
    tensors = [both for t, s in followed for both in zip(t.parameters(), s.parameters(), strict=True)]
    assert len(tensors) == sum(1 for _ in pair.teacher.parameters())
    before = [teacher.clone() for teacher, _ in tensors]
    for _ in range(3):
        pair.update_teacher(0.9)
    for start, (teacher, student) in zip(before, tensors, strict=True):
        torch.testing.assert_close(teacher, 0.9**3 * start + (1 - 0.9**3) * student.detach())


def test_the_teacher_takes_over_the_students_buffers() -> None:
    pair = make_pair()
    pair.loss(make_views())
    pair.update_teacher(0.9)
    batch_norm = pair.student.head_branches[0].projector.layers[1]
    assert batch_norm.running_mean.abs().sum() > 0
    assert torch.equal(pair.teacher.projectors[0].layers[1].running_mean, batch_norm.running_mean)


def test_the_teacher_drops_no_paths_but_normalises_by_the_batch() -> None:
    pair, views = make_pair(base=make_base(drop_path_rate=0.9, proj_drop_rate=0.5)), make_views()
    torch.testing.assert_close(
        pair.teacher.project(pair.teacher.base(views[0])), pair.teacher.project(pair.teacher.base(views[0]))
    )
    projection = pair.teacher.project(pair.teacher.base(views[0]))[0]
    pair.eval()
    assert not torch.allclose(projection, pair.teacher.project(pair.teacher.base(views[0]))[0])


def test_the_base_and_its_branch_start_the_same_whatever_the_head() -> None:
    plain, with_head = (make_pair(head=head).student for head in (None, CONVNEXT))
    for part in ("base", "base_branches"):
        states = [getattr(student, part).state_dict() for student in (plain, with_head)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


HEADS = (CONVNEXT, {"mixer": {"depth": 1}}, {"vit": {"depth": 1}})


def make_joint(method: str = "byol") -> HSSL:
    torch.manual_seed(0)
    base = make_base()
    heads = [build_head(parse_head(head), base.info) for head in HEADS]
    torch.manual_seed(1)
    return HSSL(base, heads, build_method(method, width=16)).train()


@pytest.mark.parametrize("method", REFERENCES)
def test_the_loss_of_many_heads_is_the_mean_of_their_own_losses(method: str) -> None:
    pair, views = make_joint(method).eval(), make_views()
    alone = [pair.loss(views, active=[index]) for index in range(3)]
    # DINO's centres move with every pass over the targets.
    for each in pair.methods:
        if method == "dino":
            each.center.center.zero_()
    torch.testing.assert_close(pair.loss(views), torch.stack(alone).mean())


def test_every_head_has_a_branch_of_the_base_to_itself() -> None:
    pair = make_joint()
    pair.loss(make_views(), active=[1]).backward()
    for branches in (pair.student.base_branches, pair.student.head_branches, pair.student.heads):
        touched = [any(p.grad is not None for p in branch.parameters()) for branch in branches]
        assert touched == [False, True, False]


def test_the_teacher_follows_the_active_heads_alone() -> None:
    pair = make_joint()
    with torch.no_grad():
        for parameter in pair.student.parameters():
            parameter.add_(1.0)
    before = [[p.clone() for p in head.parameters()] for head in pair.teacher.heads]
    pair.update_teacher(0.9, active=[0, 2])
    moved = [
        any(not torch.equal(a, b) for a, b in zip(old, head.parameters(), strict=True))
        for old, head in zip(before, pair.teacher.heads, strict=True)
    ]
    assert moved == [True, False, True]


def test_dino_keeps_a_centre_for_every_head() -> None:
    pair = make_joint("dino")
    pair.loss(make_views(), active=[0])
    centres = [method.center.value for method in pair.methods]
    assert centres[0].abs().sum() > 0
    assert centres[1].abs().sum() == centres[2].abs().sum() == 0


def test_a_few_steps_lower_the_loss() -> None:
    pair, views = make_pair("mocov3"), make_views(images=16)
    optimizer = torch.optim.Adam(pair.student.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = pair.loss(views)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pair.update_teacher(0.9)
    assert losses[-1] < 0.8 * losses[0]
