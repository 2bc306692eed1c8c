"""DINOv2: iBOT with Sinkhorn-Knopp in place of the centres, and embeddings that are kept apart.

The teacher's assignment of a batch to prototypes is balanced, so that each prototype gets an equal share: three iterations of Sinkhorn-Knopp
over exp(t / τ_t), of the images in all global views together, and of the hidden patches. To the losses of iBOT is added

    weight · Σ_u KoLeo(b_u),   KoLeo(x) = −mean_i log min_{j ≠ i} ‖x_i − x_j‖   with x on the unit sphere,

over the global views u, where b_u are the embeddings of the student's base, before any projector. The head has no such term: it is thrown away.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024, arXiv 2304.07193. KoLeo: Sablayrolles et al., "Spreading
vectors for similarity search", ICLR 2019, arXiv 1806.03198. The paper computes KoLeo on the images of one GPU; here it is on the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from headsearch.methods import ibot
from headsearch.methods.options import MethodEntry, MethodRecipe

if TYPE_CHECKING:
    from headsearch.methods.method import Method

BalancedTemperature = Annotated[float, Field(ge=0.03)]
"""Below 0.03, exp(t / τ) of cosines leaves the range of float32."""


class DINOv2Options(ibot.HiddenPatchOptions):
    """DINOv2: iBOT's losses with balanced assignments, and KoLeo."""

    warmup_teacher_temperature: BalancedTemperature = 0.04
    teacher_temperature: BalancedTemperature = 0.07
    warmup_teacher_patch_temperature: BalancedTemperature = 0.04
    teacher_patch_temperature: BalancedTemperature = 0.07
    sinkhorn_iterations: Annotated[int, Field(ge=1)] = 3
    koleo_weight: Annotated[float, Field(ge=0)] = 0.1
    """Factor of KoLeo in each global view."""


@cache
def define() -> type[Method]:
    """The module's class. Here and not above, because the rest of the file must be read without torch."""
    import torch
    from lightly.loss import KoLeoLoss
    from torch import Tensor

    from headsearch.methods.collectives import gather, sum_over_ranks

    class DINOv2(ibot.define_hidden_patches()):  # type: ignore[misc]
        """Projectors as DINO's, and one more for positions."""

        most_prototypes = 131072
        options: DINOv2Options

        def __init__(self, width: int, options: DINOv2Options) -> None:
            super().__init__(width, options)
            self.koleo = KoLeoLoss()

        def targets(self, teacher_outputs: Sequence[Tensor]) -> list[Tensor]:
            together = torch.cat(list(teacher_outputs))
            return list(self._balanced(together, self.teacher_temperature).chunk(len(teacher_outputs)))

        def assigned_patches(self, teacher_MD: Tensor) -> Tensor:
            return self._balanced(teacher_MD, self.patch_temperature)

        @torch.no_grad()
        def _balanced(self, teacher_ND: Tensor, temperature: float) -> Tensor:
            """Sinkhorn-Knopp over the rows of all ranks. Not lightly's, which is off where ranks have different numbers of rows, as of patches."""
            assignment_ND = (teacher_ND / temperature).exp()
            for _ in range(self.options.sinkhorn_iterations):
                assignment_ND /= sum_over_ranks(assignment_ND.sum(dim=0, keepdim=True))
                assignment_ND /= assignment_ND.sum(dim=1, keepdim=True)
            return assignment_ND

        def embedding_loss(self, embedding_BD: Tensor) -> Tensor:
            loss: Tensor = self.koleo(gather(embedding_BD))
            return self.options.koleo_weight * loss

    return DINOv2


METHOD = MethodEntry(
    "dinov2",
    DINOv2Options,
    MethodRecipe(
        learning_rate=1e-4, weight_decay=0.04, weight_decay_end=0.2, teacher_momentum=0.994, clip_gradient=3.0
    ),
    define,
)
"""The paper's for a ViT-L: 2e-4 for 1,024 images, which its square-root rule makes 1e-4 for 256."""
