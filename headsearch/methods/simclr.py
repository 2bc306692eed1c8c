"""SimCLR: the normalised temperature-scaled cross-entropy (NT-Xent) over the 2B embeddings of a batch.

SimCLR itself has no teacher. In the student/teacher pairing the two embeddings of an image are the student's of one view and
the teacher's of the other: each of the 2B embeddings must find its partner among the 2B − 1 others, and the gradient flows
through the student's B alone. With a teacher equal to the student, both orders of views together give SimCLR's own gradient.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, arXiv 2002.05709, equation 1.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from headsearch.methods import mocov3
from headsearch.methods.options import MethodEntry, ProjectedOptions, Temperature

if TYPE_CHECKING:
    from headsearch.methods.method import Method


class SimCLROptions(ProjectedOptions):
    """SimCLR: NT-Xent, with the teacher's projection as the positive."""

    temperature: Temperature = 0.5
    """Divides the similarities; 0.5 is the paper's choice for small images."""


@cache
def define() -> type[Method]:
    """The module's class. Here and not above, because the rest of the file must be read without torch."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules.heads import SimCLRProjectionHead
    from torch import Tensor

    from headsearch.methods.method import ProjectedMethod

    class SimCLR(ProjectedMethod):
        """Two-layer projectors with batch norm, no predictors."""

        paper_sizes = (2048, 128)
        projection = SimCLRProjectionHead

        def __init__(self, width: int, options: SimCLROptions) -> None:
            super().__init__(width, options)
            self.nt_xent = NTXentLoss(temperature=options.temperature, gather_distributed=True)

        def loss(self, student_BD: Tensor, target_BD: Tensor) -> Tensor:
            loss: Tensor = self.nt_xent(student_BD, target_BD)
            return loss

    return SimCLR


METHOD = MethodEntry("simclr", SimCLROptions, mocov3.METHOD.recipe, define)
"""Published for LARS on a ResNet; with AdamW, MoCo v3's recipe is the one that was tried on transformers."""
