"""The one number by which heads are ordered where no label and no training decides: how different a head is, times how good.

In one place and pure, so that it can be replaced when there is more evidence than that of docs/evidence.md. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping

DIFFERENT = ("procrustes.embedding.output", "cka.embedding.output")
"""Discrepancies that say how different, the better first; before training only the second is measured."""


def head_score(measures: Mapping[str, float], quality: Mapping[str, float]) -> float | None:
    """Larger is better; None where one of its parts is undefined.

        procrustes.embedding.output · retrieval.head / 100

    and before training, where Procrustes is not measured, `cka.embedding.output` in its place: the two are not to be compared with each other.
    Discrepancy, since a head that sees as the base does teaches nothing; retrieval, since noise is different, too, and finds nothing.

    Args:
        measures: discrepancies by name, as `headsearch.scoring.discrepancy.MEASURES`.
        quality: by name, as `headsearch.scoring.quality.QUALITIES`; retrieval in percent.
    """
    factors = score_factors(measures, quality)
    return None if factors is None else factors[0] * factors[1] / 100.0


def score_factors(measures: Mapping[str, float], quality: Mapping[str, float]) -> tuple[float, float] | None:
    """The two numbers that `head_score` multiplies, larger being better: how different, and how good in percent."""
    different = next((measures[name] for name in DIFFERENT if name in measures), None)
    retrieval = quality.get("retrieval.head")
    return None if different is None or retrieval is None else (different, retrieval)
