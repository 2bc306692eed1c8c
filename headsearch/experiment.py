"""The experiment: one YAML file that says which base, which images, which method, how long, and how to search.

Comes in: a path or a shipped name, and `--set key=value` overrides. Goes out: an `Experiment`, complete and checked, that can
be written back so that a run tells exactly what it did. Nothing here builds a model or opens an image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from headsearch.errors import ExperimentError, did_you_mean
from headsearch.schema_errors import one_line
from headsearch.shipped import shipped_folder, shipped_names

_Positive = Annotated[int, Field(ge=1)]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


class _Loader(yaml.SafeLoader):
    """Safe YAML that also reads `1e-3` as the number it is; YAML 1.1 takes it for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BaseSpec(_Section):
    """The timm model to be improved."""

    model: str = "vit_small_patch16_224"
    """timm's name."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to `timm.create_model`."""
    weights: str | None = None
    """null: random; `pretrained`: timm's; else a file of weights (safetensors or a plain state dict)."""


class DataSpec(_Section):
    """The images to learn from, and whether labels may be read to probe the base."""

    dataset: str = "folder"
    """`digits`, `folder`, `npz`, or one of timm's names (`torch/cifar10`, `hfds/...`, `wds/...`)."""
    root: str | None = None
    """Where the images lie."""
    image_size: _Positive = 224
    """Side of the square image that the base sees, in pixels."""
    labels: Literal["probe", "none"] = "probe"
    """`probe`: labels score the frozen base and nothing else. `none`: no label is read."""
    augmentation: dict[str, Any] = Field(default_factory=dict)
    """Changes to the default augmentation of this kind of images."""


class MethodSpec(_Section):
    """The self-supervised objective."""

    name: str = "mocov3"
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Options of the method, e.g. `temperature`."""


def default_rungs(epochs: int, *, stopping: bool) -> list[int]:
    """A quarter, a half and all of the epochs; where trials may be stopped a ninth, a third and all, which saves more
    (docs/stopping.md)."""
    early = (round(epochs / 9), round(epochs / 3)) if stopping else (epochs // 4, epochs // 2)
    return sorted({max(1, early[0]), max(1, early[1]), epochs})


class ProxySpec(_Section):
    """The short schedule that scores a head."""

    epochs: _Positive = 30
    rungs: list[_Positive] = Field(default_factory=list)
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
        if _is_count(epochs):
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


class HalvingSpec(_Section):
    """Asynchronous successive halving: at every rung the best `1/reduction` so far go on."""

    kind: Literal["asha"] = "asha"
    reduction: Annotated[int, Field(ge=2)] = 3


class NoStoppingSpec(_Section):
    """Every trial runs its full budget."""

    kind: Literal["none"] = "none"


class InlineSpec(_Section):
    """Trials run one after the other in this process."""

    kind: Literal["inline"] = "inline"


class ProcessSpec(_Section):
    """Trials run in worker processes on this machine."""

    kind: Literal["process"] = "process"
    workers: _Positive = 2
    """They divide the cores among them."""
    workers_per_gpu: _Positive = 1
    """How many may share a GPU, where trials run on GPUs."""
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial whose worker was lost is taken up by another."""
    timeout: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds without a sign of life after which a worker is lost. Reading the images and scoring a rung give none meanwhile."""


Control = Literal["none", "same", "mlp"]
_CONTROLS: list[Control] = ["none", "same", "mlp"]
Sampler = Literal["tpe", "random", "nsga2", "gp", "grid"]


class SearchSpec(_Section):
    """How candidates are chosen, compared and run."""

    space: str = "paper"
    """A shipped name or a path."""
    strategy: Literal["proxies"] = "proxies"
    """`proxies`: every head is scored by a proxy of its own."""
    sampler: Sampler = "tpe"
    trials: _Positive = 24
    """Distinct heads to train; controls and replicates are not counted."""
    finalists: Annotated[int, Field(ge=0)] = 3
    """The best heads, and the controls, are re-run until each has `replicates` seeds."""
    replicates: _Positive = 3
    controls: list[Control] = Field(default_factory=lambda: _CONTROLS.copy())
    """Run before anything else."""
    discrepancy: str = "cka.embedding.output"
    """The measure that ranks: `<cka|mutual_knn|procrustes>.<embedding|tokens>.<output|change>`."""
    stopping: Annotated[HalvingSpec | NoStoppingSpec, Field(discriminator="kind")] = HalvingSpec()
    """Whether trials may end before their full budget. Controls and replicates never do."""
    executor: Annotated[InlineSpec | ProcessSpec, Field(discriminator="kind")] = InlineSpec()
    storage: str | None = None
    """null: study.db in the run directory; or any Optuna storage URL."""

    @model_validator(mode="before")
    @classmethod
    def _no_finalists_no_replicates(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("finalists") == 0 and "replicates" not in data:
            return {**data, "replicates": 1}
        return data

    @model_validator(mode="after")
    def _replicates_need_finalists(self) -> SearchSpec:
        if self.replicates > 1 and self.finalists == 0:
            raise ValueError(f"replicates: {self.replicates} needs finalists of at least 1, got 0")
        if len(set(self.controls)) != len(self.controls):
            raise ValueError(f"controls must not repeat, got {self.controls}")
        return self


class Experiment(_Section):
    """Everything that decides the outcome of a search."""

    experiment: Literal["headsearch/experiment@1"] = "headsearch/experiment@1"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "headsearch"
    base: BaseSpec = Field(default_factory=BaseSpec)
    data: DataSpec = Field(default_factory=DataSpec)
    method: MethodSpec = Field(default_factory=MethodSpec)
    proxy: ProxySpec = Field(default_factory=lambda: ProxySpec.model_validate({}))
    search: SearchSpec = Field(default_factory=SearchSpec)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="before")
    @classmethod
    def _rungs_suit_the_stopping(cls, data: Any) -> Any:
        # Here and not in the proxy's own section, because it takes two sections to know.
        if not isinstance(data, dict):
            return data
        proxy, search = data.get("proxy", {}), data.get("search", {})
        if not isinstance(proxy, dict) or not isinstance(search, dict) or proxy.get("rungs"):
            return data
        stopping = search.get("stopping", {"kind": "asha"})
        epochs = proxy.get("epochs", ProxySpec.model_fields["epochs"].default)
        if isinstance(stopping, dict) and stopping.get("kind") == "asha" and _is_count(epochs):
            return {**data, "proxy": {**proxy, "rungs": default_rungs(epochs, stopping=True)}}
        return data

    def to_yaml(self) -> str:
        """The experiment with every key, as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=110)


