"""Colour changes as matrices: brightness, contrast, saturation, hue and grayscale are affine in (red, green, blue).

Each is a 3x3 matrix and an offset per image; a whole chain of them is one matrix and one offset. Values are on a scale of 0
to 1. Clipping to that range happens once, after the chain, where torchvision clips after each step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey, as torchvision has them."""

_TO_YIQ = ((0.2989, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def saturation_matrices(factor: Tensor) -> Tensor:
    """Mix with grey: 0 is grey, 1 unchanged. `factor` [B]; returns [B, 3, 3]."""
    luma = torch.tensor(LUMA, dtype=factor.dtype, device=factor.device)
    grey = luma.expand(3, 3)
    identity = torch.eye(3, dtype=factor.dtype, device=factor.device)
    return factor[:, None, None] * identity + (1 - factor)[:, None, None] * grey


def hue_matrices(turns: Tensor) -> Tensor:
    """Turn colours about the grey axis by `turns` [B] of a full circle; returns [B, 3, 3].

    A rotation in YIQ: grey stays, brightness stays. torchvision turns in HSV instead, where brightness changes with hue and which
    is not linear; on two photographs a tenth of a turn differed by 0.03 to 0.08 (mean absolute difference).
    """
    to_yiq = torch.tensor(_TO_YIQ, dtype=torch.float64)
    # Grey has no chroma: the rows for I and Q must sum to 0 exactly, and the tabled values do to 4 digits only.
    to_yiq[1:] -= to_yiq[1:].mean(dim=1, keepdim=True)
    to_yiq[0] /= to_yiq[0].sum()
    angle = 2 * math.pi * turns
    cosine, sine = torch.cos(angle), torch.sin(angle)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, zero, zero, zero, cosine, sine, zero, -sine, cosine], dim=1).view(-1, 3, 3)
    basis = to_yiq.to(turns)
    inverse = torch.linalg.inv(to_yiq).to(turns)
    matrices: Tensor = inverse @ turn @ basis
    return matrices


def colour_transforms(factors_B4: Tensor, mean_B3: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness, then contrast about the image's mean grey, then saturation, then hue, as one matrix and offset.

    Args:
        factors_B4: brightness, contrast and saturation as factors, where 1 changes nothing and a saturation of 0 is grayscale,
            and hue in turns, where 0 changes nothing.
        mean_B3: mean red, green and blue of each image before any change.

    Returns:
        Matrices [B, 3, 3] and offsets [B, 3], to be used as matrix @ (red, green, blue) + offset.
    """
    brightness, contrast, saturation, hue = factors_B4.unbind(dim=1)
    luma = torch.tensor(LUMA, dtype=mean_B3.dtype, device=mean_B3.device)
    mean_grey = (mean_B3 @ luma) * brightness
    colour = hue_matrices(hue) @ saturation_matrices(saturation)
    matrix = colour * (brightness * contrast)[:, None, None]
    # The mean grey is added to all three channels alike.
    offset = colour.sum(dim=2) * ((1 - contrast) * mean_grey)[:, None]
    return matrix, offset
