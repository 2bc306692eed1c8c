"""The images of the loops beside this file: scikit-learn's digits, two noisy and shifted views of each."""

from collections.abc import Iterator

import torch
from sklearn.datasets import load_digits
from torch import Tensor
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
