"""DINO: predict the teacher's soft assignment of the image to learned prototypes.

ℓ(s, t) = −mean_i Σ_k P_ik log softmax(s_i / τ_s)_k, with P = softmax((t − c) / τ_t): the teacher is centred by a moving average c
of its outputs and sharpened by a low temperature τ_t, which rises at the start.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, arXiv 2104.14294.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from headsearch.methods.options import MethodEntry, MethodRecipe, ProjectedOptions, Size, Temperature

if TYPE_CHECKING:
    from headsearch.methods.method import Method


class PrototypeOptions(ProjectedOptions):
    """What the methods with prototypes have in common."""

    bottleneck_dim: Size | None = None
    """Width before the prototypes; null: 4·w, at most 256."""
    student_temperature: Temperature = 0.1
    warmup_teacher_temperature: Temperature = 0.04
    """The teacher's temperature at the start, from where it rises in a straight line."""
    teacher_temperature: Temperature = 0.07
    warmup_fraction: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Part of the schedule over which the teacher's temperature rises (the paper: 30 of 100 epochs)."""
    shared_prototypes: bool = False
    """Whether base and head have one layer of prototypes in common, as in the HSSL authors' code."""
    freeze_last_layer: Annotated[float, Field(ge=0)] = 1.0
    """Epochs during which the prototypes are not trained."""


class DINOOptions(PrototypeOptions):
    """DINO: cross-entropy with the teacher's centred and sharpened assignment to prototypes."""

    center_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of the moving average of the teacher's outputs."""


@cache
def define_prototypes() -> type[Method]:
    """What the methods with prototypes have in common: all but how the teacher assigns images to them."""
    from lightly.models.modules.heads import DINOProjectionHead
    from torch import Tensor, nn
    from torch.nn import functional as F

    from headsearch.methods.method import Method, scaled_size

    class Prototypes(Method):
        """Projectors without batch norm that end in prototypes of unit length, no predictors."""

        most_prototypes = 65536
        """The paper's own number."""

        def __init__(self, width: int, options: PrototypeOptions) -> None:
            super().__init__()
            self.options = options
            self.hidden_dim = scaled_size(options.hidden_dim, width, factor=4, paper=2048)
            self.bottleneck_dim = scaled_size(options.bottleneck_dim, width, factor=4, paper=256)
            self.output_dim = scaled_size(options.output_dim, width, factor=16, paper=self.most_prototypes)
            self.shared = "last_layer" if options.shared_prototypes else None
            self.teacher_temperature = options.warmup_teacher_temperature

        def projector(self, in_dim: int) -> nn.Module:
            with warnings.catch_warnings():
                # lightly still takes torch's older weight norm, which tells every user that it is deprecated.
                warnings.filterwarnings("ignore", message=".*weight_norm.*", category=FutureWarning)
                projector: nn.Module = DINOProjectionHead(
                    in_dim,
                    self.hidden_dim,
                    self.bottleneck_dim,
                    self.output_dim,
                    freeze_last_layer=self.options.freeze_last_layer,
                )
            return projector

        def begin_step(self, epoch: float, epochs: int) -> None:
            start, end = self.options.warmup_teacher_temperature, self.options.teacher_temperature
            self.teacher_temperature = self.warmed_up(start, end, epoch, epochs)

        def warmed_up(self, start: float, end: float, epoch: float, epochs: int) -> float:
            """A temperature that rises in a straight line over the first part of the schedule."""
            warmup = self.options.warmup_fraction * epochs
            part = min(1.0, epoch / warmup) if warmup > 0 else 1.0
            return start + (end - start) * part

        def loss(self, student_BD: Tensor, target_BD: Tensor) -> Tensor:
            log_assignment_BD = F.log_softmax(student_BD / self.options.student_temperature, dim=-1)
            return -(target_BD * log_assignment_BD).sum(dim=-1).mean()

        def after_backward(self, projectors: Iterable[nn.Module], epoch: float) -> None:
            for projector in projectors:
                for module in projector.modules():
                    if isinstance(module, DINOProjectionHead):
                        module.cancel_last_layer_gradients(epoch)

    return Prototypes


@cache
def define() -> type[Method]:
    """The module's class. Here and not above, because the rest of the file must be read without torch."""
    import torch
    from lightly.models.modules.center import Center
    from torch import Tensor
    from torch.nn import functional as F

    class DINO(define_prototypes()):  # type: ignore[misc]
        """Prototypes to which a teacher assigns images by a softmax after centring."""

        def __init__(self, width: int, options: DINOOptions) -> None:
            super().__init__(width, options)
            self.center = Center((1, self.output_dim), momentum=options.center_momentum)

        def targets(self, teacher_outputs: Sequence[Tensor]) -> list[Tensor]:
            targets = [
                F.softmax((output - self.center.value) / self.teacher_temperature, dim=-1)
                for output in teacher_outputs
            ]
            self.center.update(torch.cat(list(teacher_outputs)))
            return targets

    return DINO


METHOD = MethodEntry(
    "dino",
    DINOOptions,
    MethodRecipe(
        learning_rate=5e-4, weight_decay=0.04, weight_decay_end=0.4, teacher_momentum=0.996, clip_gradient=3.0
    ),
    define,
)
"""The paper's for a ViT."""
