"""What is trained and on what: base, images, method, and the schedule of a proxy."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from headsearch.data import names
from headsearch.methods import METHODS, check_method
from headsearch.plugins import is_factory, located, short_name

_IMAGES_OF_A_RATE = 256
"""Papers give learning rates for a batch of this many images, and scale them in proportion to the batch."""

PRETRAINING_EPOCHS = 300
"""Of a full pretraining that is not told how long."""

Positive = Annotated[int, Field(ge=1)]
FilePath = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path, or a name where that is said; `~` is the home directory."""

Plugins = Annotated[list[Annotated[str, AfterValidator(located)]], Field(exclude_if=lambda named: not named)]
"""Plug-ins: `.py` files, or names of installed ones. They are loaded before anything else is read. Not written down where there are none."""

Code = Annotated[dict[str, str], Field(exclude_if=lambda code: not code)]
"""Digests of code that is not ours, by file or module (`headsearch.plugins.digests`). Not written down where there is none."""

RECORDED = {"recorded": True}
"""The context of pydantic in which a file of a run is read: what it asks for has run, and the plug-ins that know it may be gone."""


def is_recorded(info: ValidationInfo) -> bool:
    return info.context is not None and info.context.get("recorded", False)


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_channels(value: Any) -> Any:
    if value != "rgb" and not is_count(value):
        raise ValueError(f"got {value}; expected rgb, or the number of bands")
    return value


Channels = Annotated[names.Channels, BeforeValidator(_are_channels)]


def _absolute(cache: str | None) -> str | None:
    return cache if cache in (None, "auto") else os.path.abspath(os.path.expanduser(cache))  # noqa: PTH100, PTH111 - as `FilePath`


Cache = Annotated[
    str | None, AfterValidator(_absolute), Field(min_length=1, exclude_if=lambda cache: cache is None)
]
"""A folder in which decoded images are kept, so that each is decoded once; `auto`: one below the person's own folder of caches; null: none.
Not written down where there is none."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def named_by_its_module(data: Any) -> Any:
    """The keys of a base with `module` where it is not timm's, and `model` as what it is called: `my_models.py:build`.

    Raises:
        ValueError: both are given, and do not go together.
    """
    if not isinstance(data, dict):
        return data
    model, module = data.get("model"), data.get("module")
    if module is None and isinstance(model, str) and is_factory(model):
        model, module = None, model
    if not isinstance(module, str):
        return data
    if not is_factory(module):
        raise ValueError(
            f"module: expected file.py:name or package.module:name of a function or class, got {module!r}"
        )
    if model not in (None, short_name(module)):
        raise ValueError(f"model is {model!r} and module {module!r}; expected one of them")
    return {**data, "model": short_name(module), "module": located(module)}


Module = Annotated[str | None, Field(exclude_if=lambda module: module is None)]
"""What makes a base that is not timm's; an absolute path where it is in a file. Not written down where there is none."""


class BaseSpec(Section):
    """The model to be improved."""

    model: str = "vit_small_patch16_224"
    """The name of a timm model."""
    module: Module = None
    """Instead of timm's name, a factory of yours: `my_models.py:build` or `package.module:build` (docs/own_base.md)."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to `timm.create_model`, or to the factory."""
    weights: FilePath | None = None
    """null: random; `pretrained`: timm's; else a file of weights (safetensors or a plain state dict)."""
    stage: Annotated[int, Field(exclude_if=lambda stage: stage == -1)] = -1
    """Which of timm's feature maps heads work on: -1 the last, -2 the one before. Not written down where it is the last, as of old."""

    @model_validator(mode="before")
    @classmethod
    def _is_named_by_its_module(cls, data: Any) -> Any:
        return named_by_its_module(data)

    @property
    def source(self) -> str:
        """What `headsearch.base.load_base` makes it from."""
        return self.module or self.model

    @property
    def code(self) -> list[str]:
        """Modules whose code it runs, beside ours and timm's."""
        return [] if self.module is None else [self.module]


