"""What the loops beside this file have in common: scikit-learn's digits, two noisy and shifted views of each, and a small ViT."""

from collections.abc import Iterator

import timm
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F


def digit_views(steps: int, batch_size: int = 64, seed: int = 0) -> Iterator[list[Tensor]]:
    """Two views (B, 3, 16, 16) of a batch, `steps` times."""
    images = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    images = F.interpolate(images, size=16, mode="bilinear").expand(-1, 3, -1, -1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (batch_size,), generator=generator)]
        yield [view_of(batch, generator) for _ in range(2)]


def view_of(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images, moved by up to two pixels, with noise."""
    down, right = torch.randint(-2, 3, (2,), generator=generator).tolist()
    noise = torch.randn(images.shape, generator=generator)
    return images.roll((down, right), dims=(2, 3)) + 0.2 * noise


def small_vit() -> nn.Module:
    """For images of 16 x 16: a map of 4 x 4 positions, 32 channels."""
    vit: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=2
    )
    return vit