def load_experiment(source: str | Path | None, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment and apply overrides.

    Args:
        source: a path, a shipped name (`digits`), or None for the defaults alone.
        overrides: `key=value` with dotted keys; the value is YAML. Choosing another `base.model`, `data.dataset` or
            `search.executor.kind` lets go of the file's other keys of that section, which belong to the former choice.

    Raises:
        ExperimentError: one line that says where and what is wrong.
    """
    label = "experiment" if source is None else str(source)
    data: dict[str, Any] = {}
    lines: dict[str, int] = {}
    if source is not None:
        path = _find(source)
        data, lines = _read(path, label)
        _look_beside(path, data)
    for override in overrides:
        _drop_what_belonged_to_the_former_choice(data, override)
    if any(_split(override)[0] == ["proxy", "epochs"] for override in overrides):
        # Rungs and warm-up belong to a budget: with another one they are derived anew, unless given too.
        data["proxy"] = {
            key: value
            for key, value in data.get("proxy", {}).items()
            if key not in ("rungs", "warmup_epochs")
        }
    for override in overrides:
        _apply(data, override)
    return parse_experiment(data, label, lines)


def parse_experiment(
    data: Mapping[str, Any], label: str = "experiment", lines: Mapping[str, int] | None = None
) -> Experiment:
    """Check plain data against the schema. Errors start with `label`, and the line where one is known."""
    try:
        return Experiment.model_validate(dict(data))
    except ValidationError as error:
        raise ExperimentError(one_line(error, Experiment, label, lines or {})) from None


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    shipped = shipped_folder("experiments") / f"{path.name.removesuffix('.yaml')}.yaml"
    if shipped.is_file() and (path.parent == Path() or path.parent == Path("experiments")):
        return shipped
    if path.exists():
        raise ExperimentError(f"{source}: not a file; an experiment is a YAML file")
    hint = did_you_mean(path.name.removesuffix(".yaml"), shipped_names("experiments"))
    raise ExperimentError(f"{source}: no such experiment, neither a file nor a shipped one{hint}")


def _read(path: Path, label: str) -> tuple[dict[str, Any], dict[str, int]]:
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        data = _load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(
            f"{label}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{label}:{mark.line + 1}:{mark.column + 1}" if mark else label
        raise ExperimentError(f"{where}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ExperimentError(f"{label}: not valid YAML: {' '.join(str(error).split())}") from None
    if data is None:
        raise ExperimentError(
            f"{label}: the file is empty; expected an experiment (headsearch init writes one)"
        )
    if not isinstance(data, dict):
        raise ExperimentError(f"{label}:1: expected keys and values, got {type(data).__name__}")
    return data, _lines(node)


def _lines(node: yaml.Node | None, prefix: str = "") -> dict[str, int]:
    """The line of every key, by its dotted path."""
    found: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            found[path] = key.start_mark.line + 1
            found |= _lines(value, f"{path}.")
    return found


def _look_beside(path: Path, data: dict[str, Any]) -> None:
    """A space named by a file that lies beside the experiment is found from any working directory."""
    search = data.get("search")
    if isinstance(search, dict) and isinstance(search.get("space"), str):
        beside = path.parent / search["space"]
        if beside.is_file():
            search["space"] = str(beside)


def _split(override: str) -> tuple[list[str], Any]:
    key, separator, text = override.partition("=")
    if not separator or not all(part for part in key.strip().split(".")):
        raise ExperimentError(f"--set {override}: expected key=value, e.g. --set proxy.epochs=4")
    try:
        return key.strip().split("."), _load(text)
    except yaml.YAMLError:
        raise ExperimentError(f"--set {override}: the value is not valid YAML") from None


_CHOOSERS = {
    ("base",): "model",
    ("data",): "dataset",
    ("method",): "name",
    ("search", "stopping"): "kind",
    ("search", "executor"): "kind",
}
"""The key of a section that decides what its other keys mean."""


def _drop_what_belonged_to_the_former_choice(data: dict[str, Any], override: str) -> None:
    (*section, chooser), value = _split(override)
    if not section or _CHOOSERS.get(tuple(section)) != chooser:
        return
    parent: Any = data
    for key in section[:-1]:
        parent = parent.get(key) if isinstance(parent, dict) else None
    former = parent.get(section[-1]) if isinstance(parent, dict) else None
    if isinstance(former, dict) and former.get(chooser) != value:
        parent[section[-1]] = {}


def _apply(data: dict[str, Any], override: str) -> None:
    keys, value = _split(override)
    target = data
    for depth, key in enumerate(keys[:-1]):
        child = target.setdefault(key, {})
        if not isinstance(child, dict):
            raise ExperimentError(f"--set {override}: {'.'.join(keys[: depth + 1])} is not a section")
        target = child
    target[keys[-1]] = value
