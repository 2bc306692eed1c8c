"""Keywords of a Python call as the `key=value` settings that an experiment, a pretraining or an evaluation takes on top."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import Any

from headsearch.data.names import data_named
from headsearch.errors import ExperimentError
from headsearch.plugins import located

_NAMED = {"base": "model", "method": "name"}
"""What a section stands for that is given as a name alone."""


def settings(sections: Mapping[str, Any]) -> list[str]:
    """Each section's keys as `section.key=value`, with the value as JSON, which is YAML. What is None is left out.

    >>> settings({"base": "resnet18", "proxy": {"epochs": 4}, "seed": 1, "name": None})
    ['base.model="resnet18"', 'proxy.epochs=4', 'seed=1']
    """
    lines = []
    for name, value in sections.items():
        if isinstance(value, str) and name in _NAMED:
            value = {_NAMED[name]: value}
        if isinstance(value, Mapping):
            lines += [f"{name}.{key}={_written(f'{name}.{key}', inner)}" for key, inner in value.items()]
        elif value is not None:
            lines.append(f"{name}={_written(name, value)}")
    return lines


def data_section(data: str | PathLike[str] | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The keys of `data`: a data set's name, an `.npz` file, a folder, or the keys themselves."""
    return data if data is None or isinstance(data, Mapping) else data_named(fspath(data))


def on_base(
    base: str | Mapping[str, Any] | None,
    data: str | PathLike[str] | Mapping[str, Any] | None,
    plugins: Sequence[str | PathLike[str]],
    sections: Mapping[str, Any],
) -> dict[str, Any]:
    """The arguments of `pretraining_of` and `make_plan`. Keys of `base` that name none, and all keys of `data`, are settings."""
    named = {"model": base} if isinstance(base, str) else dict(base or {})
    is_named = "model" in named or "module" in named
    images, keys = (None, data) if isinstance(data, Mapping) else (data, None)
    return {
        "base": named if is_named else None,
        "data": None if images is None else fspath(images),
        "overrides": settings({"base": {} if is_named else named, "data": keys, **sections}),
        "plugins": [located(name) for name in plugins],
    }


@contextlib.contextmanager
def as_arguments() -> Iterator[None]:
    """Have messages about settings name the argument, where the command line's name an option."""
    try:
        yield
    except ExperimentError as error:
        raise ExperimentError(str(error).removeprefix("--set ")) from None


def _written(key: str, value: Any) -> str:
    try:
        return json.dumps(value, default=_plain)
    except (TypeError, ValueError) as error:
        raise ExperimentError(f"{key}: expected plain data, got {type(value).__name__}: {error}") from None


def _plain(value: Any) -> Any:
    """Paths, and the numbers and arrays of numpy and torch."""
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not plain data")
