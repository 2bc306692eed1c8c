"""What a pretraining is: base, head, images, method and the full schedule, as one file (`pretrain.yaml`). No torch here.

A value left out of the recipe is the method's own, from its paper; the resolved file holds every number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from headsearch.data.names import data_named
from headsearch.document import MapNode, plain, read_mapping, to_yaml
from headsearch.errors import ExperimentError, RunError
from headsearch.experiment.loading import apply_override
from headsearch.experiment.schema_errors import checked
from headsearch.experiment.sections import BaseSpec, DataSpec, MethodSpec, Positive, Section, is_count
from headsearch.export import BaseFacts, ExportedHead
from headsearch.methods import check_method

VERSION: Literal["headsearch/pretrain@1"] = "headsearch/pretrain@1"

_IMAGES_OF_A_RATE = 256
"""The papers give learning rates for a batch of this many images and scale them with the batch."""
_CONTRASTIVE: Mapping[str, Any] = MappingProxyType(
    {
        "rate": 1.5e-4,
        "weight_decay": 0.1,
        "weight_decay_end": 0.1,
        "teacher_momentum": 0.99,
        "clip_gradient": 0.0,
    }
)
_DISTILLED: Mapping[str, Any] = MappingProxyType(
    {
        "rate": 5e-4,
        "weight_decay": 0.04,
        "weight_decay_end": 0.4,
        "teacher_momentum": 0.996,
        "clip_gradient": 3.0,
    }
)
_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "mocov3": _CONTRASTIVE,
        # Published for LARS on a ResNet; with AdamW, MoCo v3's recipe is the one that was tried on transformers.
        "byol": {**_CONTRASTIVE, "teacher_momentum": 0.996},
        "simclr": _CONTRASTIVE,
        "dino": _DISTILLED,
        "ibot": _DISTILLED,
        # SimMIM's 2e-4 for 512 images on a Swin; the teacher's momentum is data2vec's.
        "simmim": {
            "rate": 1e-4,
            "weight_decay": 0.05,
            "weight_decay_end": 0.05,
            "teacher_momentum": 0.999,
            "clip_gradient": 5.0,
        },
    }
)
"""By method: learning rate for 256 images, and what the recipe leaves out."""


class RecipeSpec(Section):
    """The full schedule. What is left out, or null, of the rates is the method's own; `PretrainSpec` fills it in."""

    epochs: Positive = 300
    batch_size: Annotated[int, Field(ge=2)] = 1024
    """Images per step over all ranks; each gives two views."""
    accumulate: Positive = 1
    """Parts that a step's batch is trained in, one after the other, to save memory. Contrastive methods then see the negatives of a
    part alone, and batch norms its statistics."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak, after the warm-up; null: the method's rate for 256 images times batch_size / 256."""
    weight_decay: Annotated[float, Field(ge=0)]
    """At the start."""
    weight_decay_end: Annotated[float, Field(ge=0)]
    """At the end, along a cosine; null: the method's, or `weight_decay` where that is given."""
    warmup_epochs: Annotated[float, Field(ge=0)]
    """null: a tenth of `epochs`."""
    teacher_momentum: Annotated[float, Field(ge=0, lt=1)]
    """Of the exponential moving average at the start; rises to 1 along a cosine."""
    clip_gradient: Annotated[float, Field(ge=0)]
    """Largest global norm of the gradient; 0: not clipped."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast where it is faster (accelerators that have it), else float32."""
    compile: bool = False
    """Whether `torch.compile` is used on base and head: minutes at the start, faster steps."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`; of several ranks on one machine each takes the accelerator of its own number."""
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 10.0
    """Work that a crash may cost; a checkpoint is also written at the end of every epoch."""
    keep_checkpoints: Positive = 2
    """How many of the newest are kept."""
    probe_every: Annotated[int, Field(ge=0)] = 10
    """Epochs between two probes of base and head on held-out images; 0: only at the end."""
    export: Literal["student", "teacher"] = "student"
    """Whose weights are written at the end."""