class DataSpec(Section):
    """The images to train on, and whether labels may be read to probe the base."""

    dataset: str = "folder"
    """`digits`, `folder`, `npz`, `webdataset`, or one of timm's names (`torch/cifar10`, `hfds/...`, `wds/...`)."""
    root: FilePath | None = None
    """Where the images are."""
    image_size: Positive = 224
    """Side of the square image that the base sees, in pixels."""
    channels: Annotated[Channels, Field(exclude_if=lambda channels: channels == "rgb")] = "rgb"
    """`rgb`, or the number of bands, which are read as they are. Not written down where it is rgb, as of old."""
    labels: Literal["probe", "none"] = "probe"
    """`probe`: labels are used only to score the frozen base. `none`: no label is read."""
    unreadable: Literal["refuse", "accept"] = "refuse"
    """If a fifth of the files or more cannot be read: `refuse` ends with an error, `accept` continues without them."""
    cache: Cache = None
    """Where decoded images are kept for all trainings: a folder, or `auto` (docs/data.md). Does not affect scores."""
    augmentation: dict[str, Any] = Field(default_factory=dict)
    """Changes to the default augmentation of this kind of images."""


TOUCHES_NO_SCORE = ("unreadable", "cache")
"""Keys of `data` by whose values trainings do not differ."""


class SearchedData(DataSpec):
    """The images of a search, which may be fewer than those of the later pretraining."""

    subset: Annotated[
        Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] | None,
        Field(exclude_if=lambda subset: subset is None),
    ] = None
    """How many of the training images a search uses: a number, or a share below 1. Every trial uses the same images, balanced over the classes as far
    as possible if labels may be read. `auto`: as many as a good funnel can use within `search.budget`, a time. null: all."""


