"""SimMIM with a teacher: predict the pixels of hidden positions, and what the teacher sees there.

The student sees a view with most positions hidden, the teacher sees it whole. At every hidden position a linear layer on the (normalised)
feature s predicts the pixels x of that square, and the teacher's normalised feature t:

    ℓ(s, t) = mean |W_x s − x|  +  λ · smooth_l1(W_t s, t).

The first term is SimMIM's; with λ = 0 and without a head nothing else is left. The second lets one network teach another, as every
method of HSSL does: with a head, t is the head's. Features are compared after a LayerNorm without learned scale and by smooth L1,
as in data2vec (arXiv 2202.03555) and I-JEPA (arXiv 2301.08243); the pixels keep them from collapsing.

Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022, arXiv 2111.09886.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from headsearch.base.info import BaseInfo
from headsearch.errors import ExperimentError
from headsearch.methods.options import MethodEntry, MethodOptions, MethodRecipe

if TYPE_CHECKING:
    from headsearch.methods.method import Method

_PATCH_EPS = 1e-6
"""Added to a square's variance, as in MAE (arXiv 2111.06377)."""


class SimMIMOptions(MethodOptions):
    """SimMIM: the pixels of hidden patches, and the teacher's features there."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Part of the patches that is hidden."""
    feature_weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor of the teacher's features; 0 leaves the pixels alone."""
    normalise_patches: bool = False
    """Whether each patch's pixels are normalised before they are compared, as in MAE."""


@cache
def define() -> type[Method]:
    """The module's class. Here and not above, because the rest of the file must be read without torch."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from headsearch.methods.masking import random_masks
    from headsearch.methods.method import Method

    class SimMIM(Method):
        """No projector but a normalisation; the predictor is the one-layer decoder."""

        hides = True
        compares_tokens = True
        pixel_loss = staticmethod(F.l1_loss)

        def __init__(self, width: int, options: SimMIMOptions) -> None:
            super().__init__()
            self.options = options
            self.width = width
            self.output_dim = width

        def prepare(self, info: BaseInfo) -> None:
            if any(info.image_size % side for side in info.grid):
                raise ExperimentError(
                    f"method.name: the method needs an image_size that is a multiple of the base's grid, {info.grid[0]}x{info.grid[1]}; "
                    f"got {info.image_size}"
                )
            self.pixels = (
                info.channels * (info.image_size // info.grid[0]) * (info.image_size // info.grid[1])
            )

        def projector(self, in_dim: int) -> nn.Module:
            return nn.LayerNorm(in_dim, elementwise_affine=False)

        def predictor(self) -> nn.Module:
            return nn.Linear(self.width, self.pixels + self.width)

        def masks(self, count: int, grid: tuple[int, int], generator: torch.Generator | None) -> Tensor:
            return random_masks(count, grid, self.options.mask_ratio, generator)

        def loss(self, student_BD: Tensor, target_BD: Tensor) -> Tensor:
            """ℓ of predictions against pixels followed by the teacher's features, one row per hidden position."""
            predicted_pixels, predicted_features = student_BD[:, : self.pixels], student_BD[:, self.pixels :]
            pixels, features = target_BD[:, : self.pixels], target_BD[:, self.pixels :]
            if self.options.normalise_patches:
                variance, mean = torch.var_mean(pixels, dim=1, keepdim=True)
                pixels = (pixels - mean) / (variance + _PATCH_EPS).sqrt()
            loss = self.pixel_loss(predicted_pixels, pixels)
            if self.options.feature_weight:
                loss = loss + self.options.feature_weight * F.smooth_l1_loss(predicted_features, features)
            return loss

    return SimMIM


METHOD = MethodEntry(
    "simmim",
    SimMIMOptions,
    MethodRecipe(
        learning_rate=1e-4,
        weight_decay=0.05,
        weight_decay_end=0.05,
        teacher_momentum=0.999,
        clip_gradient=5.0,
    ),
    define,
)
"""SimMIM's 2e-4 for 512 images on a Swin; the teacher's momentum is data2vec's."""
