"""HSSL in lightly's DINO loop: its projection head, its loss with the centre, and one layer of prototypes for base and head.

Run:  python examples/loops/lightly_dino.py
"""

import torch
from digits import digit_views, small_vit
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from plain_torch import features
from torch import nn

import headsearch

STEPS_PER_EPOCH = 10


def train(steps: int) -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    backbone = small_vit()
    pair = headsearch.HSSLPair(
        {"convnext": {"depth": 2, "first_shortcut": False}},
        lambda width: DINOProjectionHead(width, 128, 32, 256, freeze_last_layer=1),
        map_shape=(32, 4, 4),
        shared="last_layer",
        student=backbone,
    )
    criterion = DINOLoss(output_dim=256, teacher_temp=0.04)
    optimizer = torch.optim.AdamW(pair.student.parameters(), lr=1e-3)
    losses = []
    for step, views in enumerate(digit_views(steps)):
        with torch.no_grad():
            slow = [features(pair.teacher.base, view) for view in views]
        projections = pair([features(backbone, view) for view in views], slow)
        # One call for base and head, so that the centre moves once a step.
        student, teacher = projections.stacked()
        loss = criterion(teacher, student)
        optimizer.zero_grad()
        loss.backward()
        for projector in pair.student.projectors():
            projector.cancel_last_layer_gradients(current_epoch=step // STEPS_PER_EPOCH)
        optimizer.step()
        pair.update_teacher(momentum=0.99)
        losses.append(loss.item())
    return backbone, losses


if __name__ == "__main__":
    backbone, losses = train(steps=100)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    torch.save(backbone.state_dict(), "backbone.pt")
