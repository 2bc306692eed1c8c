"""Figures of what a search found, for the dashboard and the report. Pure functions from data to plotly figures.

Everything that comes from a run is escaped, since plotly interprets some HTML in names, labels and hover texts. The style sheet of the page sets the
colours of text and grids.
"""

from __future__ import annotations

import html
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from headsearch.report.palette import BLUE, CONTROL_MARKERS, DASHES, GREY, MARKERS, SERIES, family_styles
from headsearch.results.importance import Importance
from headsearch.results.records import TrialRecord
from headsearch.results.row import RankRow
from headsearch.results.spending import PART_NAMES, Spending
from headsearch.results.text import gain, number
from headsearch.runs.run import Run
from headsearch.training.trial import RungScores

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'
_INK, _GRID, _AXIS = "#6B7280", "rgba(134,142,153,.22)", "rgba(134,142,153,.6)"


@dataclass(frozen=True)
class Series:
    """One line of a figure."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int
    """Which colour and dash: 0 for the subject, further ones by order; -1, -2, … are grey."""


def plain(text: object) -> str:
    """Text that plotly shows as it is."""
    return html.escape(str(text), quote=False)


def pareto(view: Run) -> go.Figure:
    """Discrepancy against probe: one point per head, the Pareto front, the controls, and, faintly, stopped trials at their last rung.

    Without labels, the effective rank of the head's embeddings takes the place of the probe: it shows heads that have merely collapsed.
    """
    figure = blank(
        x="Discrepancy: how differently the head sees",
        y="Probe: k-NN accuracy of the base, %" if view.labels else "RankMe of the head's embeddings",
        height=460,
    )
    heads = [row for row in view.ranked if row.discrepancy is not None and _height(view, row) is not None]
    styles = family_styles({record.config.family for record in view.records})
    _stopped(figure, view, styles)
    if view.labels:
        _front(figure, heads)
    families: dict[str, list[RankRow]] = defaultdict(list)
    for row in heads:
        families[row.family].append(row)
    for family in sorted(families):
        colour, marker = styles[family]
        rows = families[family]
        size, opacity = (11, 0.95) if len(heads) < 200 else (7, 0.75)
        figure.add_scatter(
            name=plain(family),
            x=_array([short(row.discrepancy) for row in rows]),
            y=_array([short(_height(view, row)) for row in rows]),
            mode="markers",
            marker={"color": colour, "symbol": marker, "size": size, "opacity": opacity},
            error_y=_errors(rows) if view.labels and len(heads) < 200 else None,
            customdata=_array([[plain(row.head_id), row.rank, _told(row, view)] for row in rows]),
            hovertemplate="<b>%{customdata[0]}</b><br>rank %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
        )
    _controls(figure, view)
    return figure


def curves(series: Sequence[Series], *, y: str, budget: int = 0) -> go.Figure:
    """Scores over epochs: the subject in colour, what it is compared with in grey."""
    figure = blank(x="Epoch", y=y, height=300)
    for line in series:
        grey = line.style < 0
        place = -line.style - 1 if grey else line.style
        colour = GREY if grey else SERIES[place % len(SERIES)]
        dash = DASHES[(place + 1 if grey else place) % len(DASHES)]
        figure.add_scatter(
            name=plain(line.name),
            x=[short(x) for x, _ in line.points],
            y=[short(y) for _, y in line.points],
            mode="lines" if len(line.points) > 12 else "lines+markers",
            line={"color": colour, "width": 1.5 if grey else 2.5, "dash": dash},
            marker={"symbol": MARKERS[place % len(MARKERS)], "size": 7},
            hovertemplate=f"{plain(line.name)}<br>epoch %{{x}}: %{{y:.4g}}<extra></extra>",
        )
    if budget:
        figure.update_xaxes(range=[0, budget * 1.03])
    return figure


def parallel(rows: Sequence[tuple[str, Mapping[str, object]]]) -> go.Figure:
    """Heads as lines over several axes, one for each property; each axis runs from its lowest to its highest value.

    Args:
        rows: (name, values by axis). Numbers are placed by size, anything else by order of name; None leaves a gap.
    """
    figure = blank(x=None, y=None, height=360)
    axes = list(dict.fromkeys(name for _, values in rows for name in values))
    scales = {axis: _Scale([values.get(axis) for _, values in rows]) for axis in axes}
    for place, (name, values) in enumerate(rows):
        figure.add_scatter(
            name=plain(name),
            x=list(range(len(axes))),
            y=[scales[axis].place(values.get(axis)) for axis in axes],
            mode="lines+markers",
            line={"color": SERIES[place % len(SERIES)], "dash": DASHES[place % len(DASHES)], "width": 2.5},
            marker={"symbol": MARKERS[place % len(MARKERS)], "size": 9},
            customdata=[[plain(axis), plain(_value(values.get(axis)))] for axis in axes],
            hovertemplate=f"<b>{plain(name)}</b><br>%{{customdata[0]}}: %{{customdata[1]}}<extra></extra>",
        )
    for place, axis in enumerate(axes):
        figure.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line={"color": _AXIS, "width": 1})
        for end, text in ((0, scales[axis].low), (1, scales[axis].high)):
            shift, font = 14 if end else -14, {"size": 11}
            figure.add_annotation(x=place, y=end, text=plain(text), showarrow=False, yshift=shift, font=font)
    named = {"tickvals": list(range(len(axes))), "ticktext": list(map(plain, axes)), "ticks": ""}
    placed = {"side": "top", "ticklabelstandoff": 22, "range": [-0.3, len(axes) - 0.7]}
    figure.update_xaxes(**named, **placed, showgrid=False, showline=False)
    figure.update_yaxes(visible=False, range=[-0.12, 1.12])
    figure.update_layout(legend={"y": -0.02, "yanchor": "top"})
    return figure


def overlay(points: Sequence[tuple[str, RankRow]], *, labels: bool) -> go.Figure:
    """The heads of several runs in one plane, with a colour and a marker for each run."""
    figure = blank(x="Discrepancy", y="Probe, %" if labels else "Parameters of the head", height=420)
    for place, name in enumerate(dict.fromkeys(name for name, _ in points)):
        rows = [row for run, row in points if run == name]
        figure.add_scatter(
            name=plain(name),
            x=[short(row.discrepancy) for row in rows],
            y=[short(row.probe) if labels else row.params for row in rows],
            mode="markers",
            marker={"color": SERIES[place % len(SERIES)], "symbol": MARKERS[place], "size": 9},
            customdata=[[plain(row.head_id)] for row in rows],
            hovertemplate="<b>%{customdata[0]}</b><br>discrepancy %{x:.3f}<br>%{y:.4g}<extra></extra>",
        )
    return figure


def blank(*, x: str | None, y: str | None, height: int) -> go.Figure:
    """An empty figure in our style; `x` and `y` name its axes, `height` is in pixels."""
    axis = {"gridcolor": _GRID, "linecolor": _AXIS, "tickcolor": _AXIS, "ticks": "outside", "ticklen": 4}
    axis |= {"showline": True, "zeroline": False, "automargin": True}
    hover = {"bgcolor": "#1B2127", "bordercolor": "#1B2127", "font": {"color": "#FFFFFF", "size": 13}}
    layout: dict[str, Any] = {
        "template": "none",
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": _INK},
        "hoverlabel": hover,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"},
        "hovermode": "closest",
        # What the reader has zoomed into stays as it is when new trials come in.
        "uirevision": "same",
        "xaxis": {**axis, "title": {"text": x, "standoff": 10, "font": {"size": 13}}},
        "yaxis": {**axis, "title": {"text": y, "standoff": 8, "font": {"size": 13}}},
    }
    return go.Figure(layout=layout)


def _stopped(figure: go.Figure, view: Run, styles: Mapping[str, tuple[str, str]]) -> None:
    # A trace a family: a marker for each point would take plotly seconds to check.
    families: dict[str, list[tuple[TrialRecord, float, float]]] = defaultdict(list)
    for record in view.records:
        if record.state != "stopped" or not record.rungs or record.stage != "proxy":
            continue
        x, y = record.rungs[-1].discrepancy, _scored(view, record.rungs[-1])
        if x is not None and y is not None:
            families[record.config.family].append((record, x, y))
    for place, (family, group) in enumerate(families.items()):
        colour, marker = styles[family]
        figure.add_scatter(
            name="stopped early, at its last rung",
            legendgroup="stopped",
            showlegend=place == 0,
            x=_array([short(x) for _, x, _ in group]),
            y=_array([short(y) for _, _, y in group]),
            mode="markers",
            marker={"color": colour, "symbol": f"{marker}-open", "size": 7, "opacity": 0.4},
            customdata=_array([[plain(record.head_id), record.rungs[-1].epoch] for record, _, _ in group]),
            hovertemplate="<b>%{customdata[0]}</b><br>stopped at epoch %{customdata[1]}<br>"
            "discrepancy %{x:.3f}, %{y:.1f}<extra></extra>",
        )


def _front(figure: go.Figure, heads: Sequence[RankRow]) -> None:
    points = ((row.discrepancy, row.probe) for row in heads if row.pareto_layer == 1)
    front = sorted(points, key=lambda point: point[0] or 0.0)
    if len(front) < 2:
        return
    figure.add_scatter(
        name="Pareto front",
        x=[short(x) for x, _ in front],
        y=[short(y) for _, y in front],
        mode="lines",
        # Between two heads nothing was found, so the front is a staircase and not a slope.
        line={"color": GREY, "width": 1.5, "dash": "dot", "shape": "vh"},
        hoverinfo="skip",
    )


def _controls(figure: go.Figure, view: Run) -> None:
    for row in view.controls:
        height = _height(view, row)
        if row.control is None or height is None:
            continue
        if row.discrepancy is None:
            figure.add_hline(y=height, line={"color": GREY, "width": 1.5, "dash": "dash"})
            figure.add_annotation(
                x=1, xref="paper", xanchor="right", y=height, yanchor="bottom", showarrow=False,
                text=f"control none {height:.1f}", font={"size": 12},
            )  # fmt: skip
            continue
        symbol = CONTROL_MARKERS.get(row.control, "circle-open")
        figure.add_scatter(
            name=f"control {plain(row.control)}",
            x=[short(row.discrepancy)],
            y=[short(height)],
            mode="markers+text",
            text=[plain(row.control)],
            textposition="middle right",
            marker={"symbol": symbol, "color": GREY, "size": 12, "line": {"width": 2}},
            customdata=[[plain(row.head_id), plain(row.control), _told(row, view)]],
            hovertemplate="<b>%{customdata[0]}</b><br>control %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
        )


def _told(row: RankRow, view: Run) -> str:
    parts = [f"discrepancy {number(row.discrepancy, '.3f')}"]
    if view.labels:
        parts.append(f"probe {number(row.probe, '.1f')} %")
        if row.gain is not None:
            parts.append(f"gain {gain(row.gain, row.gain_low, row.gain_high)}")
    parts.append("1 seed" if row.replicates == 1 else f"{row.replicates} seeds")
    return "<br>".join(parts)


def _height(view: Run, row: RankRow) -> float | None:
    if view.labels:
        return row.probe
    for record in view.by_head[row.head_id]:
        if record.state == "complete":
            return record.rungs[-1].rankme_head
    return None


def _scored(view: Run, rung: RungScores) -> float | None:
    return rung.knn if view.labels else rung.rankme_head


def _errors(rows: Iterable[RankRow]) -> dict[str, Any]:
    sizes = [short(row.probe_sd) or 0 for row in rows]
    return {"type": "data", "array": sizes, "thickness": 1, "width": 0, "color": GREY}


def _array(values: Sequence[object]) -> npt.NDArray[np.object_]:
    """An array for thousands of points. plotly checks the elements of a list one by one, which takes most of a second."""
    return np.array(values, dtype=object)


def short(value: float | None) -> float | None:
    """Rounded to six digits: more cannot be seen, and the page is half as long."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


class _Scale:
    """Places values of one axis between 0 and 1."""

    def __init__(self, values: Sequence[object]) -> None:
        known = [value for value in values if value is not None]
        self._numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
        self._order = sorted(set(known), key=(lambda v: v) if self._numbers else _value)
        self.low, self.high = (_value(self._order[0]), _value(self._order[-1])) if self._order else ("", "")

    def place(self, value: object) -> float | None:
        """None for a value that is not known."""
        if value is None:
            return None
        if len(self._order) == 1:
            return 0.5
        if not self._numbers:
            return self._order.index(value) / (len(self._order) - 1)
        low, high = float(self._order[0]), float(self._order[-1])  # type: ignore[arg-type]
        return (float(value) - low) / (high - low)  # type: ignore[arg-type]


def first_trial(records: Sequence[TrialRecord]) -> TrialRecord:
    """The trial that represents a head: its first complete one, or else its first."""
    return next((record for record in records if record.state == "complete"), records[0])


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
