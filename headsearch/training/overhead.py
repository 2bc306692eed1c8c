"""What a head costs in time: a training step with it over the same step without it, measured side by side.

What else a machine does must not count: on a CPU the processor time of this process is taken, on an accelerator its own clock, and steps with and
without the head take turns, so that what slows one slows the other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headsearch.methods.collectives import agreed
from headsearch.training.trainer import Trainer

_PAIRS = 9
_FEWEST_PAIRS = 3
_SECONDS = 2.0
"""After this time no pair beyond the fewest is begun, so that a trial is not held up."""
_STEPS = 5
"""From which the time of one is told, for plans."""


@dataclass(frozen=True)
class Overhead:
    """The time of a step with a head over that of one without, minus 1."""

    median: float
    """Over the pairs of steps."""
    spread: float
    """Half the distance between the quartiles of the pairs."""


def step_overhead(with_head: Trainer, without_head: Trainer, views: Sequence[Tensor]) -> Overhead:
    """Measure pairs of steps, in an order that changes from pair to pair. Both trainers train on: their weights are spoilt.

    The first pair is not counted: memory is laid out and kernels are chosen in it.
    """
    ratios: list[float] = []
    begun = time.perf_counter()
    for pair in range(1 + _PAIRS):
        # Ranks take every step together.
        if agreed(int(len(ratios) >= _FEWEST_PAIRS and time.perf_counter() - begun > _SECONDS)):
            break
        order = (with_head, without_head) if pair % 2 else (without_head, with_head)
        seconds = {trainer: _busy_seconds(trainer, views) for trainer in order}
        if pair > 0:
            ratios.append(seconds[with_head] / seconds[without_head] - 1.0)
    low, median, high = statistics.quantiles(ratios, n=4)
    return Overhead(median, (high - low) / 2)


def step_seconds(trainer: Trainer, views: Sequence[Tensor]) -> float:
    """Median wall time of a training step; the first is not counted. The trainer trains on: its weights are spoilt."""
    seconds = []
    for _ in range(1 + _STEPS):
        begun = time.perf_counter()
        _busy_seconds(trainer, views)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


def _busy_seconds(trainer: Trainer, views: Sequence[Tensor]) -> float:
    """What a step takes of the processor, or of the accelerator; it is over on return."""
    if trainer.device.type != "cuda":
        begun = time.process_time()
        trainer.step(views, trainer.steps - 1)
        return time.process_time() - begun
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    with torch.cuda.device(trainer.device):
        torch.cuda.synchronize()
        start.record()
        trainer.step(views, trainer.steps - 1)
        end.record()
        end.synchronize()
    return float(start.elapsed_time(end)) / 1000
