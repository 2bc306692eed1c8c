"""Where the ready spaces and experiments lie: inside the installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def shipped_folder(kind: Literal["search_spaces", "experiments"]) -> Path:
    """The folder of the shipped files of a kind."""
    package = Path(__file__).parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def shipped_names(kind: Literal["search_spaces", "experiments"]) -> list[str]:
    """Names, without `.yaml`, of the shipped files of a kind, sorted."""
    return sorted(path.stem for path in shipped_folder(kind).glob("*.yaml"))
