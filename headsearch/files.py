"""Files that are written whole or not at all, and plain data in them: read and checked, compared; versions. No torch here."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from headsearch.errors import BaseModelError, RunError, UserError

MAX_BYTES = 4_000_000
"""Of a text file that is read whole: those that people and the product write have some kilobytes."""

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_T = TypeVar("_T")

PACKAGES = ("headsearch", "torch", "torchvision", "timm", "lightly", "optuna", "numpy")
"""Those that decide the scores."""


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys below `path`, with old and new value, in which two pieces of plain data differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in (*old, *(key for key in new if key not in old)):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new


def load_json(text: str) -> Any:
    """The data in a text. Raises `ValueError` for whatever is no JSON, and for what is nested too deep to be read.

    Halves of characters, which could not be printed, are replaced.
    """
    try:
        data = json.loads(text)
        return _printable(data) if "\\ud" in text or "\\uD" in text else data
    except RecursionError:
        raise ValueError("nested too deep") from None


def _printable(data: Any) -> Any:
    if isinstance(data, str):
        return data.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(data, list):
        return [_printable(value) for value in data]
    if isinstance(data, dict):
        return {_printable(key): _printable(value) for key, value in data.items()}
    return data


def checked(kind: type[_T], data: Mapping[str, Any]) -> _T:
    """A dataclass from its fields, whose types are checked, also within. Raises `ValueError` in one line; `TypeError` where data is no mapping."""
    from pydantic import ValidationError

    hashable: Any = kind
    try:
        found: _T = _adapter(hashable).validate_python(dict(data))
        return found
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def read_text(path: Path, kind: type[UserError], label: str | None = None) -> str:
    """The text of a file in UTF-8. Never waits (for a pipe, a device), and reads no more than `MAX_BYTES`.

    Raises:
        UserError: of that kind, in one line that starts with `label`, the path unless given.
    """
    label = label or str(path)
    content = None
    try:
        if stat.S_ISREG(path.stat().st_mode):
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        # ValueError: a name with a NUL in it.
        raise kind(f"{label}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if content is None:
        what = "a folder" if path.is_dir() else "a pipe, socket or device"
        raise kind(f"{label}: cannot be read: {what}, not a file")
    if len(content) > MAX_BYTES:
        raise kind(f"{label}: cannot be read: more than {MAX_BYTES:,} bytes; expected a small text file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        raise kind(f"{label}:{line}:{column}: cannot be read: not text in UTF-8") from None


def check_weights(path: str) -> None:
    """Refuse a path of weights that is no regular file, with a `BaseModelError`: a pipe would be waited for, a device read without end."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        raise BaseModelError(f"weights: no file '{path}' (expected null, pretrained, or a file)") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BaseModelError(f"weights: '{path}' cannot be read: {reason}") from None
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise BaseModelError(f"weights: '{path}' is {kind}, expected a file")


def write_atomically(path: Path, text: str) -> None:
    """Replace the file's text, on disk before the name points to it. Raises OSError, and then leaves no temporary file."""
    write_bytes_atomically(path, text.encode())


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Have an `OSError` that is raised inside be a `RunError` in one line: the path cannot be written."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_result(path: Path, text: str) -> None:
    """As `write_atomically`, into a folder that is made where there is none. Raises `RunError`, in one line."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """As `write_atomically`, for bytes."""
    with whole_file(path, lambda: path) as file:
        file.write(content)


@contextlib.contextmanager
def whole_file(like: Path, final: Callable[[], Path]) -> Iterator[BinaryIO]:
    """A new file for what is written inside, on disk before it has its `final` name, for which it asks at the end. Until then it is beside `like` under a
    name that starts as that does, after a dot. Raises OSError; whatever is raised, no temporary file is left."""
    descriptor, name = tempfile.mkstemp(dir=like.parent, prefix=f".{like.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(final())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to be filled inside, which is at `path` afterwards: two that make it at once cannot mix, and a crash leaves no half of it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        yield whole
        whole.rename(path)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of these packages, without importing them; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
