"""The options of every method, declared once and without torch, so that an experiment is checked in milliseconds.

A size of None is derived from the base's width w, because the papers' projectors dwarf a small base: hidden layers 4·w,
outputs 4·w, prototypes 16·w, each at most the paper's own size.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Size = Annotated[int, Field(ge=2)]
_Temperature = Annotated[float, Field(gt=0)]


_Share = Annotated[float, Field(ge=0, le=1)]


class MethodOptions(BaseModel):
    """The options of a method."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ProjectedOptions(MethodOptions):
    """What all methods with projectors let one choose."""

    hidden_dim: _Size | None = None
    """Width of the hidden layers of projectors and predictors; null: 4·w, at most the paper's."""
    output_dim: _Size | None = None
    """Features that the loss compares; null: 4·w (dino: 16·w prototypes), at most the paper's."""


class MoCoV3Options(ProjectedOptions):
    """MoCo v3: InfoNCE between the student's prediction and the teacher's projections of the batch."""

    temperature: _Temperature = 0.2
    """Divides the similarities."""


class BYOLOptions(ProjectedOptions):
    """BYOL: the student predicts the teacher's projection; no negatives."""


class SimCLROptions(ProjectedOptions):
    """SimCLR: NT-Xent, with the teacher's projection as the positive."""

    temperature: _Temperature = 0.5
    """Divides the similarities; 0.5 is the paper's choice for small images."""


class DINOOptions(ProjectedOptions):
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


class IBOTOptions(DINOOptions):
    """iBOT: DINO, and cross-entropy with the teacher's assignment of hidden patches."""

    mask_probability: _Share = 0.5
    """Of an image's global view to have patches hidden at all."""
    mask_ratio_low: _Share = 0.1
    """Smallest part of the patches that is then hidden."""
    mask_ratio_high: _Share = 0.5
    """Largest part."""
    warmup_teacher_patch_temperature: _Temperature = 0.04
    teacher_patch_temperature: _Temperature = 0.07
    patch_weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor of the patch loss."""


class SimMIMOptions(MethodOptions):
    """SimMIM: the pixels of hidden patches, and the teacher's features there."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Part of the patches that is hidden."""
    feature_weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor of the teacher's features; 0 leaves the pixels alone."""
    normalise_patches: bool = False
    """Whether each patch's pixels are normalised before they are compared, as in MAE."""
