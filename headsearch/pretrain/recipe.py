"""What a pretraining is: base, head, images, method and the full schedule, as one file (`pretrain.yaml`). No torch here.

A value left out of the recipe is the method's own, from its paper; the resolved file holds every number.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from headsearch.data.names import check_data, data_named
from headsearch.document import plain, read_mapping, to_yaml
from headsearch.errors import ExperimentError, RunError
from headsearch.experiment.loading import apply_override
from headsearch.experiment.schema_errors import checked
from headsearch.experiment.sections import (
    PRETRAINING_EPOCHS,
    RECORDED,
    BaseSpec,
    Code,
    DataSpec,
    MethodSpec,
    Plugins,
    Positive,
    ScheduleSpec,
    Section,
    is_recorded,
    with_recipe,
)
from headsearch.export import BaseFacts, ExportedHead
from headsearch.files import check_weights
from headsearch.plugins import digests, load_plugins

VERSION: Literal["headsearch/pretrain@1"] = "headsearch/pretrain@1"


class RecipeSpec(ScheduleSpec):
    """The full schedule."""

    epochs: Positive = PRETRAINING_EPOCHS
    batch_size: Annotated[int, Field(ge=2)] = 1024
    accumulate: Positive = 1
    """Parts that a step's batch is trained in, one after the other, to save memory. Contrastive methods then see the negatives of a
    part alone, and batch norms its statistics."""
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
    plugins: Plugins = Field(default_factory=list)
    code: Code = Field(default_factory=dict)
    """Of plug-ins and base, as they are when the pretraining begins."""
    base: BaseSpec = Field(default_factory=BaseSpec)
    data: DataSpec = Field(default_factory=DataSpec)
    method: MethodSpec = Field(default_factory=MethodSpec)
    recipe: RecipeSpec
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of everything random, and of the cut that holds images out where there is no test split."""

    @model_validator(mode="before")
    @classmethod
    def _take_the_methods_recipe(cls, data: Any, info: ValidationInfo) -> Any:
        return with_recipe(data, "recipe", RecipeSpec, recorded=is_recorded(info))

    @model_validator(mode="after")
    def _parts_divide_the_batch(self) -> PretrainSpec:
        recipe = self.recipe
        if recipe.batch_size % recipe.accumulate or recipe.batch_size // recipe.accumulate < 2:
            raise ValueError(
                f"recipe.accumulate ({recipe.accumulate}) must divide batch_size ({recipe.batch_size}) into parts of 2 images or more"
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
            data: a data set's name, an `.npz` file or a folder; None: the images that the head was chosen on.
            overrides: `key=value` with dotted keys, e.g. `recipe.epochs=100`.
            without_head: train the control: everything equal, no head.

        Raises:
            ExperimentError: an override, or what it leads to, cannot be used.
        """
        head: dict[str, Any] = {} if without_head else {"head_id": exported.head_id, "head": exported.config}
        content: dict[str, Any] = {
            **head,
            "plugins": exported.plugins,
            "code": digests([*exported.plugins, *exported.base.code]),
            "chosen_for": exported.base.info.model_dump(),
            "base": {**exported.base.model_dump(exclude={"info"}), "stage": exported.base.info.stage},
            "data": exported.data.model_dump(),
            "method": exported.method.model_dump(),
            "seed": 0 if exported.provenance is None else exported.provenance.seed,
        }
        return cls.of(content, data=data, overrides=overrides)

    @classmethod
    def of(cls, content: dict[str, Any], *, data: str | None, overrides: Sequence[str]) -> Self:
        """Plain data, with other images and overrides on top, for which it is changed in place. Arguments and errors as for `from_head`."""
        if data is not None:
            content["data"] = {**content.get("data", {}), "root": None, **data_named(data)}
        former = copy.deepcopy(content.get("method", {}))
        for override in overrides:
            apply_override(content, override)
        method = content.get("method")
        if (
            former
            and isinstance(method, dict)
            and method.get("name") != former["name"]
            and method.get("kwargs") == former["kwargs"]
        ):
            # Options belong to the method that they were given for.
            method["kwargs"] = {}
        return cls.parse(content, "pretrain", overrides=overrides)

    @classmethod
    def parse(cls, content: Mapping[str, Any], label: str, *, overrides: Sequence[str] = ()) -> Self:
        """Check plain data. Raises `ExperimentError`, in one line that starts with `label` or the override."""
        return checked(cls, content, label, ExperimentError, overrides=overrides)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The content of a `pretrain.yaml`. Raises `RunError` where it cannot be read."""
        root = read_mapping(path, RunError, "as headsearch pretrain writes them")
        return checked(cls, plain(root), str(path), RunError, root=root, context=RECORDED)

    def check_paths(self) -> None:
        """Check what can be checked of plug-ins, images and weights without opening them. Raises `PluginError`, `DataError` or `BaseModelError`."""
        load_plugins(self.plugins)
        check_data(self.data.dataset, self.data.root)
        if self.base.weights not in (None, "pretrained"):
            check_weights(str(self.base.weights))

    def to_yaml(self) -> str:
        """The spec with every key, as YAML."""
        return to_yaml(self.model_dump(mode="json"))
