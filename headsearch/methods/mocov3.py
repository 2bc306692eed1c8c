"""MoCo v3: tell the teacher's embedding of the same image from those of the others in the batch.

ℓ(q, k) = −2τ · mean_i log( exp(q_i·k_i/τ) / Σ_j exp(q_i·k_j/τ) ), with q and k of unit length.

Chen, Xie & He, "An Empirical Study of Training Self-Supervised Vision Transformers", ICCV 2021, arXiv 2104.02057.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

from headsearch.methods.options import MethodEntry, MethodRecipe, ProjectedOptions, Temperature

if TYPE_CHECKING:
    from headsearch.methods.method import Method


class MoCoV3Options(ProjectedOptions):
    """MoCo v3: InfoNCE between the student's prediction and the teacher's projections of the batch."""

    temperature: Temperature = 0.2
    """Divides the similarities."""


@cache
def define() -> type[Method]:
    """The module's class. Here and not above, because the rest of the file must be read without torch."""
    import torch
    from lightly.models.modules.heads import MoCoProjectionHead
    from torch import Tensor
    from torch.nn import functional as F

    from headsearch.methods.collectives import gather, rank
    from headsearch.methods.method import ProjectedMethod

    class MoCoV3(ProjectedMethod):
        """Three-layer projectors and two-layer predictors, batch norm after every layer."""

        paper_sizes = (4096, 256)
        projection = partial(MoCoProjectionHead, num_layers=3, batch_norm=True)
        prediction = partial(MoCoProjectionHead, num_layers=2, batch_norm=True)

        def __init__(self, width: int, options: MoCoV3Options) -> None:
            super().__init__(width, options)
            self.temperature = options.temperature

        def targets(self, teacher_outputs: Sequence[Tensor]) -> list[Tensor]:
            # The others in the batch are those of all ranks.
            return [gather(F.normalize(output, dim=-1)) for output in teacher_outputs]

        def loss(self, student_BD: Tensor, target_ND: Tensor) -> Tensor:
            similarity_BN = F.normalize(student_BD, dim=-1) @ target_ND.T
            own = rank() * len(student_BD) + torch.arange(len(student_BD), device=student_BD.device)
            return 2 * self.temperature * F.cross_entropy(similarity_BN / self.temperature, own)

    return MoCoV3


METHOD = MethodEntry(
    "mocov3",
    MoCoV3Options,
    MethodRecipe(
        learning_rate=1.5e-4, weight_decay=0.1, weight_decay_end=0.1, teacher_momentum=0.99, clip_gradient=0.0
    ),
    define,
)
"""The paper's for AdamW on a ViT."""
