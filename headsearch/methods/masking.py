"""Hiding parts of an image from a base, for the methods that learn by predicting what is hidden.

A mask is drawn on the grid of the base's last feature map, so that every hidden position is one position of what base and head make of the
image; any timm model has such a grid. How it is hidden depends on the base:

- where patches are embedded one by one (ViT, Swin: a patch embedding without overlap), the embeddings of the hidden ones become a
  learned vector, as in BEiT, iBOT and SimMIM;
- elsewhere (convolutional networks, overlapping stems), the pixels of the hidden squares become a learned colour.

Shapes: B images, H × W positions of the last map, h × w patches or pixels, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.format import Format
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn
from torch.nn import functional as F

from headsearch.base.model import Base, BaseOutput


class Masking(nn.Module):
    """The learned stand-in for what is hidden, and the hiding."""

    def __init__(self, base: Base) -> None:
        super().__init__()
        self._embeds_patches = embeds_patches_one_by_one(base.model)
        model: Any = base.model
        channels: int = model.patch_embed.proj.out_channels if self._embeds_patches else base.info.channels
        self.token = nn.Parameter(torch.zeros(channels))
        if self._embeds_patches:
            nn.init.trunc_normal_(self.token, std=0.02)
        self._mask_BHW: Tensor | None = None

    def attach(self, base: Base) -> None:
        """Have `base` hide embeddings whenever it is called through this object. Its parameters, state and other calls do not change."""
        if self._embeds_patches:
            base.model.get_submodule("patch_embed").register_forward_hook(self._hide_embeddings)

    def forward(self, base: Base, images_BCHW: Tensor, mask_BHW: Tensor) -> BaseOutput:
        """What the base makes of the images without the hidden parts."""
        if not self._embeds_patches:
            hidden = _enlarged(mask_BHW, images_BCHW.shape[-2:])[:, None]
            images_BCHW = torch.where(hidden, self.token[:, None, None].to(images_BCHW.dtype), images_BCHW)
        self._mask_BHW = mask_BHW
        try:
            output: BaseOutput = base(images_BCHW)
        finally:
            self._mask_BHW = None
        return output

    def _hide_embeddings(
        self, patch_embed: nn.Module, images: tuple[Tensor, ...], embedded: Tensor
    ) -> Tensor:
        if self._mask_BHW is None:
            return embedded
        token = self.token.to(embedded.dtype)
        if embedded.ndim == 3:
            side = round(embedded.shape[1] ** 0.5)
            hidden_BN = _enlarged(self._mask_BHW, (side, embedded.shape[1] // side)).flatten(1)
            return torch.where(hidden_BN[:, :, None], token, embedded)
        return torch.where(_enlarged(self._mask_BHW, embedded.shape[1:3])[..., None], token, embedded)


def embeds_patches_one_by_one(model: nn.Module) -> bool:
    """Whether a hidden patch can be hidden by its embedding alone: a convolution as wide as its stride, with tokens (BNC or BHWC) as output."""
    embed = getattr(model, "patch_embed", None)
    proj = getattr(embed, "proj", None)
    return (
        isinstance(embed, PatchEmbed)
        and (embed.flatten or embed.output_fmt == Format.NHWC)
        and isinstance(proj, nn.Conv2d)
        and proj.kernel_size == proj.stride
    )


def random_masks(
    count: int, grid: tuple[int, int], ratio: float, generator: torch.Generator | None
) -> Tensor:
    """Masks with the same number of hidden positions, anywhere, as in SimMIM; bool [count, H, W], at least one position each."""
    height, width = grid
    hidden = _hidden_count(torch.full((count,), ratio), height * width).clamp_min(1)
    return _lowest(torch.rand(count, height * width, generator=generator), hidden).view(count, height, width)


def block_masks(
    count: int,
    grid: tuple[int, int],
    ratios: Tensor,
    generator: torch.Generator | None,
    *,
    attempts: int = 10,
) -> Tensor:
    """Masks of rectangles, as in BEiT (arXiv 2106.08254, algorithm 1) and iBOT: bool [count, H, W].

    Rectangles of random area and aspect ratio (0.3 to 1/0.3) are laid down as long as they fit into what is still to be hidden; what is
    then missing is filled up with single positions, so that image i has exactly `ratios[i]` of its positions hidden.
    """
    height, width = grid
    wanted = _hidden_count(ratios, height * width)
    mask = torch.zeros(count, height, width, dtype=torch.bool)
    rows, columns = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    for _ in range(attempts):
        size, aspect, top, left = torch.rand(4, count, generator=generator)
        area = size * (wanted - mask.sum(dim=(1, 2)))
        log_narrowest = torch.tensor(0.3).log()
        aspect = (log_narrowest * (1 - 2 * aspect)).exp()
        down = (area * aspect).sqrt().round().clamp(max=height)
        across = (area / aspect).sqrt().round().clamp(max=width)
        top, left = (top * (height - down + 1)).floor(), (left * (width - across + 1)).floor()
        first_row, first_column = top[:, None, None], left[:, None, None]
        block = (rows >= first_row) & (rows < first_row + down[:, None, None])
        block = block & (columns >= first_column) & (columns < first_column + across[:, None, None])
        larger = mask | block
        fits = larger.sum(dim=(1, 2)) <= wanted
        mask = torch.where(fits[:, None, None], larger, mask)
    # The lowest are those of the rectangles, then others by chance.
    order = torch.rand(count, height * width, generator=generator) - 2.0 * mask.flatten(1)
    return _lowest(order, wanted).view(count, height, width)


def tokens(map_BCHW: Tensor, hidden_M: Tensor) -> Tensor:
    """The features [M, C] at positions that are numbered image by image, row by row."""
    return map_BCHW.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, hidden_M)


def patches(images_BCHW: Tensor, grid: tuple[int, int], hidden_M: Tensor) -> Tensor:
    """The pixels [M, channels·s·s] of positions numbered as for `tokens`; s is the side of a position in pixels."""
    count, channels, height, width = images_BCHW.shape
    rows, columns = grid
    squares = images_BCHW.view(count, channels, rows, height // rows, columns, width // columns)
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2).index_select(0, hidden_M)


def _enlarged(mask_BHW: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """The mask on a finer grid of `size` positions."""
    return F.interpolate(mask_BHW[:, None].byte(), size=tuple(size))[:, 0].bool()


def _hidden_count(ratios: Tensor, positions: int) -> Tensor:
    return (ratios * positions).round().long()


def _lowest(values_BN: Tensor, counts_B: Tensor) -> Tensor:
    """Which values are among the lowest of their row, as many as `counts_B` says."""
    rank = values_BN.argsort(dim=1).argsort(dim=1)
    return rank < counts_B[:, None]
