"""Reads what a pretraining directory says of its base. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headsearch.errors import BaseModelError


@dataclass(frozen=True)
class PretrainedBase:
    """A pretrained base on disk, and what it was trained on."""

    weights: Path
    model: str
    kwargs: dict[str, Any]
    data: dict[str, Any]
    """`dataset`, `root` and `image_size`."""
    seed: int
    """Of the cut that held images out."""
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]] | None
    """Mean and deviation of the channels."""
