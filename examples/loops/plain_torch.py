"""HSSL in a loop of plain torch: a ViT learns by BYOL, together with a head of ConvNeXt blocks.

The lines that the head adds to a BYOL loop are those with `pair` in them. Run:  python examples/loops/plain_torch.py
"""

import torch
from digits import digit_views, small_vit
from torch import Tensor, nn
from torch.nn import functional as F

import headsearch


def projector(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 64)
    )


def features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The last feature map, which the head sees, and the embedding."""
    final, (feature_map,) = model.forward_intermediates(images, indices=1, norm=False, output_fmt="NCHW")
    return feature_map, model.forward_head(final, pre_logits=True)


def byol(student: Tensor, target: Tensor) -> Tensor:
    return 2 - 2 * F.cosine_similarity(student, target).mean()


def train(steps: int) -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    backbone = small_vit()
    pair = headsearch.HSSLPair(
        {"convnext": {"depth": 2, "first_shortcut": False}},
        projector,
        predictor=lambda: projector(64),
        map_shape=(32, 4, 4),
        student=backbone,
    )
    optimizer = torch.optim.AdamW(pair.student.parameters(), lr=1e-3)
    losses = []
    for views in digit_views(steps):
        # All views in one batch: in a base with batch norms it matters.
        maps, embeddings = features(backbone, torch.cat(views))
        with torch.no_grad():
            slow_maps, slow_embeddings = features(pair.teacher.base, torch.cat(views))
        projections = pair(
            list(zip(maps.chunk(2), embeddings.chunk(2), strict=True)),
            list(zip(slow_maps.chunk(2), slow_embeddings.chunk(2), strict=True)),
        )
        loss = projections.terms(byol).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pair.update_teacher(momentum=0.99)
        losses.append(loss.item())
    return backbone, losses


if __name__ == "__main__":
    backbone, losses = train(steps=100)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    torch.save(backbone.state_dict(), "backbone.pt")  # the ViT alone: the head has left no trace in it
