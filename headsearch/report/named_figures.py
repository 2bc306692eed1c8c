"""The figures of a run by name, for use outside of the report: in notebooks, and as artifacts of a callback."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from headsearch.errors import RunError, did_you_mean
from headsearch.report import figures
from headsearch.report.figures import Series, first_trial
from headsearch.runs.run import Run

BEST = 4
"""Heads whose curves are drawn."""


def named_figure(run: Run, name: str) -> go.Figure:
    """One of `FIGURES`. Raises `RunError` where there is none of this name."""
    make = FIGURES.get(name)
    if make is None:
        raise RunError(f"no figure '{name}'{did_you_mean(name, FIGURES)}")
    return make(run)


def _curves(run: Run) -> go.Figure:
    """The k-NN accuracy of the best heads and of the controls over epochs; without labels their discrepancy."""
    heads = [first_trial(run.by_head[row.head_id]) for row in run.ranked[:BEST]]
    controls = [first_trial(run.by_head[row.head_id]) for row in run.controls]
    styled = [*enumerate(heads), *((-1 - place, record) for place, record in enumerate(controls))]
    series = []
    for style, record in styled:
        scores = [(rung.epoch, rung.knn if run.labels else rung.discrepancy) for rung in record.rungs]
        points = [(epoch, score) for epoch, score in scores if score is not None]
        name = f"control {record.control}" if style < 0 else record.head_id
        series.append(Series(name, points, style))
    y = "Probe: k-NN accuracy of the base, %" if run.labels else "Discrepancy"
    return figures.curves([line for line in series if line.points], y=y, budget=run.budget)


FIGURES: Mapping[str, Callable[[Run], go.Figure]] = {
    "overview": figures.pareto,
    "curves": _curves,
    "cost": lambda run: figures.spent(run.spending),
}
