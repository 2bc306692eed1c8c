"""iBOT: DINO, and on top of it predict the teacher's assignment of patches that the student cannot see.

The student sees its global views with patches hidden, the teacher sees them whole. The image-level loss is DINO's. The patch loss is
the cross-entropy between the teacher's and the student's assignment of each hidden position of the same view,

    mean over images of  −mean over hidden positions p of  Σ_k P_pk log softmax(s_p / τ_s)_k,   P = softmax((t − c') / τ'_t),

0 for an image with nothing hidden, with a centre c' and a temperature τ'_t of its own. The projector of positions is one of its own too,
after a LayerNorm: the paper shares it with the class token's, which a base without one does not have.

Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", ICLR 2022, arXiv 2111.07832.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from headsearch.methods import dino
from headsearch.methods.options import MethodEntry, Share, Temperature

if TYPE_CHECKING:
    from headsearch.methods.method import Method


class HiddenPatchOptions(dino.PrototypeOptions):
    """What the methods that also assign hidden patches have in common."""

    mask_probability: Share = 0.5
    """Of an image's global view to have patches hidden at all."""
    mask_ratio_low: Share = 0.1
    """Smallest part of the patches that is then hidden."""
    mask_ratio_high: Share = 0.5
    """Largest part."""
    warmup_teacher_patch_temperature: Temperature = 0.04
    teacher_patch_temperature: Temperature = 0.07
    patch_weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor of the patch loss."""


class IBOTOptions(HiddenPatchOptions, dino.DINOOptions):
    """iBOT: DINO, and cross-entropy with the teacher's assignment of hidden patches."""


@cache
def define_hidden_patches() -> type[Method]:
    """What the methods that also assign hidden patches have in common: all but how the teacher assigns."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from headsearch.methods.masking import block_masks

    class HiddenPatches(dino.define_prototypes()):  # type: ignore[misc]
        """Projectors as DINO's, and one more for positions."""

        hides = True
        options: HiddenPatchOptions

        def __init__(self, width: int, options: HiddenPatchOptions) -> None:
            super().__init__(width, options)
            self.patch_temperature = options.warmup_teacher_patch_temperature

        def begin_step(self, epoch: float, epochs: int) -> None:
            super().begin_step(epoch, epochs)
            start, end = self.options.warmup_teacher_patch_temperature, self.options.teacher_patch_temperature
            self.patch_temperature = self.warmed_up(start, end, epoch, epochs)

        def masks(self, count: int, grid: tuple[int, int], generator: torch.Generator | None) -> Tensor:
            chance, size = torch.rand(2, count, generator=generator)
            low, high = self.options.mask_ratio_low, self.options.mask_ratio_high
            ratios = torch.where(chance < self.options.mask_probability, low + (high - low) * size, 0.0)
            return block_masks(count, grid, ratios, generator)

        def patch_projector(self, in_dim: int) -> nn.Module:
            return nn.Sequential(nn.LayerNorm(in_dim), self.projector(in_dim))

        def assigned_patches(self, teacher_MD: Tensor) -> Tensor:
            """The teacher's assignment of hidden positions to prototypes, (M, D), each a distribution; called once a step."""
            raise NotImplementedError

        def patch_loss(self, student_MD: Tensor, teacher_MD: Tensor, mask_BHW: Tensor) -> Tensor:
            assignment_MD = self.assigned_patches(teacher_MD)
            log_assignment_MD = F.log_softmax(student_MD / self.options.student_temperature, dim=-1)
            loss_M = -(assignment_MD * log_assignment_MD).sum(dim=-1)
            hidden_B = mask_BHW.sum(dim=(1, 2)).clamp_min(1)
            weight_M = (1.0 / hidden_B)[:, None, None].expand_as(mask_BHW)[mask_BHW].to(loss_M)
            return self.options.patch_weight * (loss_M * weight_M).sum() / len(mask_BHW)

    return HiddenPatches


@cache
def define() -> type[Method]:
    """The module's class. Here and not above, because the rest of the file must be read without torch."""
    import torch
    from lightly.models.modules.center import Center, center_momentum
    from torch import Tensor
    from torch.nn import functional as F

    from headsearch.methods.collectives import sum_over_ranks

    class IBOT(define_hidden_patches(), dino.define()):  # type: ignore[misc]
        """Hidden patches too are assigned by a softmax after centring; there are fewer prototypes than DINO's."""

        most_prototypes = 8192

        def __init__(self, width: int, options: IBOTOptions) -> None:
            super().__init__(width, options)
            self.patch_center = Center((1, self.output_dim), momentum=options.center_momentum)

        def assigned_patches(self, teacher_MD: Tensor) -> Tensor:
            assignment_MD = F.softmax((teacher_MD - self.patch_center.value) / self.patch_temperature, dim=-1)
            self._follow(teacher_MD)
            return assignment_MD

        @torch.no_grad()
        def _follow(self, teacher_MD: Tensor) -> None:
            """Move the centre. Ranks hide different numbers of positions, so sums and counts are put together, and not means."""
            total_D = sum_over_ranks(teacher_MD.sum(dim=0, keepdim=True))
            count = sum_over_ranks(total_D.new_tensor(len(teacher_MD)))
            mean_D = torch.where(count > 0, total_D / count.clamp_min(1), self.patch_center.value)
            self.patch_center.center = center_momentum(
                self.patch_center.value, mean_D, self.patch_center.momentum
            )

    return IBOT


METHOD = MethodEntry("ibot", IBOTOptions, dino.METHOD.recipe, define)
