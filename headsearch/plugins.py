"""Code that is not ours: plug-ins, and factories of bases, from a file or an installed package.

A plug-in is a module with a list `PLUGINS` of entries (`headsearch.heads.Family`, `headsearch.methods.MethodEntry`, …), each of which goes
into the registry of its kind. It is named by the path of a `.py` file, by its name in the entry points `headsearch.plugins` of an
installed package, or as a module that can be imported. No code runs unless an experiment or an option asks for it.

Runs record a digest of each module's source (`digests`), so that changed code is not taken for what a run began with. It covers the named
file alone, and not what that file imports.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType
from typing import Any

from headsearch.errors import PluginError, UserError, did_you_mean
from headsearch.registry import registry_of

GROUP = "headsearch.plugins"
"""The entry points in which installed packages name their plug-ins."""
ENTRIES = "PLUGINS"
"""The list in a plug-in."""

_loaded: dict[str, str] = {}
"""Digest by module name, of files that were loaded here."""


def load_plugins(references: Sequence[str]) -> None:
    """Make known, in this process, what these plug-ins bring. What was loaded before is not run again unless its file has changed.

    Raises:
        PluginError: one line that names the plug-in: it is not there, raises when imported, or brings something that cannot be used.
    """
    brought: dict[tuple[str, str], str] = {}
    for reference in references:
        where, name = short_name(reference), ENTRIES
        value = _entry_points().get(reference)
        if value is not None:
            reference, _, name = value.partition(":")
        module = load_module(reference)
        entries = getattr(module, name or ENTRIES, None)
        if not isinstance(entries, list | tuple) or not entries:
            raise PluginError(
                f"{where}: expected a list {name or ENTRIES} of families, methods, data sources, …, got {_kind(entries)}"
            )
        for entry in entries:
            registry = registry_of(entry)
            if registry is None:
                raise PluginError(
                    f"{where}: {_kind(entry)} in {name or ENTRIES}; expected a family, a method, a data source, …"
                )
            former = brought.setdefault((registry.what, entry.name), where)
            if former != where:
                raise PluginError(f"{where}: {registry.what} '{entry.name}' is in {former} too")
            try:
                registry.add(entry)
            except ValueError as error:
                raise PluginError(f"{where}: {error}") from None


def load_factory(reference: str) -> Any:
    """What `file.py:name` or `package.module:name` stands for. Raises `PluginError`."""
    source, _, name = reference.rpartition(":")
    module = load_module(source)
    if not callable(found := getattr(module, name, None)):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise PluginError(f"{short_name(source)}: no function or class '{name}'{did_you_mean(name, known)}")
    return found


def load_module(reference: str) -> ModuleType:
    """The module in a `.py` file, or of that name. Raises `PluginError`."""
    reference = located(reference)
    try:
        return _from_file(Path(reference)) if reference.endswith(".py") else _installed(reference)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        # What runs here is not ours, and may raise anything.
        message = " ".join(str(error).split()) or "no message"
        raise PluginError(
            f"{short_name(reference)}: {_line(error)}raises {type(error).__name__} when imported: {message}"
        ) from error


@contextlib.contextmanager
def run_by_a_guest(what: str) -> Iterator[None]:
    """Have whatever the code of a plug-in raises be a `PluginError` that names `what`; a `UserError` says enough itself."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise PluginError(f"{what} raises {type(error).__name__}: {error}") from error


def is_factory(text: str) -> bool:
    """Whether a text names something in a module, `file.py:name` or `package.module:name`, and no model of timm's.

    >>> [is_factory(text) for text in ("my.py:build", "a.b:build", "resnet18", "hf-hub:timm/resnet18", "local-dir:/a")]
    [True, True, False, False, False]
    """
    return re.fullmatch(r"(.+\.py|(?!hf_hub)[^\W\d]\w*(\.\w+)*):[^\W\d]\w*", text) is not None


