"""Barlow Twins: make the features of two views correlate one to one, and with no other.

    ℓ(s, t) = Σ_d (1 − C_dd)²  +  λ · Σ_{d ≠ e} C_de²,

C the correlations over the batch between the features of s and those of t. Barlow Twins itself has no teacher. As in SimCLR here, s is the
student's embedding of one view and t the teacher's of the other. With a teacher equal to the student, both orders of views together give
its own gradient.

Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021, arXiv 2103.03230, equation 1.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from headsearch.methods import mocov3
from headsearch.methods.options import MethodEntry, ProjectedOptions

if TYPE_CHECKING:
    from headsearch.methods.method import Method


class BarlowOptions(ProjectedOptions):
    """Barlow Twins: correlations between features, 1 with themselves and 0 with others."""

    redundancy_weight: Annotated[float, Field(ge=0)] = 5e-3
    """λ, of the correlations that are to be 0."""


@cache
def define() -> type[Method]:
    """The module's class. Here and not above, because the rest of the file must be read without torch."""
    from lightly.loss import BarlowTwinsLoss
    from lightly.models.modules.heads import BarlowTwinsProjectionHead
    from torch import Tensor

    from headsearch.methods.collectives import gather
    from headsearch.methods.method import ProjectedMethod

    class Barlow(ProjectedMethod):
        """Three-layer projectors with batch norm in the hidden layers, no predictors."""

        paper_sizes = (8192, 8192)
        projection = BarlowTwinsProjectionHead

        def __init__(self, width: int, options: BarlowOptions) -> None:
            super().__init__(width, options)
            self.barlow = BarlowTwinsLoss(options.redundancy_weight)

        def loss(self, student_BD: Tensor, target_BD: Tensor) -> Tensor:
            # lightly's own gathering would standardise the features by the statistics of each rank's part.
            loss: Tensor = self.barlow(gather(student_BD), gather(target_BD))
            return loss

    return Barlow


METHOD = MethodEntry("barlow", BarlowOptions, mocov3.METHOD.recipe, define)
"""Published for LARS on a ResNet; with AdamW, MoCo v3's recipe is the one that was tried on transformers."""
