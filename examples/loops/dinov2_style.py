"""HSSL in code like DINOv2's: student and teacher, their forward passes and the moving average are the loop's own.

The pair is told what both made of a view: patch tokens as a map, without the class token, and the class token as the embedding. It adds the head, and
projectors for base and head. Run:  python examples/loops/dinov2_style.py
"""

import copy
from dataclasses import replace

import torch
from digits import digit_views, small_vit
from lightly.models.modules import DINOProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

import headsearch


def forward_features(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Tokens by the names that DINOv2 has for them."""
    tokens, (patches,) = model.forward_intermediates(images, indices=1, norm=False, output_fmt="NLC")
    return {"x_norm_clstoken": tokens[:, 0], "x_prenorm_patchtokens": patches}


def features(out: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The patch tokens on their grid of 4 x 4, and the class token."""
    feature_map = out["x_prenorm_patchtokens"].transpose(1, 2).unflatten(2, (4, 4))
    return feature_map, out["x_norm_clstoken"]


def train(steps: int) -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    student = small_vit()
    pair = headsearch.HSSLPair(
        {"convnext": {"depth": 2, "first_shortcut": False}},
        lambda width: DINOProjectionHead(width, 128, 32, 256),
        map_shape=(32, 4, 4),
        shared="last_layer",
    )
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    center = torch.zeros(1, 256)
    optimizer = torch.optim.AdamW([*student.parameters(), *pair.student.parameters()], lr=1e-3)
    losses = []
    for views in digit_views(steps):
        with torch.no_grad():
            slow = [features(forward_features(teacher, view)) for view in views]
        fast = [features(forward_features(student, view)) for view in views]
        projections = pair(fast, slow)
        # The loop's own centring and sharpening of the targets, once for base and head.
        logits = torch.cat(projections.target)
        assignments = F.softmax((logits - center) / 0.04, dim=-1)
        projections = replace(projections, target=list(assignments.chunk(2)))
        center = 0.9 * center + 0.1 * logits.mean(dim=0, keepdim=True)
        loss = projections.terms(
            lambda logits, assignment: -(assignment * F.log_softmax(logits / 0.1, dim=-1)).sum(dim=-1).mean()
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pair.update_teacher(momentum=0.99)
        with torch.no_grad():
            for slow_weight, weight in zip(teacher.parameters(), student.parameters(), strict=True):
                slow_weight.mul_(0.99).add_(weight, alpha=0.01)
        losses.append(loss.item())
    return student, losses


if __name__ == "__main__":
    backbone, losses = train(steps=100)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    torch.save(backbone.state_dict(), "backbone.pt")
