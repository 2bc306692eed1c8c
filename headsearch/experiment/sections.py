"""What is trained and on what: base, images, method, and the schedule of a proxy."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
FilePath = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path, or a name where that is said; `~` is the home directory."""


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BaseSpec(Section):
    """The timm model to be improved."""

    model: str = "vit_small_patch16_224"
    """timm's name."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to `timm.create_model`."""
    weights: FilePath | None = None
    """null: random; `pretrained`: timm's; else a file of weights (safetensors or a plain state dict)."""


class DataSpec(Section):
    """The images to learn from, and whether labels may be read to probe the base."""

    dataset: str = "folder"
    """`digits`, `folder`, `npz`, or one of timm's names (`torch/cifar10`, `hfds/...`, `wds/...`)."""
    root: FilePath | None = None
    """Where the images lie."""
    image_size: Positive = 224
    """Side of the square image that the base sees, in pixels."""
    labels: Literal["probe", "none"] = "probe"
    """`probe`: labels score the frozen base and nothing else. `none`: no label is read."""
    unreadable: Literal["refuse", "accept"] = "refuse"
    """Where a fifth of the files or more cannot be read: `refuse` ends with an error, `accept` goes on without them."""
    augmentation: dict[str, Any] = Field(default_factory=dict)
    """Changes to the default augmentation of this kind of images."""


class MethodSpec(Section):
    """The self-supervised objective."""

    name: str = "mocov3"
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Options of the method, e.g. `temperature`."""


def default_rungs(epochs: int, *, stopping: bool) -> list[int]:
    """A quarter, a half and all of the epochs; where trials may be stopped a ninth, a third and all, which saves more
    (docs/stopping.md)."""
    early = (round(epochs / 9), round(epochs / 3)) if stopping else (epochs // 4, epochs // 2)
    return sorted({max(1, early[0]), max(1, early[1]), epochs})


class ProxySpec(Section):
    """The short schedule that scores a head."""

    epochs: Positive = 30
    rungs: list[Positive] = Field(default_factory=list)
    """Epochs at which a trial is scored, and may be stopped; empty: `default_rungs`."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    """Images per step; each gives two views."""
    learning_rate: Annotated[float, Field(gt=0)] = 1.0e-3
    """Peak, after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_epochs: Annotated[float, Field(ge=0)] | None = None
    """null: a tenth of `epochs`."""
    teacher_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of the exponential moving average at the start; rises to 1 along a cosine."""
    clip_gradient: Annotated[float, Field(gt=0)] | None = 3.0
    """Largest global norm of the gradient; null: not clipped."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast where it is faster (accelerators that have it), else float32."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, …"""
    keep_checkpoints: bool = False

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        epochs = data.get("epochs", cls.model_fields["epochs"].default)
        if is_count(epochs):
            if not data.get("rungs"):
                data = {**data, "rungs": default_rungs(epochs, stopping=False)}
            if data.get("warmup_epochs") is None:
                data = {**data, "warmup_epochs": epochs / 10}
        return data

    @model_validator(mode="after")
    def _rungs_end_at_the_budget(self) -> ProxySpec:
        if list(self.rungs) != sorted(set(self.rungs)) or self.rungs[-1] != self.epochs:
            raise ValueError(f"rungs must rise and end at epochs ({self.epochs}), got {list(self.rungs)}")
        if self.warmup_epochs is not None and self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must not exceed epochs ({self.epochs})")
        return self
