"""What is known about a base without holding it: enough to check constraints, size heads and name things. No torch here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BaseInfo:
    """Facts about a base at one image size, measured once by `headsearch.base.model.Base`."""

    model: str
    """timm's name, e.g. `vit_small_patch16_224`, or the factory's, e.g. `my_models.py:build`."""
    family: str
    """The head family nearest to the base's own kind, for the control `same`: `vit`, `swin`, `convnext`, `resnet`, …"""
    width: int
    """Channels of the feature map that heads work on."""
    grid: tuple[int, int]
    """Height and width of that map, in positions."""
    embedding_dim: int
    """Features of the base's embedding (after its own norm and pooling)."""
    depth: int
    """Number of blocks."""
    params: int
    """Learnable numbers, without a classifier."""
    flops: int
    """Floating-point operations of one forward pass of one image, a multiply-add counted as two (torch's convention)."""
    image_size: int
    """Side of the square input, in pixels."""
    stage: int = -1
    """Which of timm's feature maps that is: -1 the last, -2 the one before."""
    channels: int = 3
    """Of the images."""
