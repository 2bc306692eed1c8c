"""BYOL: predict the teacher's embedding of the other view; the predictor and the slow teacher prevent collapse.

ℓ(q, z) = mean_i ‖ q_i/‖q_i‖ − z_i/‖z_i‖ ‖² = 2 − 2 · mean_i cos(q_i, z_i).

Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, arXiv 2006.07733, equation 2.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from headsearch.methods import mocov3
from headsearch.methods.options import MethodEntry, ProjectedOptions

if TYPE_CHECKING:
    from headsearch.methods.method import Method


class BYOLOptions(ProjectedOptions):
    """BYOL: the student predicts the teacher's projection; no negatives."""


@cache
def define() -> type[Method]:
    """The module's class. Here and not above, because the rest of the file must be read without torch."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
    from torch import Tensor

    from headsearch.methods.method import ProjectedMethod

    class BYOL(ProjectedMethod):
        """Two-layer projectors and predictors, batch norm in the hidden layer."""

        paper_sizes = (4096, 256)
        projection, prediction = BYOLProjectionHead, BYOLPredictionHead

        def __init__(self, width: int, options: BYOLOptions) -> None:
            super().__init__(width, options)
            self.negative_cosine = NegativeCosineSimilarity()

        def loss(self, student_BD: Tensor, target_BD: Tensor) -> Tensor:
            negative_cosine: Tensor = self.negative_cosine(student_BD, target_BD)
            return 2 + 2 * negative_cosine

    return BYOL


METHOD = MethodEntry("byol", BYOLOptions, replace(mocov3.METHOD.recipe, teacher_momentum=0.996), define)
"""Published for LARS on a ResNet; with AdamW, MoCo v3's recipe is the one that was tried on transformers. The teacher's momentum is BYOL's."""
