"""Reads an experiment: from a file or a shipped name, with `--set key=value` overrides on top."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from headsearch.errors import ExperimentError, did_you_mean
from headsearch.experiment.schema import Experiment
from headsearch.experiment.schema_errors import one_line
from headsearch.shipped import shipped_folder, shipped_names


class _Loader(yaml.SafeLoader):
    """Safe YAML that also reads `1e-3` as the number it is; YAML 1.1 takes it for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


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
        apply_override(data, override)
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


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set the key that `key=value` names, in place. Raises `ExperimentError` where it cannot be read."""
    keys, value = _split(override)
    target = data
    for depth, key in enumerate(keys[:-1]):
        child = target.setdefault(key, {})
        if not isinstance(child, dict):
            raise ExperimentError(f"--set {override}: {'.'.join(keys[: depth + 1])} is not a section")
        target = child
    target[keys[-1]] = value
