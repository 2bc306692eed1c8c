"""Reads an experiment: from a file or a shipped name, with `--set key=value` overrides on top."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headsearch.data.names import data_named
from headsearch.document import MapNode, parse, plain, read_mapping, refuse_another, shorten
from headsearch.errors import ExperimentError, did_you_mean
from headsearch.experiment.budget import SIZES
from headsearch.experiment.schema import Experiment
from headsearch.experiment.schema_errors import checked
from headsearch.experiment.sections import RECORDED
from headsearch.plugins import is_factory, load_plugins, located
from headsearch.shipped import shipped_folder, shipped_names


def load_experiment(
    source: str | Path | None, overrides: Sequence[str] = (), *, plugins: Sequence[str] = ()
) -> Experiment:
    """Read an experiment, apply overrides, and load its plug-ins.

    Args:
        source: a path, a shipped name (`digits`), or None for the defaults alone.
        overrides: `key=value` with dotted keys; the value is YAML. Choosing another `base.model`, `data.dataset` or
            `search.executor.kind` lets go of the file's other keys of that section, which belong to the former choice. Of `data`, `labels` stays, and
            so does `image_size` unless the base is chosen as well: the file's base is made for images of that size. Other `proxy.epochs`
            let go of the file's rungs and warm-up, and another `search.budget` of its sizes of a funnel.
        plugins: more of them than the file names.

    Raises:
        ExperimentError: one line that says where and what is wrong.
        PluginError: a plug-in cannot be loaded.
    """
    label = "experiment" if source is None else str(source)
    data: dict[str, Any] = {}
    root: MapNode | None = None
    if source is not None:
        path = _find(source)
        expected = "an experiment (headsearch init writes one)"
        root = read_mapping(path, ExperimentError, expected, label)
        refuse_another(root, "experiment", expected)
        data = plain(root)
        _look_beside(path, data)
    changes = [_split(override) for override in overrides]
    new_base = any(keys in (["base", "model"], ["base", "module"]) for keys, _ in changes)
    for keys, value in changes:
        _drop_what_belonged_to_the_former_choice(data, keys, value, new_base=new_base)
    for keys, value in changes:
        for *section, derived in () if value is None else _DERIVED.get(tuple(keys), ()):
            _section(data, section).pop(derived, None)
    for override in overrides:
        apply_override(data, override)
    if plugins:
        data["plugins"] = list(dict.fromkeys([*(_named(data) or ()), *map(located, plugins)]))
    load_plugins(_named(data) or ())
    return checked(Experiment, data, label, ExperimentError, root=root, overrides=overrides)


def unless_named(dataset: str | None) -> str | None:
    """The experiment where none is named: `digits` for the data set of that name and where there is none, else the defaults alone."""
    return "digits" if dataset in (None, "digits") else None


def shorthand(base: str | None, data: str | None) -> list[str]:
    """A timm name, and images as `data_named` takes them, as overrides; None leaves what the experiment has."""
    given = [] if base is None else [f"base.model={json.dumps(base)}"]
    named = {} if data is None else data_named(data)
    return given + [f"data.{key}={json.dumps(value)}" for key, value in named.items()]


def parse_experiment(data: Mapping[str, Any], label: str = "experiment") -> Experiment:
    """Check plain data against the schema, and load the plug-ins that it names. Errors start with `label`."""
    load_plugins(_named(data) or ())
    return checked(Experiment, data, label, ExperimentError)


def recorded_experiment(path: Path) -> Experiment:
    """The experiment that a run has written down, without its plug-ins. Raises `ExperimentError`."""
    root = read_mapping(path, ExperimentError, "an experiment as headsearch run writes them")
    return checked(Experiment, plain(root), str(path), ExperimentError, root=root, context=RECORDED)


def _named(data: Mapping[str, Any]) -> list[str] | None:
    """The plug-ins that plain data name, located; None where the schema will refuse them."""
    named = data.get("plugins")
    if isinstance(named, list) and all(isinstance(name, str) for name in named):
        return [located(name) for name in named]
    return None


def _find(source: str | Path) -> Path:
    path = Path(source)
    if os.path.lexists(path):
        return path
    shipped = shipped_folder("experiments") / f"{path.name.removesuffix('.yaml')}.yaml"
    if os.path.isfile(shipped) and path.parent in (Path(), Path("experiments")):  # noqa: PTH113, as below
        return shipped
    hint = did_you_mean(path.name.removesuffix(".yaml"), shipped_names("experiments"))
    raise ExperimentError(f"{source}: no such experiment, neither a file nor a shipped one{hint}")


def _look_beside(path: Path, data: dict[str, Any]) -> None:
    """A space, a plug-in or a base, named by a file that lies beside the experiment, is found from any working directory."""
    base = data.get("base")
    if isinstance(base, dict):
        for key in ("model", "module"):
            if isinstance(base.get(key), str) and is_factory(base[key]):
                base[key] = located(base[key], path.parent)
    plugins = data.get("plugins")
    if isinstance(plugins, list):
        data["plugins"] = [located(name, path.parent) if isinstance(name, str) else name for name in plugins]
    search = data.get("search")
    if isinstance(search, dict) and isinstance(search.get("space"), str):
        beside = path.parent / search["space"]
        if os.path.isfile(beside):  # noqa: PTH113, Path.is_file raises for a name that is too long
            search["space"] = str(beside)


def _split(override: str) -> tuple[list[str], Any]:
    key, separator, text = override.partition("=")
    keys = key.strip().split(".")
    shown = f"--set {shorten(override)}"
    if not separator or not all(keys):
        raise ExperimentError(f"{shown}: expected key=value, e.g. --set proxy.epochs=4")
    return keys, plain(parse(text, shown, ExperimentError)) if text.strip() else None


_CHOOSERS = {
    ("base",): ("model", "module"),
    ("data",): ("dataset",),
    ("method",): ("name",),
    ("search", "stopping"): ("kind",),
    ("search", "executor"): ("kind",),
}
"""Keys of a section that decide what its other keys mean."""

_DERIVED: Mapping[tuple[str, ...], Sequence[tuple[str, ...]]] = {
    ("proxy", "epochs"): [("proxy", "rungs"), ("proxy", "warmup_epochs")],
    ("search", "budget"): [
        ("search", "screen", "heads") if size == "screen" else ("search", size) for size in SIZES
    ],
}
"""Keys whose new value has others derived anew, unless they are given too."""


def _section(data: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A section of the data itself, to be changed in place; an empty one where there is none."""
    found: Any = data
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _drop_what_belonged_to_the_former_choice(
    data: dict[str, Any], keys: Sequence[str], value: Any, *, new_base: bool
) -> None:
    *section, chooser = keys
    former = _section(data, section)
    if chooser not in _CHOOSERS.get(tuple(section), ()) or former.get(chooser) == value:
        return
    kept = () if section != ["data"] else ("labels",) if new_base else ("labels", "image_size")
    for key in former.keys() - set(kept):
        del former[key]


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set the key that `key=value` names, in place. Raises `ExperimentError` where it cannot be read."""
    keys, value = _split(override)
    target = data
    for depth, key in enumerate(keys[:-1]):
        child = target.setdefault(key, {})
        if not isinstance(child, dict):
            raise ExperimentError(
                f"--set {shorten(override)}: {'.'.join(keys[: depth + 1])} is not a section, it holds {shorten(repr(child))}"
            )
        target = child
    target[keys[-1]] = value
