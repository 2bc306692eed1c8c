"""VICReg: bring the two embeddings of an image together, keep every feature's spread, and decorrelate the features.

    ℓ(s, t) = λ · mean (s − t)²  +  μ · ½ [v(s) + v(t)]  +  ν · [c(s) + c(t)],
    v(z) = mean_d max(0, 1 − √(Var z_d + ε)),      c(z) = 1/D · Σ_{d ≠ e} Cov(z)²_de.

VICReg itself has no teacher. As in SimCLR here, the two embeddings are the student's of one view and the teacher's of the other, and the
gradient flows through the student's alone: v(t) and c(t) are numbers that train nothing. With a teacher equal to the student, both orders
of views together give VICReg's own gradient.

Bardes, Ponce & LeCun, "VICReg: Variance-Invariance-Covariance Regularization", ICLR 2022, arXiv 2105.04906, equations 1 to 6.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from headsearch.methods import mocov3
from headsearch.methods.options import MethodEntry, ProjectedOptions

if TYPE_CHECKING:
    from headsearch.methods.method import Method

Weight = Annotated[float, Field(ge=0)]


class VICRegOptions(ProjectedOptions):
    """VICReg: invariance, variance and covariance."""

    invariance_weight: Weight = 25.0
    """λ."""
    variance_weight: Weight = 25.0
    """μ."""
    covariance_weight: Weight = 1.0
    """ν."""


@cache
def define() -> type[Method]:
    """The module's class. Here and not above, because the rest of the file must be read without torch."""
    from lightly.loss import VICRegLoss
    from lightly.models.modules.heads import VICRegProjectionHead
    from torch import Tensor

    from headsearch.methods.method import ProjectedMethod

    class VICReg(ProjectedMethod):
        """Three-layer projectors with batch norm in the hidden layers, no predictors."""

        paper_sizes = (8192, 8192)
        projection = VICRegProjectionHead

        def __init__(self, width: int, options: VICRegOptions) -> None:
            super().__init__(width, options)
            self.vicreg = VICRegLoss(
                options.invariance_weight,
                options.variance_weight,
                options.covariance_weight,
                gather_distributed=True,
            )

        def loss(self, student_BD: Tensor, target_BD: Tensor) -> Tensor:
            loss: Tensor = self.vicreg(student_BD, target_BD)
            return loss

    return VICReg


METHOD = MethodEntry("vicreg", VICRegOptions, mocov3.METHOD.recipe, define)
"""Published for LARS on a ResNet; with AdamW, MoCo v3's recipe is the one that was tried on transformers."""
