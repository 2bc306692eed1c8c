"""Reads what a trial saw while it trained (`metrics.jsonl`), also while it is being written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headsearch.files import load_json


@dataclass(frozen=True)
class EpochPoint:
    """One epoch of training."""

    epoch: float
    loss: float | None
    images_per_second: float | None


def read_epochs(path: Path) -> tuple[EpochPoint, ...]:
    """Every epoch so far, in order; none where the trial has written nothing. A line that is not whole yet is left for the next time.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    points: dict[float, EpochPoint] = {}
    for line in lines:
        point = _epoch(line)
        if point is not None:
            # A resumed trial may write an epoch again: the last counts.
            points[point.epoch] = point
    return tuple(points[epoch] for epoch in sorted(points))


def last_epoch(path: Path) -> float | None:
    """The last complete epoch, from the end of the file alone; None where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 8192))
            tail = file.read().decode("utf-8", errors="replace")
    except OSError:
        return None
    points = [point for line in tail.splitlines() if (point := _epoch(line)) is not None]
    return points[-1].epoch if points else None


def _epoch(line: str) -> EpochPoint | None:
    try:
        data = load_json(line)
    except ValueError:
        return None
    if not isinstance(data, dict) or data.get("kind") != "epoch":
        return None
    epoch = _number(data.get("epoch"))
    if epoch is None:
        return None
    return EpochPoint(epoch, _number(data.get("loss")), _number(data.get("images_per_second")))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