class MethodSpec(Section):
    """The self-supervised objective."""

    name: str = "mocov3"
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Options of the method, e.g. `temperature`."""


def default_rungs(epochs: int, *, stopping: bool) -> list[int]:
    """A quarter, a half and all of the epochs. If trials may be stopped: a ninth, a third and all, which saves more
    (docs/stopping.md)."""
    early = (round(epochs / 9), round(epochs / 3)) if stopping else (epochs // 4, epochs // 2)
    return sorted({max(1, early[0]), max(1, early[1]), epochs})


class ScheduleSpec(Section):
    """How base and head are trained, in a proxy, a screen or a pretraining. What is left out, or null, of the rates is the method's own
    (`headsearch.methods.METHODS`); only a resolved schedule is one of these, see `with_recipe`."""

    epochs: Positive
    batch_size: Annotated[int, Field(ge=2)]
    """Images per step over all ranks; each gives two views."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak rate, after the warm-up; null: the method's rate for 256 images times batch_size / 256."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Weight decay at the start."""
    weight_decay_end: Annotated[float, Field(ge=0)]
    """Weight decay at the end, along a cosine; null: the method's, or `weight_decay` if that is given."""
    warmup_epochs: Annotated[float, Field(ge=0)]
    """null: a tenth of `epochs`."""
    teacher_momentum: Annotated[float, Field(ge=0, lt=1)]
    """Momentum of the exponential moving average at the start; rises to 1 along a cosine."""
    clip_gradient: Annotated[float, Field(ge=0)] | None
    """Largest global norm of the gradient; left out: the method's; 0 or null: not clipped."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast where it is faster (accelerators that have it), else float32."""
    compile: Annotated[bool, Field(exclude_if=lambda compiles: not compiles)] = False
    """Whether `torch.compile` is used on base and heads: minutes at the start, then faster steps on accelerators. Not written down where it is not."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`. With several ranks on one machine, each takes the accelerator with its own number."""

    @model_validator(mode="after")
    def _the_warmup_ends(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must not exceed epochs ({self.epochs})")
        return self


TRUNK_EXPECTED = "expected {epochs: N}, a file of weights, auto or null"


class TrunkSpec(Section):
    """What proxies and screens start from, instead of the base's own start. In an experiment also a path, short for `{file: path}`."""

    epochs: Annotated[Positive | None, Field(exclude_if=lambda epochs: epochs is None)] = None
    """The base is pretrained without a head for this many epochs, once for every replicate."""
    file: Annotated[FilePath | None, Field(exclude_if=lambda file: file is None)] = None
    """Weights of such a base, safetensors or a plain state dict."""

    @model_validator(mode="before")
    @classmethod
    def _a_path_is_a_file(cls, data: Any) -> Any:
        if isinstance(data, bool | int | float | list):
            raise ValueError(f"{TRUNK_EXPECTED}, got {data!r}")
        return {"file": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _is_trained_or_given(self) -> Self:
        if (self.epochs is None) == (self.file is None):
            raise ValueError(TRUNK_EXPECTED)
        return self


TRUNK_PROXIES = 2.5
"""Epochs of a trunk where `auto` asks for one, in those of a proxy (docs/decisions/100-trunk.md)."""


class ProxySpec(ScheduleSpec):
    """The short schedule that scores a head."""

    epochs: Positive = 30
    rungs: list[Positive] = Field(
        default_factory=lambda data: default_rungs(data["epochs"], stopping=False) if "epochs" in data else []
    )
    """Epochs at which a trial is scored and may be stopped; empty: `default_rungs`."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    keep_checkpoints: bool = False
    trunk: Annotated[TrunkSpec | None, Field(exclude_if=lambda trunk: trunk is None)] = None
    """`auto` is resolved when an experiment is read. Not written down where it is null, as of old."""

    @property
    def trunk_epochs(self) -> int:
        """Epochs of the trunk that is trained first; 0 if there is none."""
        return 0 if self.trunk is None else self.trunk.epochs or 0

    @model_validator(mode="before")
    @classmethod
    def _no_rungs_are_not_given(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("rungs"):
            return {key: value for key, value in data.items() if key != "rungs"}
        return data

    @model_validator(mode="after")
    def _rungs_end_at_the_budget(self) -> Self:
        if list(self.rungs) != sorted(set(self.rungs)) or self.rungs[-1] != self.epochs:
            raise ValueError(f"rungs must rise and end at epochs ({self.epochs}), got {list(self.rungs)}")
        return self


def with_recipe(data: Any, section: str, schema: type[ScheduleSpec], *, recorded: bool = False) -> Any:
    """`data`, which holds a method and the schedule `section`, with the method's recipe where the schedule is silent.

    What is not of the right kind is left for the schema to refuse. What is `recorded` is complete, and its method may be of a plug-in.

    Raises:
        ExperimentError: a method, or an option of it, that does not exist.
    """
    if not isinstance(data, dict):
        return data
    method, given = data.get("method", {}), data.get(section, {})
    if not isinstance(method, dict) or not isinstance(given, dict):
        return data
    name = method.get("name", MethodSpec.model_fields["name"].default)
    options = method.get("kwargs", {})
    if not isinstance(name, str) or not isinstance(options, dict):
        return data
    if recorded and name not in METHODS:
        return data
    check_method(name, options)
    recipe = METHODS[name].recipe
    full = {"clip_gradient": recipe.clip_gradient, **given}
    if full.get("weight_decay") is not None and full.get("weight_decay_end") is None:
        full["weight_decay_end"] = full["weight_decay"]
    batch_size, epochs = (
        given.get(key, schema.model_fields[key].default) for key in ("batch_size", "epochs")
    )
    derived: dict[str, Any] = {
        "weight_decay": recipe.weight_decay,
        "weight_decay_end": recipe.weight_decay_end,
        "teacher_momentum": recipe.teacher_momentum,
    }
    if is_count(batch_size):
        derived["learning_rate"] = recipe.learning_rate * batch_size / _IMAGES_OF_A_RATE
    if is_count(epochs):
        derived["warmup_epochs"] = epochs / 10
    for key, value in derived.items():
        if full.get(key) is None:
            full[key] = value
    return {**data, section: full}
