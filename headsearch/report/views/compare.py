"""Several heads of one run or more: their curves, their scores, and the differences between their configs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dash import html

from headsearch.report import figures
from headsearch.report.figures import first_trial
from headsearch.report.parts import Child, Column, Links, card, empty, figure, link, numbers, table
from headsearch.report.picture import shown
from headsearch.report.views.curves import Line, curves
from headsearch.report.views.overview import CONDITIONS, subtitle
from headsearch.results.importance import head_parameters
from headsearch.results.records import TrialRecord
from headsearch.results.row import RankRow
from headsearch.results.text import UNKNOWN, duration, number
from headsearch.runs.run import Run

MOST = 7
"""How many heads can be told apart in one figure."""


@dataclass(frozen=True)
class Chosen:
    """A head of a run."""

    run: int
    """Its position."""
    view: Run
    head_id: str
    several: bool
    """Whether more than one run is shown."""

    @property
    def name(self) -> str:
        """What it is called among others."""
        return f"{self.head_id} ({self.view.name})" if self.several else self.head_id

    @property
    def record(self) -> TrialRecord:
        """The trial that stands for it."""
        return first_trial(self.view.by_head[self.head_id])

    @property
    def row(self) -> RankRow | None:
        """Its place in the ranking; None where it has none."""
        return self.view.row_of.get(self.head_id)


def compare(views: Sequence[Run], chosen: Sequence[tuple[int, str]]) -> list[Child]:
    """The view: the runs, if there are several, and the chosen heads, each given as (position of its run, head id)."""
    heads = [
        Chosen(run, views[run], head_id, len(views) > 1)
        for run, head_id in chosen[:MOST]
        if 0 <= run < len(views) and head_id in views[run].by_head
    ]
    parts: list[Child] = [_runs(views)] if len(views) > 1 else []
    if len(heads) < 2:
        parts.append(
            empty("Choose two heads or more above: their curves, scores and configs appear side by side.")
        )
    if heads:
        lines = [Line(head.name, head.view, head.record, place) for place, head in enumerate(heads)]
        budget = max(head.view.budget for head in heads)
        parts += [curves(lines, budget=budget, prefix="compare"), _parallel(heads), _configs(heads)]
    return parts


def _runs(views: Sequence[Run]) -> Child:
    rows: list[Sequence[Child]] = []
    for place, view in enumerate(views):
        best = view.ranked[0].head_id if view.ranked else None
        links = Links(place)
        rows.append(
            [
                link(view.name, links.view("overview")),
                subtitle(view),
                CONDITIONS[view.condition][0],
                f"{view.settled}",
                duration(view.spending.seconds),
                UNKNOWN if best is None else link(html.Code(best), links.head(best)),
                view.verdict if view.records else "Nothing has been trained.",
            ]
        )
    columns = [Column("Run"), Column("What"), Column("State"), *numbers("Trainings", "Time")]
    columns += [Column("First in the ranking"), Column("Verdict")]
    points = [(view.name, row) for view in views for row in view.ranked if row.discrepancy is not None]
    labels = all(view.labels for view in views)
    told = f"Scatter of the ranked heads of {len(views)} runs, a colour and a marker a run"
    drawn = figure(figures.overlay(points, labels=labels), told, "overlay") if points else None
    note = "Scores of two runs are comparable only if base, images, method and schedule are the same."
    return card("Runs", table("Runs", columns, rows), drawn, note=note, wide=True)


def _parallel(heads: Sequence[Chosen]) -> Child:
    rows: list[tuple[str, dict[str, object]]] = []
    for head in heads:
        row, record = head.row, head.record
        values: dict[str, object] = {
            "family": record.config.family,
            "blocks": record.config.depth,
            "params": record.cost.params if record.cost else None,
            "step time": row.overhead if row else None,
            "discrepancy": row.discrepancy if row else None,
        }
        if head.view.labels:
            values |= {"k-NN %": row.knn if row else None, "linear %": row.linear if row else None}
        rows.append((head.name, values))
    told = "Parallel coordinates: each head a line over family, blocks, cost and scores. The table below has the numbers."
    note = (
        "Each axis runs from the lowest to the highest of these heads; a head without a score leaves a gap."
    )
    return card("Side by side", figure(figures.parallel(rows), told, "parallel"), note=note, wide=True)


def _configs(heads: Sequence[Chosen]) -> Child:
    settings = [head_parameters(head.record.config) for head in heads]
    names = list(dict.fromkeys(name for setting in settings for name in setting))
    rows: list[Sequence[Child]] = []
    for name in names:
        values = [shown(setting[name]) if name in setting else UNKNOWN for setting in settings]
        differs = len(set(values)) > 1
        rows.append([html.B(f"≠ {name}"), *map(html.B, values)] if differs else [name, *values])
    for name, how in (("discrepancy", ".3f"), ("probe", ".1f"), ("gain", "+.1f")):
        found = [number(getattr(head.row, name, None), how) for head in heads]
        rows.append(["probe %" if name == "probe" else name, *found])
    links = (link(head.name, Links(head.run).head(head.head_id)) for head in heads)
    columns = [Column("Parameter"), *(Column(h.name, header=to) for h, to in zip(heads, links, strict=True))]
    compared = table("Configs side by side", columns, rows)
    return card("Difference of configs", compared, note="Differences are bold and marked with ≠.", wide=True)
