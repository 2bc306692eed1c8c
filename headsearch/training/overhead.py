"""What a head costs in time: a training step with it over the same step without it, measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from headsearch.training.trainer import Trainer

_ROUNDS = 5
_SECONDS = 1.5
"""No further round is begun after this time, so that a trial is not held up."""


def step_overhead(with_head: Trainer, without_head: Trainer, views: Sequence[Tensor]) -> float:
    """Median over rounds of (time with head / time without) − 1. Both trainers train on: their weights are spoilt.

    The two take turns, because a machine's speed changes with what else runs on it. One round is not counted.
    """
    ratios: list[float] = []
    begun = time.perf_counter()
    for round_index in range(1 + _ROUNDS):
        plain = _timed_step(without_head, views)
        ratio = _timed_step(with_head, views) / plain
        if round_index > 0:
            ratios.append(ratio)
            if time.perf_counter() - begun > _SECONDS:
                break
    return statistics.median(ratios) - 1.0


def step_seconds(trainer: Trainer, views: Sequence[Tensor]) -> float:
    """Median time of a training step; the first is not counted. The trainer trains on: its weights are spoilt."""
    return statistics.median([_timed_step(trainer, views) for _ in range(1 + _ROUNDS)][1:])


def _timed_step(trainer: Trainer, views: Sequence[Tensor]) -> float:
    _wait(trainer.device)
    begun = time.perf_counter()
    trainer.step(views, trainer.steps - 1)
    _wait(trainer.device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
