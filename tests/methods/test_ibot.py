"""iBOT's patch loss and centre against lightly's, and its masks and temperatures against the paper's."""

from __future__ import annotations

import pytest
import torch
from lightly.loss import IBOTPatchLoss

from headsearch.methods import build_method
from headsearch.methods.masking import block_masks


def test_two_steps_agree_with_lightlys_loss_and_centre() -> None:
    method = build_method("ibot", width=8, output_dim=16)
    lightly = IBOTPatchLoss(output_dim=16, teacher_temp=0.04, student_temp=0.1, center_momentum=0.9)
    method.begin_step(0, 10)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        # One image has nothing hidden.
        mask = block_masks(4, (4, 4), torch.tensor([0.5, 0.0, 0.2, 1.0]), generator)
        student, teacher = torch.randn(2, int(mask.sum()), 16, generator=generator)
        student.requires_grad_()
        mine, theirs = method.patch_loss(student, teacher, mask), lightly(teacher, student, mask)
        torch.testing.assert_close(mine, theirs)
        gradients = [torch.autograd.grad(loss, student)[0] for loss in (mine, theirs)]
        torch.testing.assert_close(*gradients)
        torch.testing.assert_close(method.patch_center.value, lightly.center.value)


def test_where_nothing_is_hidden_the_loss_is_0_and_the_centre_stays() -> None:
    method = build_method("ibot", width=8, output_dim=16)
    method.patch_center.center += 1
    empty = torch.zeros(0, 16, requires_grad=True)
    loss = method.patch_loss(empty, empty.detach(), torch.zeros(3, 4, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    torch.testing.assert_close(method.patch_center.value, torch.ones(1, 16))


def test_half_of_the_views_have_a_tenth_to_a_half_of_their_patches_hidden() -> None:
    hidden = (
        build_method("ibot", width=8).masks(2000, (14, 14), torch.Generator().manual_seed(0)).sum(dim=(1, 2))
    )
    some = hidden[hidden > 0]
    assert len(some) / 2000 == pytest.approx(0.5, abs=0.05)
    assert int(some.min()) >= round(0.1 * 196)
    assert int(some.max()) <= round(0.5 * 196)
    assert float(some.float().mean()) == pytest.approx(0.3 * 196, rel=0.05)


def test_the_temperature_of_patches_rises_as_that_of_images() -> None:
    method = build_method(
        "ibot", width=8, warmup_teacher_patch_temperature=0.02, teacher_patch_temperature=0.06
    )
    seen = []
    for epoch in (0, 1.5, 3, 10):
        method.begin_step(epoch, 10)
        seen.append(method.patch_temperature)
    assert seen == pytest.approx([0.02, 0.04, 0.06, 0.06])


def test_the_prototypes_of_patches_are_frozen_at_first_too() -> None:
    method = build_method("ibot", width=8)
    projector = method.patch_projector(8)
    projector(torch.randn(4, 8)).sum().backward()
    method.after_backward([projector], 0.5)
    assert projector[1].last_layer.weight_v.grad is None
    assert projector[1].layers[0].weight.grad is not None
