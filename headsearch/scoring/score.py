"""The number that orders heads without labels: how different a head is, times how good. No torch here.

It is defined in this one place, so that it can be replaced when there is better evidence than that of docs/evidence.md.
"""

from __future__ import annotations

from collections.abc import Mapping

DIFFERENT = ("procrustes.embedding.output", "cka.embedding.output")
"""Discrepancies that say how different, the better first; before training only the second is measured."""


def head_score(measures: Mapping[str, float], quality: Mapping[str, float]) -> float | None:
    """Larger is better; None if one of its parts is undefined.

        procrustes.embedding.output · retrieval.head / 100

    Before training Procrustes is not measured, and `cka.embedding.output` takes its place; scores of the two kinds must not be compared.

    The discrepancy is there because a head that sees what the base sees teaches it nothing; retrieval is there because noise is different, too, but
    finds nothing.

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
