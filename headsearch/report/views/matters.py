"""What matters: which parameters of the space explain the scores, and how certain that is."""

from __future__ import annotations

from dash import html

from headsearch.heads.config import HeadConfig
from headsearch.report import figures
from headsearch.report.figures import first_trial
from headsearch.report.parts import Child, Column, card, empty, figure, grid, numbers, table
from headsearch.results.importance import ENOUGH, Importance, importances
from headsearch.runs.run import Run

SHOWN = 6
"""For each objective, how many parameters have their marginals drawn."""


def matters(view: Run) -> list[Child]:
    """The view."""
    heads = len(view.ranked)
    if heads < 3:
        why = f"Too few to tell: {heads} of the searched heads ran their full budget. Importance needs a dozen or more"
        return [
            empty(f"{why}; heads that were stopped early do not count, because they have no final score.")
        ]
    found = {name: items for name, scores in _scores(view).items() if (items := importances(scores))}
    if not found:
        return [empty("The heads do not differ in any parameter of the space, or not in their scores.")]
    unsure = not any(item.enough for items in found.values() for item in items)
    note = [
        html.Strong(f"{heads} heads support this. "),
        html.Span("These are too few to tell: hatched bars may well be noise. ") if unsure else None,
        "The share of the variance between heads that a parameter alone explains, corrected for chance (adjusted R² of its "
        "group means): 100% explains everything, 0 is the average for a parameter without effect, and lower values are "
        f"chance. Hatched: fewer than {ENOUGH} heads beyond one per value, too few to tell. Effects of two parameters "
        "together do not show, and parameters that vary together share their credit.",
    ]
    told = "Bars: the share of the variance between heads that goes with each parameter. The table below has the numbers."
    shares = figure(figures.shares(found), told, "importance")
    marginals = [_marginal(item, name) for name, items in found.items() for item in items[:SHOWN]]
    return [card("Importance", shares, _table(found), note=note, wide=True), grid(*marginals)]


def _marginal(item: Importance, objective: str) -> Child:
    means = ", ".join(f"{group.value} mean {group.mean:.3g}" for group in item.groups)
    told = f"Scores of {item.heads} heads by {item.parameter}: {means}"
    drawn = figure(figures.marginal(item, y=objective), told, f"marginal-{objective}-{item.parameter}")
    note = None if item.enough else "Too few to tell."
    return card(f"{item.parameter} and {objective}", drawn, note=note)


def _scores(view: Run) -> dict[str, list[tuple[HeadConfig, float | None]]]:
    configs = [first_trial(view.by_head[row.head_id]).config for row in view.ranked]
    objectives = {"discrepancy": [row.discrepancy for row in view.ranked]}
    if view.labels:
        objectives["probe"] = [row.probe for row in view.ranked]
    return {name: list(zip(configs, values, strict=True)) for name, values in objectives.items()}


def _table(found: dict[str, list[Importance]]) -> Child:
    rows: list[list[Child]] = []
    for objective, item in ((name, item) for name, items in found.items() for item in items):
        share = f"{100 * item.share:.0f}%" if item.enough else "too few to tell"
        rows.append([item.parameter, objective, share, str(len(item.groups)), str(item.heads)])
    columns = [Column("Parameter"), Column("Objective"), *numbers("Share", "Values", "Heads")]
    return html.Details([html.Summary("As a table"), table("Importance", columns, rows)])