class PretrainSpec(Section):
    """Everything that decides the outcome of a pretraining."""

    pretrain: Literal["headsearch/pretrain@1"] = VERSION
    head_id: str = "none"
    """The head's name, `none` for the control."""
    head: dict[str, Any] | list[Any] | None = None
    """Its config, as in `head.yaml`; null: no head, plain self-supervised learning."""
    chosen_for: BaseFacts | None = None
    """Facts about the base that the head was chosen for, to be compared with the base at hand; null: not compared."""
    base: BaseSpec = Field(default_factory=BaseSpec)
    data: DataSpec = Field(default_factory=DataSpec)
    method: MethodSpec = Field(default_factory=MethodSpec)
    recipe: RecipeSpec
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of everything random, and of the cut that holds images out where there is no test split."""

    @model_validator(mode="before")
    @classmethod
    def _take_the_methods_values(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        method, recipe = data.get("method", {}), data.get("recipe", {})
        if not isinstance(method, dict) or not isinstance(recipe, dict):
            return data
        name, options = method.get("name", MethodSpec.model_fields["name"].default), method.get("kwargs", {})
        if not isinstance(name, str) or not isinstance(options, dict):
            return data
        check_method(name, options)
        return {**data, "recipe": _complete(recipe, _DEFAULTS[name])}

    @model_validator(mode="after")
    def _parts_divide_the_batch(self) -> PretrainSpec:
        recipe = self.recipe
        if recipe.batch_size % recipe.accumulate or recipe.batch_size // recipe.accumulate < 2:
            raise ValueError(
                f"recipe.accumulate ({recipe.accumulate}) must divide batch_size ({recipe.batch_size}) into parts of 2 images or more"
            )
        if recipe.warmup_epochs > recipe.epochs:
            raise ValueError(
                f"recipe.warmup_epochs ({recipe.warmup_epochs}) must not exceed epochs ({recipe.epochs})"
            )
        return self

    @classmethod
    def from_head(
        cls,
        exported: ExportedHead,
        *,
        data: str | None = None,
        overrides: Sequence[str] = (),
        without_head: bool = False,
    ) -> Self:
        """The pretraining of an exported head.

        Args:
            exported: the content of a `head.yaml`.
            data: a data set's name, an `.npz` file or a folder; None: the data set that the head was chosen on, which must then
                need no root.
            overrides: `key=value` with dotted keys, e.g. `recipe.epochs=100`.
            without_head: train the control: everything equal, no head.

        Raises:
            ExperimentError: an override, or what it leads to, cannot be used.
        """
        head: dict[str, Any] = {} if without_head else {"head_id": exported.head_id, "head": exported.config}
        content: dict[str, Any] = {
            **head,
            "chosen_for": exported.base.info.model_dump(),
            "base": {
                "model": exported.base.model,
                "kwargs": exported.base.kwargs,
                "weights": exported.base.weights,
            },
            "data": {
                **(data_named(data) if data is not None else {"dataset": exported.data.dataset}),
                "image_size": exported.data.image_size,
                "augmentation": exported.data.augmentation,
            },
            "method": {"name": exported.method.name, "kwargs": exported.method.kwargs},
            "seed": exported.provenance.seed,
        }
        former = exported.method.name
        for override in overrides:
            apply_override(content, override)
        method = content["method"]
        if (
            isinstance(method, dict)
            and method.get("name") != former
            and method.get("kwargs") == exported.method.kwargs
        ):
            # Options belong to the method that they were given for.
            method["kwargs"] = {}
        return cls.parse(content, "pretrain", overrides=overrides)

    @classmethod
    def parse(
        cls,
        content: Mapping[str, Any],
        label: str,
        *,
        root: MapNode | None = None,
        overrides: Sequence[str] = (),
    ) -> Self:
        """Check plain data, as `checked` does. Raises `ExperimentError`, in one line that starts with `label` or the position."""
        return checked(cls, content, label, ExperimentError, root=root, overrides=overrides)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The content of a `pretrain.yaml`. Raises `RunError` where it cannot be read."""
        root = read_mapping(path, RunError, "as headsearch pretrain writes them")
        return checked(cls, plain(root), str(path), RunError, root=root)

    def to_yaml(self) -> str:
        """The spec with every key, as YAML."""
        return to_yaml(self.model_dump(mode="json"))


def _complete(recipe: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with the method's values where it has none of its own."""
    full = dict(recipe)
    if full.get("weight_decay") is not None and full.get("weight_decay_end") is None:
        full["weight_decay_end"] = full["weight_decay"]
    for key in ("weight_decay", "weight_decay_end", "teacher_momentum", "clip_gradient"):
        if full.get(key) is None:
            full[key] = defaults[key]
    batch_size = full.get("batch_size", RecipeSpec.model_fields["batch_size"].default)
    if full.get("learning_rate") is None and is_count(batch_size):
        full["learning_rate"] = defaults["rate"] * batch_size / _IMAGES_OF_A_RATE
    epochs = full.get("epochs", RecipeSpec.model_fields["epochs"].default)
    if full.get("warmup_epochs") is None and is_count(epochs):
        full["warmup_epochs"] = epochs / 10
    return full
