"""Invented learning curves of 96 heads, to compare search policies over thousands of trials without training anything.

Comes in: assumptions and a seed. Goes out: for every head, epoch and seed a discrepancy and a probe. The shape of the curves and
the size of their noise follow short proxies on small images: between two seeds discrepancy keeps its order (Kendall's tau about
0.9) and the probe partly (0.7); discrepancy tells little about the probe (0.3). How much an early rung tells of the end is not
known well and matters most, so it is the thing to vary: `Assumptions.agreement`.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass

from headsearch.heads.config import HeadConfig, Stage

FAMILIES = ("convnext", "mixer", "mlp", "poolformer", "resnet", "swin", "vit", "mbconv")
DEPTHS = (1, 2, 3)
MLP_RATIOS = (2, 4)
SHORTCUTS = (False, True)

_UNTRAINED_PROBE = 30.0
_MEAN_ASYMPTOTE, _ASYMPTOTE_SPREAD = 65.0, 4.0
_MEAN_DISCREPANCY, _DISCREPANCY_SPREAD = 0.5, 0.12
_MEAN_SPEED, _LOG_SPEED_SPREAD = 3.0, 0.25
_DISCREPANCY_NOISE = 0.1
"""Of a seed, in units of the spread between heads: order kept between seeds at a Kendall's tau of 0.9."""


@dataclass(frozen=True)
class Assumptions:
    """What is supposed of the curves."""

    budget: int = 27
    """Epochs of a full trial."""
    agreement: float = 0.6
    """Correlation of a head's asymptote with its speed, from -1 to 1. The lower, the more curves cross and the less an early rung tells."""
    noise: float = 1.5
    """Standard deviation of the probe between seeds, in points; heads differ by 4."""
    persistence: float = 0.5
    """Share of the noise's variance that stays with a trial; the rest is drawn anew at every rung."""
    probe_discrepancy_tau: float = 0.3
    """Kendall's tau between the expected discrepancy and the expected probe."""


@dataclass(frozen=True)
class HeadCurve:
    """One head's expected curve."""

    config: HeadConfig
    asymptote: float
    """Probe after endless training, in percent."""
    speed: float
    """How often the distance to the asymptote shrinks by e over the budget."""
    untrained_discrepancy: float
    discrepancy: float
    """At full budget."""
    seconds_per_epoch: float


@dataclass(frozen=True)
class LearningCurves:
    """The curves of all heads. A head is meant by its place in `heads`."""

    heads: tuple[HeadCurve, ...]
    assumptions: Assumptions

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def best(self) -> int:
        """The head whose expected probe at full budget is highest: what a search should find."""
        return max(range(len(self)), key=self.expected_probe)

    def expected_probe(self, head: int) -> float:
        """Probe at full budget over endless seeds, in percent."""
        return self.expected(head, self.assumptions.budget)[1]

    def expected(self, head: int, epoch: int) -> tuple[float, float]:
        """Discrepancy and probe (percent) at `epoch` over endless seeds."""
        curve, progress = self.heads[head], epoch / self.assumptions.budget
        learned = 1 - math.exp(-curve.speed * progress)
        probe = _UNTRAINED_PROBE + (curve.asymptote - _UNTRAINED_PROBE) * learned
        discrepancy = (
            curve.untrained_discrepancy + (curve.discrepancy - curve.untrained_discrepancy) * progress**0.5
        )
        return discrepancy, probe

    def observed(self, head: int, epoch: int, seed: int) -> tuple[float, float]:
        """Discrepancy and probe (percent) that a trial of this head and seed measures at `epoch`."""
        discrepancy, probe = self.expected(head, epoch)
        trial, rung = random.Random(f"{seed}/{head}"), random.Random(f"{seed}/{head}/{epoch}")
        kept, fresh = math.sqrt(self.assumptions.persistence), math.sqrt(1 - self.assumptions.persistence)

        def luck() -> float:
            return kept * trial.gauss() + fresh * rung.gauss()

        return (
            discrepancy + _DISCREPANCY_SPREAD * _DISCREPANCY_NOISE * luck(),
            probe + self.assumptions.noise * luck(),
        )

    def seconds_per_epoch(self, head: int) -> float:
        """Simulated time of an epoch."""
        return self.heads[head].seconds_per_epoch


def learning_curves(seed: int, assumptions: Assumptions | None = None) -> LearningCurves:
    """Draw curves; the same seed gives the same ones. Family, depth and the other parameters each explain a part of what a head does."""
    assumptions = assumptions or Assumptions()
    rng = random.Random(seed)
    configs = [
        HeadConfig((Stage(family, {"depth": depth, "mlp_ratio": ratio, "first_shortcut": shortcut}),))
        for family, depth, ratio, shortcut in itertools.product(FAMILIES, DEPTHS, MLP_RATIOS, SHORTCUTS)
    ]
    quality, difference, start, pace = (_latent(configs, rng) for _ in range(4))
    # Kendall's tau of a bivariate normal is 2/pi * asin(correlation).
    correlation = math.sin(math.pi / 2 * assumptions.probe_discrepancy_tau)
    heads = []
    for config, good, other, first, own in zip(configs, quality, difference, start, pace, strict=True):
        different = _blend(good, other, correlation)
        heads.append(
            HeadCurve(
                config=config,
                asymptote=_MEAN_ASYMPTOTE + _ASYMPTOTE_SPREAD * good,
                speed=_MEAN_SPEED * math.exp(_LOG_SPEED_SPREAD * _blend(good, own, assumptions.agreement)),
                untrained_discrepancy=_MEAN_DISCREPANCY
                + _DISCREPANCY_SPREAD * _blend(different, first, 0.85),
                discrepancy=_MEAN_DISCREPANCY + _DISCREPANCY_SPREAD * different,
                seconds_per_epoch=1 + 0.1 * config.depth + rng.uniform(0, 0.2),
            )
        )
    return LearningCurves(tuple(heads), assumptions)


def _latent(configs: list[HeadConfig], rng: random.Random) -> list[float]:
    """A trait of every head with mean 0 and variance 1 over the heads: a sum of effects of its parameters and one of its own."""
    effects: dict[tuple[str, object], float] = {}
    values = []
    for config in configs:
        (stage,) = config.stages
        value = rng.gauss(0, 0.5)
        for name, choice, weight in [
            ("family", stage.family, 0.7),
            *((n, c, 0.3) for n, c in stage.params.items()),
        ]:
            if (name, choice) not in effects:
                effects[name, choice] = rng.gauss(0, weight)
            value += effects[name, choice]
        values.append(value)
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return [(value - mean) / spread for value in values]


def _blend(one: float, other: float, correlation: float) -> float:
    """A variate of variance 1 whose correlation with `one` is given, where `other` is independent of it."""
    return correlation * one + math.sqrt(1 - correlation**2) * other
