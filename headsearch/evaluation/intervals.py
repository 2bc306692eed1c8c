"""How sure a score is: 95% intervals over the test images, and over the seeds where a probe is random. Pure functions.

Every probe yields contributions: a matrix of seeds x test images whose mean is the score. For an accuracy, the contribution of an image is whether
it was classified correctly; for other scores, its jackknife pseudo-value (Tukey 1958; `segmentation.contributions`). Two sets of weights are probed with
the same seeds and images, so the contributions of their difference are the differences of their contributions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headsearch.results.noise import CONFIDENCE, two_sided_t

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What a probe found for one set of weights, in percent."""

    by_seed: tuple[float, ...]
    """The score with each seed; a probe that is not random has one."""
    contributions: Matrix
    """Of each seed and test image (K, N), in percent."""

    @property
    def score(self) -> float:
        """The mean over seeds."""
        return math.fsum(self.by_seed) / len(self.by_seed)


def margin(contributions_KN: Matrix) -> float | None:
    """Half the width of the 95% interval for the mean of contributions of K seeds x N test images.

    Seeds and images are crossed random factors. With S² the sample variance over seeds of the means over images, and T² that over images of
    the means over seeds, the variance of the mean is taken to be S²/K + T²/N. If a seed's effect differs between images, this counts the
    difference twice: the interval errs on the wide side (Owen, "The pigeonhole bootstrap", AOAS 2007, for the same
    variance by resampling). Student's t with Satterthwaite's degrees of freedom, rounded down.

    None if no noise was seen (a single image, or equal contributions): it is then unknown, not zero.
    """
    seeds, images = contributions_KN.shape
    parts = [
        (float(np.var(means, ddof=1)) / count, count - 1)
        for means, count in ((contributions_KN.mean(axis=1), seeds), (contributions_KN.mean(axis=0), images))
        if count > 1
    ]
    variance = sum(part for part, _ in parts)
    if variance <= 0.0:
        return None
    df = variance**2 / sum(part**2 / extra for part, extra in parts)
    return two_sided_t(max(int(df), 1), CONFIDENCE) * math.sqrt(variance)
