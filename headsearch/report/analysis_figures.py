"""Figures of what matters, and of cost. Pure functions from data to plotly figures, in the style of `figures.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from headsearch.report.figures import blank, plain, short
from headsearch.report.palette import BLUE, GREY, SERIES
from headsearch.results.importance import Importance
from headsearch.results.spending import PART_NAMES, Spending


def shares(found: Mapping[str, Sequence[Importance]]) -> go.Figure:
    """By objective, the share of the variance between heads that each parameter explains; hatched bars are too uncertain to tell."""
    names = list(dict.fromkeys(item.parameter for items in found.values() for item in items))
    height = 90 + 34 * len(names) * max(1, len(found))
    figure = blank(x="Share of the variance between heads", y=None, height=height)
    for place, (objective, items) in enumerate(found.items()):
        by_name = {item.parameter: item for item in items}
        shown = [by_name[name] for name in reversed(names) if name in by_name]
        opacity = [1.0 if item.enough else 0.3 for item in shown]
        pattern = ["" if item.enough else "/" for item in shown]
        figure.add_bar(
            name=plain(objective),
            orientation="h",
            y=[plain(item.parameter) for item in shown],
            x=[short(item.share) for item in shown],
            marker={"color": SERIES[place], "opacity": opacity, "pattern": {"shape": pattern}},
            customdata=[[item.heads, "" if item.enough else ", too few to tell"] for item in shown],
            hovertemplate="<b>%{y}</b>: %{x:.2f}<br>%{customdata[0]} heads%{customdata[1]}<extra></extra>",
        )
    figure.update_layout(barmode="group", bargap=0.3)
    figure.update_yaxes(
        showgrid=False, ticks="", categoryorder="array", categoryarray=[*map(plain, reversed(names))]
    )
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    return figure


def marginal(item: Importance, *, y: str) -> go.Figure:
    """Every head's score by the value of one parameter, and the mean of each value."""
    figure = blank(x=plain(item.parameter), y=y, height=300)
    values = [plain(group.value) for group in item.groups]
    figure.add_scatter(
        name="a head",
        x=[value for value, group in zip(values, item.groups, strict=True) for _ in group.scores],
        y=[short(score) for group in item.groups for score in group.scores],
        mode="markers",
        marker={"color": GREY, "size": 7, "opacity": 0.6},
        hovertemplate="%{x}: %{y:.4g}<extra></extra>",
    )
    figure.add_scatter(
        name="mean",
        x=values,
        y=[short(group.mean) for group in item.groups],
        mode="markers",
        marker={"color": BLUE, "symbol": "line-ew", "size": 22, "line": {"width": 3, "color": BLUE}},
        customdata=[[len(group.scores)] for group in item.groups],
        hovertemplate="%{x}: mean %{y:.4g} of %{customdata[0]} heads<extra></extra>",
    )
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=values, showgrid=False)
    return figure


def spent(found: Spending) -> go.Figure:
    """Epochs trained and not trained, by part of the search."""
    names = [plain(PART_NAMES[part.name]) for part in found.parts]
    figure = blank(x="Epochs", y=None, height=110 + 44 * len(names))
    trained = [part.epochs for part in found.parts]
    spared = [part.budget - part.epochs for part in found.parts]
    not_trained = "not trained: stopped, failed, or still to come"
    for name, values, colour, pattern in (
        ("trained", trained, BLUE, ""),
        (not_trained, spared, GREY, "/"),
    ):
        figure.add_bar(
            name=name,
            orientation="h",
            y=names,
            x=values,
            marker={"color": colour, "opacity": 1.0 if not pattern else 0.45, "pattern": {"shape": pattern}},
            hovertemplate=f"%{{y}}: %{{x}} epochs {name}<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.35)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    return figure