def short_name(reference: str) -> str:
    """How people and files speak of a module: a file without its folder."""
    return os.path.basename(reference)  # noqa: PTH119 - what follows a colon is no path


def located(reference: str | PathLike[str], beside: Path | None = None) -> str:
    """A reference that means the same everywhere on this machine: a file as an absolute path.

    A relative path starts in the folder `beside`, or else in the working directory. A file that is gone from where it was is looked for
    in the folder `beside`.
    """
    reference = fspath(reference)
    path, colon, name = reference.rpartition(":") if not reference.endswith(".py") else (reference, "", "")
    if not path.endswith(".py"):
        return reference
    path = os.path.expanduser(path)  # noqa: PTH111 - raises where there is no such user
    if beside is not None:
        near = beside / os.path.basename(path)  # noqa: PTH119 - a text
        path = str(next((file for file in (beside / path, near) if file.is_file()), path))
    return f"{os.path.abspath(path)}{colon}{name}"  # noqa: PTH100 - links stay


def digests(references: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the source of each module, by its short name. Runs nothing of it. Raises `PluginError` where there is no such module."""
    found = {}
    for reference in references:
        reference = reference.partition(":")[0] if ".py:" not in reference else reference.rpartition(":")[0]
        found[short_name(reference)] = hashlib.sha256(_source(reference)).hexdigest()
    return found


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """What is different about the code, in words; None where nothing is."""
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            if name not in after:
                return f"without {name}"
            if name not in before:
                return f"with {name}"
            return f"with another {name} (SHA-256 {after[name][:8]}…, it was {before[name][:8]}…)"
    return None


def _from_file(path: Path) -> ModuleType:
    name = path.stem.replace(".", "_")
    source = _source(str(path))
    digest = hashlib.sha256(source).hexdigest()
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path) and _loaded.get(name) == digest:
        return known
    if name not in _loaded:
        found = known.__spec__ if known is not None else importlib.util.find_spec(name)
        if known is not None or (found is not None and found.origin != str(path)):
            raise PluginError(f"{path}: there is a module '{name}' already; rename the file")
    spec = importlib.util.spec_from_file_location(name, path, loader=_Uncached(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # What it imports may lie beside it; and a process that is started from this one finds it by name.
    folder = str(path.parent)
    known_folder = folder in sys.path
    if not known_folder:
        sys.path.append(folder)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        if not known_folder:
            sys.path.remove(folder)
        raise
    _loaded[name] = digest
    return module


class _Uncached(SourceFileLoader):
    """Leaves no compiled file beside the source, and takes none for it."""

    def path_stats(self, path: Any) -> Any:
        raise OSError


def _installed(name: str) -> ModuleType:
    spec = _spec(name)
    if spec is None:
        known = sorted(_entry_points())
        raise PluginError(
            f"{name}: no module or installed plug-in of that name; expected a path that ends in .py, or a name that can be imported"
            + (did_you_mean(name, known) if known else "")
        )
    return importlib.import_module(name)


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            return None
        raise
    except ValueError:
        return None


def _source(reference: str) -> bytes:
    """The source of a module. Raises `PluginError` where it cannot be found or read."""
    value = _entry_points().get(reference)
    if value is not None:
        reference = value.partition(":")[0]
    path = reference
    if not reference.endswith(".py"):
        spec = _spec(reference)
        if spec is None or spec.origin is None:
            raise PluginError(f"{reference}: no module or installed plug-in of that name")
        path = spec.origin
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise PluginError(f"{path}: cannot be read: {error.strerror or error}") from None


def _entry_points() -> dict[str, str]:
    return {point.name: point.value for point in importlib.metadata.entry_points(group=GROUP)}


def _line(error: BaseException) -> str:
    """`line N ` of the file that an error comes from, where it is known."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".py")]
    own = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    if isinstance(error, SyntaxError):
        return f"line {error.lineno} "
    return f"line {own[0].lineno} " if own else ""


def _kind(value: object) -> str:
    return "none" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
