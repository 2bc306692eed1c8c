"""Scores over epochs: a figure for each measure, with a line for each training. The same for the page of a head and for a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headsearch.report import figures
from headsearch.report.figures import Series
from headsearch.report.parts import Child, card, figure, grid
from headsearch.results.records import TrialRecord
from headsearch.runs.run import Run
from headsearch.training.trial import RungScores

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A training that is drawn."""

    name: str
    view: Run
    record: TrialRecord
    style: int
    """As `Series` has it."""


def curves(lines: Sequence[Line], *, budget: int, prefix: str) -> Child:
    """A figure for each measure that any of the trainings has; None if there is none. Their ids begin with `prefix`."""
    drawn = []
    for name, (title, axis, points) in _MEASURES.items():
        known = [Series(line.name, found, line.style) for line in lines if (found := points(line))]
        if known:
            label = f"{title} over epochs, for {', '.join(dict.fromkeys(line.name for line in known))}"
            shown = figures.curves(known, y=axis, budget=budget)
            drawn.append(card(title, figure(shown, label, f"{prefix}-{name}")))
    return grid(*drawn) if drawn else None


def _losses(line: Line) -> Points:
    logged = line.view.curve(line.record.number)
    return [(point.epoch, point.loss) for point in logged if point.loss is not None] or _scored(
        lambda rung: rung.loss
    )(line)


def _scored(score: Callable[[RungScores], float | None]) -> Callable[[Line], Points]:
    return lambda line: [
        (rung.epoch, value) for rung in line.record.rungs if (value := score(rung)) is not None
    ]


_MEASURES: dict[str, tuple[str, str, Callable[[Line], Points]]] = {
    "loss": ("Training loss", "Loss", _losses),
    "discrepancy": ("Discrepancy", "Discrepancy", _scored(lambda rung: rung.discrepancy)),
    "probe": ("Probe", "k-NN accuracy, %", _scored(lambda rung: rung.knn)),
    "effective": ("Effective rank of the base", "RankMe", _scored(lambda rung: rung.rankme_base)),
}
"""By name: title, axis, and the points of a line."""
