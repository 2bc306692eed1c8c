"""The options of every method, declared once and without torch, so that an experiment is checked in milliseconds.

A size of None is derived from the base's width w, because the papers' projectors dwarf a small base: hidden layers 4·w,
outputs 4·w, prototypes 16·w, each at most the paper's own size.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Size = Annotated[int, Field(ge=2)]
_Temperature = Annotated[float, Field(gt=0)]


class MethodOptions(BaseModel):
    """What all methods let one choose."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    hidden_dim: _Size | None = None
    """Width of the hidden layers of projectors and predictors; null: 4·w, at most the paper's."""
    output_dim: _Size | None = None
    """Features that the loss compares; null: 4·w (dino: 16·w prototypes), at most the paper's."""


class MoCoV3Options(MethodOptions):
    """MoCo v3: InfoNCE between the student's prediction and the teacher's projections of the batch."""

    temperature: _Temperature = 0.2
    """Divides the similarities."""


class BYOLOptions(MethodOptions):
    """BYOL: the student predicts the teacher's projection; no negatives."""


class SimCLROptions(MethodOptions):
    """SimCLR: NT-Xent, with the teacher's projection as the positive."""

    temperature: _Temperature = 0.5
    """Divides the similarities; 0.5 is the paper's choice for small images."""


class DINOOptions(MethodOptions):
    """DINO: cross-entropy with the teacher's centred and sharpened assignment to prototypes."""

    bottleneck_dim: _Size | None = None
    """Width before the prototypes; null: 4·w, at most 256."""
    student_temperature: _Temperature = 0.1
    warmup_teacher_temperature: _Temperature = 0.04
    """The teacher's temperature at the start, from where it rises in a straight line."""
    teacher_temperature: _Temperature = 0.07
    warmup_fraction: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Part of the schedule over which the teacher's temperature rises (the paper: 30 of 100 epochs)."""
    center_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of the moving average of the teacher's outputs."""
    freeze_last_layer: Annotated[float, Field(ge=0)] = 1.0
    """Epochs during which the prototypes are not trained."""
