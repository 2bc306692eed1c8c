"""Random crops, flips and blurs as matrices: an image's view is `rows @ image @ columns.T`, exact and antialiased.

Crop, flip, resize and Gaussian blur are linear and act on rows and columns separately. So each is a small matrix per image
and axis, their product is one matrix, and two batched products make the whole batch's views at once.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

_ATTEMPTS = 10


def crop_boxes(
    count: int, scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator | None
) -> Tensor:
    """Random crops of the unit square, as left, top, width, height [count, 4].

    Drawn as in "Going deeper with convolutions" (and torchvision): the area evenly from `scale`, the aspect ratio from `ratio`
    evenly in its logarithm, again up to ten times until the crop fits; then the whole image.
    """
    device = None if generator is None else generator.device
    draws = torch.rand(count, _ATTEMPTS, 2, generator=generator, device=device)
    position = torch.rand(count, 2, generator=generator, device=device)
    area = scale[0] + (scale[1] - scale[0]) * draws[..., 0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    root_ratio = torch.exp((low + (high - low) * draws[..., 1]) / 2)
    sides = torch.stack([area.sqrt() * root_ratio, area.sqrt() / root_ratio], dim=-1)
    fits = (sides <= 1).all(dim=-1)
    first = fits.to(torch.uint8).argmax(dim=1)
    chosen = sides[torch.arange(count, device=device), first]
    chosen = torch.where(fits.any(dim=1, keepdim=True), chosen, torch.ones_like(chosen))
    return torch.cat([position * (1 - chosen), chosen], dim=1)


def resize_matrices(start: Tensor, length: Tensor, flip: Tensor, size_in: int, size_out: int) -> Tensor:
    """Matrices that cut a stretch out of a line of pixels and resize it, with Pillow's antialiased bilinear filter.

    Args:
        start: where the stretch begins, in pixels [B].
        length: how long it is, in pixels [B].
        flip: whether the result runs backwards [B].
        size_in: pixels of the line.
        size_out: pixels of the result.

    Returns:
        [B, size_out, size_in]; every row sums to 1.
    """
    step = length / size_out
    out = torch.arange(size_out, device=start.device, dtype=start.dtype) + 0.5
    center = start[:, None] + torch.where(flip[:, None], size_out - out, out) * step[:, None]
    pixel = torch.arange(size_in, device=start.device, dtype=start.dtype) + 0.5
    weight = center[:, :, None] - pixel
    # In place: this is memory traffic, and the largest tensor of a batch of small images.
    weight.abs_().mul_(-1 / step.clamp_min(1)[:, None, None]).add_(1).clamp_min_(0)
    return weight.div_(weight.sum(dim=2, keepdim=True))


def blur_kernel_size(size: int) -> int:
    """A tenth of the image's side, odd: 23 for 224 pixels, 3 for 32, and 1, which is no blur, below 30."""
    return 2 * (size // 20) + 1


def blur_matrices(sigma: Tensor, size: int) -> Tensor:
    """Gaussian blurs of a line of `size` pixels, reflected at its ends, kernel as in `blur_kernel_size`.

    `sigma` [B] in pixels; returns [B, size, size].
    """
    radius = blur_kernel_size(size) // 2
    distance = torch.arange(radius + 1, device=sigma.device, dtype=sigma.dtype)
    kernel = torch.exp(-0.5 * (distance / sigma[:, None]).square())
    kernel = kernel / (kernel[:, :1] + 2 * kernel[:, 1:].sum(dim=1, keepdim=True))
    shifts = _shifts(size, radius).to(sigma.device)
    return (kernel @ shifts.flatten(1)).view(-1, size, size)


@functools.lru_cache(maxsize=8)
def _shifts(size: int, radius: int) -> Tensor:
    """For every distance, the matrix that adds up the pixels so far away on both sides [radius + 1, size, size]."""
    shifts = torch.zeros(radius + 1, size, size)
    row = torch.arange(size)
    for offset in range(-radius, radius + 1):
        column = (row + offset).abs()
        column = torch.where(column >= size, 2 * (size - 1) - column, column)
        shifts[abs(offset), row, column] += 1
    return shifts
