"""I-JEPA: predict what the teacher sees in blocks of an image, from the rest of it, with no pixel and no view compared.

Of every view, four target blocks and a large context block are drawn, and the targets are cut out of the context. The student's base is
given the context alone. Its map is completed by a learned vector elsewhere; on it sit the head, and for base and head a predictor
each, a narrow transformer. At every position of the targets it predicts the feature t that the teacher, which sees the whole view, has there:

    ℓ(s, t) = smooth_l1(s, t),  the mean over target blocks of the mean over their positions.

Features are compared after a LayerNorm without learned scale, as in the authors' code, which also has smooth L1 where the paper has squares. The
paper predicts its blocks one by one; here one pass predicts all of them, which sees no more of the image.

Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture", CVPR 2023, arXiv 2301.08243.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from headsearch.methods import mae
from headsearch.methods.options import DecoderOptions, MethodEntry, MethodRecipe

if TYPE_CHECKING:
    from headsearch.methods.method import Method

BlockShare = Annotated[float, Field(gt=0, lt=1)]


class IJEPAOptions(DecoderOptions):
    """I-JEPA: the teacher's features in blocks that were left out."""

    target_blocks: Annotated[int, Field(ge=1, le=100)] = 4
    target_share_low: BlockShare = 0.15
    """Smallest part of the positions that a target block covers."""
    target_share_high: BlockShare = 0.2
    """Largest part."""
    context_share_low: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Smallest part that the context block covers before the targets are cut out of it; the largest is all."""


@cache
def define() -> type[Method]:
    """The module's class. Here and not above, because the rest of the file must be read without torch."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from headsearch.methods.masking import context_masks

    class IJEPA(mae.define()):  # type: ignore[misc]
        """No projector but a normalisation; the predictor is the paper's."""

        decoder_share, most_dim, most_depth = 1 / 2, 384, 12
        """Of the base's width and depth, which gives the paper's predictor for a ViT-B and its limits."""
        least_seen = 0.25
        options: IJEPAOptions

        def predictor(self) -> nn.Module:
            predictor: nn.Module = self.decoder(self.width)
            return predictor

        def masks(self, count: int, grid: tuple[int, int], generator: torch.Generator | None) -> Tensor:
            options = self.options
            return context_masks(
                count,
                grid,
                generator,
                blocks=options.target_blocks,
                targets=(options.target_share_low, options.target_share_high),
                context=(options.context_share_low, 1.0),
            )

        def loss(self, student_BD: Tensor, target_BD: Tensor) -> Tensor:
            return F.smooth_l1_loss(student_BD, target_BD[:, self.pixels :])

    return IJEPA


METHOD = MethodEntry(
    "ijepa",
    IJEPAOptions,
    MethodRecipe(
        learning_rate=1.25e-4,
        weight_decay=0.04,
        weight_decay_end=0.4,
        teacher_momentum=0.996,
        clip_gradient=0.0,
    ),
    define,
)
"""The paper's 1e-3 for 2,048 images."""
