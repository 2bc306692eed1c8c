"""The pairing with hidden positions: what meets what, put together by hand from the parts; and many heads at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
from torch import Tensor
from torch.nn import functional as F

from headsearch.base.model import load_base
from headsearch.heads.build import build_head
from headsearch.heads.registry import parse_head
from headsearch.methods import build_method
from headsearch.methods.hiding import HidingHSSL

CONVNEXT = {"convnext": {"depth": 1, "first_shortcut": False}}
VIT = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}


def make_pair(
    method: str, *heads: Any, model: str = "vit_tiny_patch16_224", kwargs: Any = VIT, **options: Any
) -> HidingHSSL:
    torch.manual_seed(0)
    base = load_base(model, image_size=16, kwargs=kwargs)
    built = [build_head(parse_head(head), base.info) for head in heads]
    pair = HidingHSSL(base, built, build_method(method, width=base.info.width, **options))
    # A teacher unlike its student, so that no mix-up of the two goes unseen.
    with torch.no_grad():
        for parameter in pair.teacher.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return pair.train()


def make_views(count: int = 2, images: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(images, 3, 16, 16, generator=generator) for _ in range(count)]


def make_masks(pair: HidingHSSL) -> Tensor:
    masks = pair.masks(8, torch.Generator().manual_seed(2))
    assert masks is not None
    return masks


def log_balanced(logits: Tensor) -> Tensor:
    """Three iterations of Sinkhorn-Knopp, in logarithms."""
    for _ in range(3):
        logits = (logits - logits.logsumexp(dim=0)).log_softmax(dim=1)
    return logits


@pytest.mark.parametrize("method", ["ibot", "dinov2"])
@pytest.mark.parametrize("heads", [(), (CONVNEXT,)], ids=["none", "one"])
def test_base_against_base_at_hidden_patches_is_added_to_the_pairing(
    heads: tuple[Any, ...], method: str
) -> None:
    pair, views = make_pair(method, *heads), make_views()
    masks = make_masks(pair)
    student, teacher = pair.student, pair.teacher
    outputs: list[list[Tensor]] = []
    kept_apart = torch.zeros(())
    targets, student_patches, teacher_patches = [], [], []
    for view, mask in zip(views, masks, strict=True):
        assert student.patch_projector is not None
        assert teacher.patch_projector is not None
        seen, whole = student.masking(student.base, view, mask), teacher.base(view)
        of_view = [student.base_branches[0].projector(seen.embedding)]
        kept_apart += 0.1 * KoLeoLoss()(seen.embedding) if method == "dinov2" else 0.0
        embedding = whole.embedding
        if heads:
            head, slow = student.heads[0], teacher.heads[0]
            of_view.append(student.head_branches[0].projector(head.embed(head(seen.map))))
            embedding = slow.embed(slow(whole.map))
        outputs.append(of_view)
        targets.append(teacher.projectors[0](embedding).detach())
        student_patches.append(student.patch_projector(seen.map.permute(0, 2, 3, 1)[mask]))
        teacher_patches.append(teacher.patch_projector(whole.map.permute(0, 2, 3, 1)[mask]).detach())
    width = pair.methods[0].output_dim
    of_patches = torch.cat(teacher_patches)
    if method == "dinov2":
        # As logarithms, which the softmax in lightly's losses turns back.
        targets = list((0.04 * log_balanced(torch.cat(targets) / 0.04)).chunk(2))
        of_patches = 0.04 * log_balanced(of_patches / 0.04)
    image = [
        DINOLoss(width, teacher_temp=0.04)(targets, [first, second])
        for first, second in zip(*outputs, strict=True)
    ]
    patch = IBOTPatchLoss(width, teacher_temp=0.04)(
        of_patches, torch.cat(student_patches), masks.flatten(0, 1)
    )
    expected = torch.stack(image).mean() + patch + kept_apart
    torch.testing.assert_close(pair.loss(views, masks=masks), expected)


@pytest.mark.parametrize("heads", [(), (CONVNEXT,)], ids=["none", "one"])
@pytest.mark.parametrize(
    ("model", "kwargs"),
    [
        ("vit_tiny_patch16_224", VIT),
        (
            "convnext_atto",
            {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16], "patch_size": 2, "output_stride": 8},
        ),
    ],
)
def test_simmim_has_both_students_predict_pixels_and_what_the_teachers_head_sees(
    heads: tuple[Any, ...], model: str, kwargs: Any
) -> None:
    pair, views = make_pair("simmim", *heads, model=model, kwargs=kwargs), make_views()
    masks = make_masks(pair)
    student, teacher = pair.student, pair.teacher
    side = 16 // pair.student.base.info.grid[0]
    images, mask = torch.cat(views), masks.flatten(0, 1)
    seen, target = student.masking(student.base, images, mask).map, teacher.base(images).map
    maps = [(seen, student.base_branches[0])]
    if heads:
        maps.append((student.heads[0](seen), student.head_branches[0]))
        target = teacher.heads[0](target)

    def at_hidden(feature_map: Tensor) -> Tensor:
        return F.layer_norm(feature_map.permute(0, 2, 3, 1)[mask], [feature_map.shape[1]])

    pixels = F.unfold(images, side, stride=side).transpose(1, 2)[mask.flatten(1)]
    losses = []
    for feature_map, branch in maps:
        predicted = branch.predictor(at_hidden(feature_map))
        losses.append(
            F.l1_loss(predicted[:, : 3 * side**2], pixels)
            + F.smooth_l1_loss(predicted[:, 3 * side**2 :], at_hidden(target).detach())
        )
    torch.testing.assert_close(pair.loss(views, masks=masks), torch.stack(losses).mean())


@pytest.mark.parametrize("heads", [(), (CONVNEXT,)], ids=["none", "one"])
@pytest.mark.parametrize("method", ["mae", "ijepa"])
def test_both_students_decode_what_the_teachers_head_sees_from_what_is_left(
    method: str, heads: tuple[Any, ...]
) -> None:
    pair, views = make_pair(method, *heads), make_views()
    masks = make_masks(pair)
    student, teacher = pair.student, pair.teacher
    losses = []
    for view, mask in zip(views, masks, strict=True):
        seen, target = student.masking(student.base, view, mask != 0).map, teacher.base(view).map
        maps = [(seen, student.base_branches[0])]
        if heads:
            maps.append((student.heads[0](seen), student.head_branches[0]))
            target = teacher.heads[0](target)
        # A position in two target blocks counts twice.
        weight = mask.flatten(1).clamp_min(0).float()
        features = F.layer_norm(target.flatten(2).mT, [16]).detach()
        pixels = F.unfold(view, 4, stride=4).transpose(1, 2)
        spread = pixels.var(dim=2, keepdim=True) + 1e-6
        pixels = (pixels - pixels.mean(dim=2, keepdim=True)) / spread.sqrt()
        for feature_map, branch in maps:
            decoder = branch.predictor
            assert decoder is not None
            inside = decoder.transformer
            tokens = decoder.embed(F.layer_norm(feature_map.flatten(2).mT, [16])) + inside.pos_embed
            predicted = decoder.predict(inside.norm(inside.blocks(tokens)))
            error = F.smooth_l1_loss(predicted[:, :, -16:], features, reduction="none").mean(dim=2)
            if method == "mae":
                error = error + (predicted[:, :, :-16] - pixels).square().mean(dim=2)
            losses.append((weight * error).sum() / weight.sum())
    torch.testing.assert_close(pair.loss(views, masks=masks), torch.stack(losses).mean())


def test_simmim_without_a_head_or_features_is_the_published_one() -> None:
    pair, views = make_pair("simmim", feature_weight=0.0), make_views()
    masks = make_masks(pair)
    reconstructed = []
    for view, mask in zip(views, masks, strict=True):
        feature_map = pair.student.masking(pair.student.base, view, mask).map
        branch = pair.student.base_branches[0]
        predicted = branch(feature_map.permute(0, 2, 3, 1))[..., :48].permute(0, 3, 1, 2)
        image = F.pixel_shuffle(predicted, 4)
        hidden = torch.kron(mask, torch.ones(1, 4, 4, dtype=torch.bool))[:, None].float()
        # As in the authors' code: the mean over the hidden pixels of three channels.
        reconstructed.append(((image - view).abs() * hidden).sum() / hidden.sum() / 3)
    torch.testing.assert_close(pair.loss(views, masks=masks), torch.stack(reconstructed).mean())


@pytest.mark.parametrize("method", ["ibot", "dinov2", "simmim", "mae", "ijepa"])
def test_the_loss_of_many_heads_is_the_mean_of_their_own(method: str) -> None:
    heads = (CONVNEXT, {"mixer": {"depth": 1}}, {"vit": {"depth": 1}})
    pair, views = make_pair(method, *heads).eval(), make_views()
    masks = make_masks(pair)

    def loss(active: list[int] | None) -> Tensor:
        for each in pair.methods:
            for name, buffer in each.named_buffers():
                if "center" in name:
                    buffer.zero_()
        return pair.loss(views, active=active, masks=masks)

    torch.testing.assert_close(loss(None), torch.stack([loss([index]) for index in range(3)]).mean())


@pytest.mark.parametrize("method", ["ibot", "dinov2", "simmim", "mae", "ijepa"])
def test_every_part_of_the_student_learns_and_the_teacher_follows(method: str) -> None:
    pair, views = make_pair(method, CONVNEXT), make_views()
    pair.loss(views, masks=make_masks(pair)).backward()
    without = [name for name, p in pair.student.named_parameters() if p.grad is None and p.requires_grad]
    # A base's own norm and pooling come after its map, which is all that simmim looks at.
    assert [name for name in without if "model.norm" not in name and "heads.0.norm" not in name] == []
    assert all(parameter.grad is None for parameter in pair.teacher.parameters())
    before = [parameter.clone() for parameter in pair.teacher.parameters()]
    pair.update_teacher(0.5)
    after = list(pair.teacher.parameters())
    moved = sum(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert moved == len(after), "everything that the teacher has"


@pytest.mark.parametrize("method", ["ibot", "dinov2", "simmim", "mae", "ijepa"])
def test_masks_follow_from_the_global_random_state_where_none_are_given(method: str) -> None:
    pair, views = make_pair(method, CONVNEXT).eval(), make_views()
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        for each in pair.methods:
            for buffer in each.buffers():
                buffer.zero_()
        losses.append(pair.loss(views).item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("method", ["ibot", "dinov2", "simmim", "mae", "ijepa"])
def test_a_few_steps_lower_the_loss(method: str) -> None:
    pair, views = make_pair(method, CONVNEXT), make_views(images=16)
    masks = pair.masks(16, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(pair.student.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = pair.loss(views, masks=masks)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pair.update_teacher(0.99)
    assert losses[-1] < 0.95 * losses[0]
