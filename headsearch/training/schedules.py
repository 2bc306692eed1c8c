"""How learning rate, weight decay and the teacher's momentum change over a training run: pure functions of the step.

A run has `steps` steps, numbered from 0.
"""

from __future__ import annotations

import math


def learning_rate(step: int, *, steps: int, warmup_steps: int, peak: float) -> float:
    """Linear warm-up to `peak`, then half a cosine down to 0 (which the step after the last would have).

    The warm-up starts at peak / (warmup_steps + 1), not at 0, so that no step is wasted; step `warmup_steps` has the peak itself.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    return peak * _falling_cosine((step - warmup_steps) / max(1, steps - warmup_steps))


def teacher_momentum(step: int, *, steps: int, start: float) -> float:
    """Half a cosine from `start` up to 1 (which the step after the last would have), as in BYOL (arXiv 2006.07733)."""
    return 1.0 - (1.0 - start) * _falling_cosine(step / steps)


def weight_decay(step: int, *, steps: int, start: float, end: float) -> float:
    """Half a cosine from `start` to `end` (which the step after the last would have), as in DINO (arXiv 2104.14294)."""
    return start if start == end else end + (start - end) * _falling_cosine(step / steps)


def _falling_cosine(progress: float) -> float:
    """1 at progress 0, 0 at progress 1."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))
