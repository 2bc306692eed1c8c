"""Hiding parts of an image from a base, for the methods that learn by predicting what is hidden.

A mask is drawn on the grid of the base's last feature map, so that every hidden position is one position of what base and head make of the
image; any timm model has such a grid. How it is hidden depends on method and base:

- where patches are embedded one by one (ViT, Swin: a patch embedding without overlap), the embeddings of the hidden ones become a
  learned vector, as in BEiT, iBOT and SimMIM;
- elsewhere (convolutional networks, overlapping stems), the pixels of the hidden squares become a learned colour;
- for a method that leaves positions out, a plain ViT sees the others alone, and its map is completed by a learned vector, as in MAE and I-JEPA.

Shapes: B images, H × W positions of the last map, h × w patches or pixels, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.format import Format
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from headsearch.base.model import Base, BaseOutput
from headsearch.errors import ExperimentError


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
        """What the base makes of the images without the hidden parts; the mask is on the CPU."""
        mask_BHW = mask_BHW.to(images_BCHW.device, non_blocking=True)
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


class LeavingOut(nn.Module):
    """A plain ViT that sees a part of the patches, and the learned vector that stands for the others in its map."""

    def __init__(self, base: Base) -> None:
        """`check_leaving_out` says which bases can."""
        super().__init__()
        rows, columns = base.info.grid
        self._positions = rows * columns
        self.token = nn.Parameter(torch.zeros(base.info.width))
        nn.init.trunc_normal_(self.token, std=0.02)
        self._seen_BK: Tensor | None = None

    def attach(self, base: Base) -> None:
        """Have `base` leave patches out whenever it is called through this object. Its parameters, state and other calls do not change."""
        base.model.get_submodule("patch_drop").register_forward_hook(self._leave_out)

    def forward(self, base: Base, images_BCHW: Tensor, mask_BHW: Tensor) -> BaseOutput:
        """The completed map, and the embedding of what is seen; the mask is on the CPU. Images with as many patches go through together."""
        device = images_BCHW.device
        seen_BN = ~mask_BHW.flatten(1)
        counts_B = seen_BN.sum(dim=1)
        # The positions that are seen come first.
        order_BN = seen_BN.byte().argsort(dim=1, descending=True, stable=True)
        passes, places = [], []
        for count in sorted(set(counts_B.tolist())):
            rows_B = (counts_B == count).nonzero().flatten()
            places.append(rows_B)
            seen_BK = order_BN[rows_B, :count].to(device, non_blocking=True)
            passes.append(self._pass(base, images_BCHW[rows_B.to(device, non_blocking=True)], seen_BK))
        back_B = torch.cat(places).argsort().to(device, non_blocking=True)
        return BaseOutput(*(torch.cat(parts)[back_B] for parts in zip(*passes, strict=True)))

    def _pass(self, base: Base, images_BCHW: Tensor, seen_BK: Tensor) -> BaseOutput:
        model: Any = base.model
        self._seen_BK = seen_BK
        try:
            final, (tokens_BKC,) = model.forward_intermediates(
                images_BCHW, indices=[base.info.stage], norm=False, output_fmt="NLC", intermediates_only=False
            )
        finally:
            self._seen_BK = None
        empty_BNC = self.token.to(tokens_BKC.dtype).expand(len(tokens_BKC), self._positions, -1)
        map_BNC = empty_BNC.scatter(1, seen_BK[:, :, None].expand_as(tokens_BKC), tokens_BKC)
        return BaseOutput(
            map_BNC.mT.reshape(len(images_BCHW), -1, *base.info.grid),
            model.forward_head(final, pre_logits=True),
        )

    def _leave_out(self, patch_drop: nn.Module, embedded: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self._seen_BK is None:
            return output
        prefix = output.shape[1] - self._positions
        index_BKC = self._seen_BK[:, :, None].expand(-1, -1, output.shape[2])
        return torch.cat([output[:, :prefix], output[:, prefix:].gather(1, index_BKC)], dim=1)


def check_leaving_out(base: Base) -> None:
    """Check that a base can leave patches out, and has a square grid. Raises `ExperimentError`."""
    rows, columns = base.info.grid
    if not isinstance(base.model, VisionTransformer) or not embeds_patches_one_by_one(base.model):
        raise ExperimentError(
            f"method.name: the method needs a base that can leave patches out, one of timm's plain vision transformers; {base.info.model} "
            "is none (simmim also hides patches, and takes any base)"
        )
    if rows != columns or rows < 2:
        raise ExperimentError(
            f"method.name: the method needs a square grid of 2x2 patches or more; that of {base.info.model} at {base.info.image_size} "
            f"pixels is {rows}x{columns}"
        )


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


def context_masks(
    count: int,
    grid: tuple[int, int],
    generator: torch.Generator | None,
    *,
    blocks: int,
    targets: tuple[float, float],
    context: tuple[float, float],
) -> Tensor:
    """Masks of I-JEPA: int8 [count, H, W], how many target blocks cover a position, 0 in the context, -1 in neither.

    Blocks have one size for all images, a random part (`targets`, low and high) of the positions and a random aspect ratio in 0.75 to 1.5; the context is
    square and has the part `context`. Positions are random for every image. A target that would leave less than a quarter of all positions
    to the context is laid where the one before it was. Images with more context than others lose what they have more, at random.
    """
    height, width = grid
    size, aspect, context_size = torch.rand(3, generator=generator).tolist()
    target = _block_size(grid, targets[0] + size * (targets[1] - targets[0]), 0.75 + 0.75 * aspect)
    whole = _block_size(grid, context[0] + context_size * (context[1] - context[0]), 1.0)
    context_BHW = _block_at(grid, whole, torch.rand(2, count, generator=generator))
    cover = torch.zeros(count, height, width, dtype=torch.int8)
    last = torch.zeros(count, height, width, dtype=torch.bool)
    for place in range(blocks):
        block = _block_at(grid, target, torch.rand(2, count, generator=generator))
        left = (context_BHW & (cover == 0) & ~block).sum(dim=(1, 2))
        fits = left >= height * width / 4 if place else torch.ones(count, dtype=torch.bool)
        last = torch.where(fits[:, None, None], block, last)
        cover += last.to(torch.int8)
    context_BN = (context_BHW & (cover == 0)).flatten(1)
    kept = context_BN.sum(dim=1).min().expand(count)
    order = torch.rand(count, height * width, generator=generator) - 2.0 * context_BN
    seen_BHW = _lowest(order, kept).view(count, height, width)
    mask: Tensor = torch.where(seen_BHW, 0, torch.where(cover > 0, cover, -1)).to(torch.int8)
    return mask


def _block_size(grid: tuple[int, int], share: float, aspect: float) -> tuple[int, int]:
    """Rows and columns of a block that covers about `share` of the grid."""
    area = share * grid[0] * grid[1]
    rows, columns = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
    return min(max(rows, 1), grid[0]), min(max(columns, 1), grid[1])


def _block_at(grid: tuple[int, int], size: tuple[int, int], place_2B: Tensor) -> Tensor:
    """Blocks at random places, which are numbers in [0, 1): bool [B, H, W]."""
    inside = []
    for length, side, place_B in zip(grid, size, place_2B, strict=True):
        first_B = (place_B * (length - side + 1)).floor()[:, None]
        along = torch.arange(length)
        inside.append((along >= first_B) & (along < first_B + side))
    rows_BH, columns_BW = inside
    block_BHW: Tensor = rows_BH[:, :, None] & columns_BW[:, None, :]
    return block_BHW


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
