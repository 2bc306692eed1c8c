"""MAE with a teacher: the base sees a quarter of the patches, and what is missing is decoded from what it makes of them.

The student's base is given the visible patches alone. Its map is completed by a learned vector at the hidden positions; on the completed map sit
the head, as on any map, and a decoder. Base and head have a decoder each, a small transformer that predicts at every hidden position the
normalised pixels x of that square, and the feature t that the teacher, which sees the whole view, has there:

    ℓ(s, t) = mean (s_x − x)²  +  λ · smooth_l1(s_t, t).

With λ = 0 and without a head this is MAE, but for the class token, which the decoder does not get: a head has none. The second term
lets base and head learn from each other, as in `simmim`.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv 2111.06377.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from headsearch.methods import simmim
from headsearch.methods.options import DecoderOptions, MethodEntry, MethodRecipe

if TYPE_CHECKING:
    from headsearch.methods.method import Method


class MAEOptions(DecoderOptions, simmim.SimMIMOptions):
    """MAE: the pixels of patches that were left out, and the teacher's features there."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    normalise_patches: bool = True


@cache
def define() -> type[Method]:
    """The module's class. Here and not above, because the rest of the file must be read without torch."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from headsearch.base.info import BaseInfo
    from headsearch.methods.decoder import Decoder, decoder_dim
    from headsearch.methods.masking import random_masks

    class MAE(simmim.define()):  # type: ignore[misc]
        """No projector but a normalisation; the predictor is the decoder."""

        leaves_out = True
        pixel_loss = staticmethod(F.mse_loss)
        decoder_share, most_dim, most_depth = 2 / 3, 512, 8
        """Of the base's width and depth, which gives the paper's decoder for a ViT-B and its limits."""

        def prepare(self, info: BaseInfo) -> None:
            super().prepare(info)
            self.positions = info.grid[0] * info.grid[1]
            depth = max(1, round(self.decoder_share * info.depth))
            self.dim = self.options.decoder_dim or decoder_dim(
                min(self.most_dim, int(self.decoder_share * info.width))
            )
            self.depth = self.options.decoder_depth or min(self.most_depth, depth)

        @property
        def least_seen(self) -> float:
            return float(1 - self.options.mask_ratio)

        def decoder(self, outputs: int) -> nn.Module:
            """A decoder with so many predictions at a position."""
            return Decoder(self.width, self.positions, dim=self.dim, depth=self.depth, outputs=outputs)

        def predictor(self) -> nn.Module:
            return self.decoder(self.pixels + self.width)

        def masks(self, count: int, grid: tuple[int, int], generator: torch.Generator | None) -> Tensor:
            visible = 1 / (grid[0] * grid[1])
            return random_masks(count, grid, min(self.options.mask_ratio, 1 - visible), generator)

    return MAE


METHOD = MethodEntry(
    "mae",
    MAEOptions,
    MethodRecipe(
        learning_rate=1.5e-4,
        weight_decay=0.05,
        weight_decay_end=0.05,
        teacher_momentum=0.999,
        clip_gradient=0.0,
    ),
    define,
)
"""The paper's (with its AdamW's second beta at 0.999 instead of 0.95); the teacher's momentum is that of `simmim`."""
