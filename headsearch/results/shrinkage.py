"""Probes shrunk towards their expectation given the score: empirical Bayes. Pure.

A probe is noisy, and a score is not the gain. If the noise between seeds is large compared with how much heads differ beyond their scores, the score
decides; if it is small, the probe does. Both are estimated from the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from headsearch.results.noise import Noise

FEWEST = 6
"""With fewer heads nothing is shrunk: a line and the spread around it take three parameters."""


@dataclass(frozen=True)
class Shrunk:
    """The estimate of a head's mean over all possible seeds."""

    value: float
    """In the unit of the probes."""
    variance: float
    """Of its error."""


def shrunk(
    scores: Sequence[float | None], probes: Sequence[float], replicates: Sequence[int], noise: Noise
) -> list[Shrunk] | None:
    """Every head's probe, moved towards the line of the probes on the scores.

    With v_i = s² / n_i, the residual r_i from the line μ_i and k its degrees of freedom, the spread of heads around the line is
    A = max(0, Σ r² / k - mean v), and

        B_i = (k - 2) / k · v_i / (v_i + A)        value_i = μ_i + (1 - B_i) r_i
        variance_i = v_i (1 - B_i) + B_i² (v_i + A) h_i + 2 / (k - 2) · B_i² r_i²

    with h_i the leverage of the head in the line. (Efron and Morris, "Stein's Estimation Rule and Its Competitors", JASA 1973; the variance
    after Morris, "Parametric Empirical Bayes Inference", JASA 1983: its last term is for A being estimated.) Where any score is unknown, or
    all are the same, the line is the mean of the probes.

    Args:
        scores: label-free, one a head.
        probes: means over replicates.
        replicates: seeds behind every mean.
        noise: between seeds.

    Returns:
        One for every head, in order; None for fewer than `FEWEST`.
    """
    if len(probes) < FEWEST:
        return None
    known = [score for score in scores if score is not None]
    middle = fmean(known) if known else 0.0
    apart = [score - middle for score in known] if len(known) == len(probes) else [0.0] * len(probes)
    squares = math.fsum(x * x for x in apart)
    mean = fmean(probes)
    slope = math.fsum(x * y for x, y in zip(apart, probes, strict=True)) / squares if squares else 0.0
    leverages = [1.0 / len(probes) + (x * x / squares if squares else 0.0) for x in apart]
    line = [mean + slope * x for x in apart]
    residuals = [probe - expected for probe, expected in zip(probes, line, strict=True)]
    k = len(probes) - (2 if squares else 1)
    variances = [noise.deviation**2 / n for n in replicates]
    spread = max(0.0, math.fsum(r * r for r in residuals) / k - fmean(variances))
    found = []
    for expected, r, v, h in zip(line, residuals, variances, leverages, strict=True):
        moved = (k - 2) / k * v / (v + spread)
        variance = v * (1.0 - moved) + moved**2 * ((v + spread) * h + 2.0 / (k - 2) * r * r)
        found.append(Shrunk(expected + (1.0 - moved) * r, variance))
    return found
