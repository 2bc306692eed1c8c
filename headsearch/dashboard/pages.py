"""From an address to a page: which view of which run, and what surrounds it. No callbacks here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

from dash import dcc, html
from dash.development.base_component import Component

from headsearch.report.parts import Child, Links, address, aria, callout, empty, link
from headsearch.report.views.compare import MOST, compare
from headsearch.report.views.cost import cost
from headsearch.report.views.head import head
from headsearch.report.views.matters import matters
from headsearch.report.views.overview import condition, overview, problems, subtitle
from headsearch.report.views.trials import ALWAYS, FIELDS, STATES, Query, families, trials
from headsearch.runs.run import Run

VIEWS = {
    "overview": "Overview",
    "trials": "Trials",
    "compare": "Compare",
    "matters": "What matters",
    "trust": "Trust",
    "cost": "Cost",
}
"""Views by the last part of their address, in the order of the navigation."""
OPTIONS = 300
"""How many heads of a run the list offers; any other can be chosen from its own page."""


@dataclass(frozen=True)
class Route:
    """What an address asks for."""

    run: int
    view: str
    """One of `VIEWS`, `head`, or `missing`."""
    head_id: str = ""

    @classmethod
    def parse(cls, path: str | None, runs: int) -> Route:
        """From the path of an address; `missing` for one that leads nowhere."""
        parts = [unquote(part) for part in (path or "/").strip("/").split("/")]
        match parts:
            case [""]:
                return cls(0, "overview")
            case ["compare"]:
                return cls(0, "compare")
            case ["run", position, *rest] if (
                position.isascii() and position.isdigit() and int(position) < runs
            ):
                run = int(position)
                match rest:
                    case [] | ["overview"]:
                        return cls(run, "overview")
                    case [name] if name in VIEWS and name != "compare":
                        return cls(run, name)
                    case ["head", *name] if name:
                        return cls(run, "head", "/".join(name))
        return cls(0, "missing")

    @property
    def title(self) -> str:
        """Of the page."""
        return {"head": self.head_id, "missing": "Not found"}.get(self.view, VIEWS.get(self.view, ""))


def shell(interval: float) -> Component:
    """What is on every page; callbacks fill it. `interval` is in seconds."""
    brand = [
        dcc.Link("headsearch", href=address(), className="name"),
        html.Span(className="spring"),
        html.Span(id="status", className="live", role="status"),
        html.Button("Dark", className="theme quiet", type="button"),
    ]
    top = html.Div([html.Div(brand, className="brand"), html.Div(id="navigation")], className="inner")
    filled = [html.Div(id="heading"), html.Div(id="controls"), html.Div(id="live")]
    return html.Div(
        [
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Interval(id="tick", interval=round(1000 * interval)),
            dcc.Store(id="version"),
            dcc.Store(id="title"),
            html.A("Skip to the content", href="#main", className="skip"),
            html.Header(top, className="top"),
            html.Main(filled, id="main", tabIndex="-1"),
        ]
    )


def navigation(route: Route, views: Sequence[Run]) -> list[Component]:
    """Links to every run, where there are several, and to every view."""

    def entry(text: str, href: str, current: bool) -> Component:
        # Dash's own link cannot say that it is the current one.
        there = html.A(text, href=href, **aria(current="page")) if current else dcc.Link(text, href=href)
        return html.Li(there)

    parts: list[Component] = []
    if len(views) > 1:
        runs = [
            entry(view.name, Links(place).view("overview"), place == route.run and route.view != "compare")
            for place, view in enumerate(views)
        ]
        parts.append(html.Nav(html.Ul(runs, className="runs"), **aria(label="Runs")))
    to = {name: Links(route.run).view(name) for name in VIEWS} | {"compare": address("compare")}
    tabs = [entry(title, to[name], name == route.view) for name, title in VIEWS.items()]
    parts.append(html.Nav(html.Ul(tabs, className="tabs"), **aria(label="Views")))
    return parts


def heading(route: Route, views: Sequence[Run]) -> list[Component]:
    """The page's title and what the run is about."""
    view = views[route.run]
    if route.view == "missing":
        return [html.H1("There is no such page")]
    if route.view == "compare":
        about = "Heads side by side, and runs where there are several."
        return [html.H1("Compare"), html.P(about, className="subtitle")]
    if route.view == "head":
        of: list[Child] = ["A head of ", link(view.name, Links(route.run).view("overview"))]
        return [html.Div([html.H1(route.head_id)], className="title"), html.P(of, className="subtitle")]
    title = html.Div([html.H1(view.name), condition(view)], className="title")
    return [title, html.P(f"{VIEWS[route.view]}: {subtitle(view)}", className="subtitle")]


def content(route: Route, search: str | None, views: Sequence[Run]) -> list[Child]:
    """What the page shows: a function of its address and of the runs alone."""
    view, links = views[route.run], Links(route.run)
    match route.view:
        case "overview":
            return overview(view, links)
        case "trials":
            return [problems(view), *trials(view, Query.parse(search), links)]
        case "head":
            return [problems(view), *head(view, route.head_id, links)]
        case "compare":
            return compare(views, chosen_heads(search))
        case "matters":
            return [problems(view), *matters(view)]
        case "trust":
            # Takes seconds: a callback of its own fills it, and the rest is there at once.
            waiting = html.Div(empty("The audit is being worked out."), id="audit")
            return [problems(view), callout(view.verdict), waiting]
        case "cost":
            return [problems(view), *cost(view)]
    return [empty("The address leads nowhere."), html.P(dcc.Link("To the overview", href=address()))]


def controls(route: Route, search: str | None, views: Sequence[Run]) -> list[Component]:
    """What the reader can set on the page. Its values come from the address and go there."""
    if route.view == "trials":
        return [_filters(views[route.run], Query.parse(search))]
    if route.view == "compare" and any(view.by_head for view in views):
        return [_chooser(views, search)]
    return []


def chosen_heads(search: str | None) -> list[tuple[int, str]]:
    """(position of the run, head id) of every head in a query string."""
    found = []
    for text in parse_qs((search or "").removeprefix("?")).get("head", []):
        run, _, head_id = text.partition(":")
        if run.isascii() and run.isdigit() and len(run) < 5 and head_id:
            found.append((int(run), head_id))
    return list(dict.fromkeys(found))


def _filters(view: Run, query: Query) -> Component:
    more = [name for name in FIELDS if name not in ALWAYS]
    text = dcc.Input(
        id="filter-text", type="text", value=query.text, debounce=0.4, placeholder="part of a name"
    )
    known, width = list(families(view)), {"minWidth": "12rem"}
    family = dcc.Dropdown(
        id="filter-family", options=known, value=query.family or None, placeholder="any", style=width
    )
    shown = [name for name in query.columns if name in more]
    columns = _choices("filter-columns", {name: FIELDS[name].name for name in more}, shown)
    return _settings(
        "Filter the trials",
        html.Div([html.Label("Head or reason", htmlFor="filter-text", className="label"), text]),
        _group("Family", family),
        _group("State", _choices("filter-states", {name: name for name in STATES}, query.states)),
        html.Details([html.Summary("Columns"), columns], className="wide"),
    )


def _choices(id: str, labels: Mapping[str, str], chosen: Sequence[str]) -> Component:
    return dcc.Checklist(id=id, options=_options(labels), value=list(chosen), className="choices")


def _options(labels: Mapping[str, str]) -> list[Any]:
    return [{"label": label, "value": value} for value, label in labels.items()]


def _group(legend: str, control: Component, **more: Any) -> Component:
    # Dash's lists do not take a label along; the group's name is read with them.
    return html.Fieldset([html.Legend(legend), control], **more)


def _settings(label: str, *controls: Component) -> Component:
    return html.Section(list(controls), className="filters", **aria(label=label))


def _chooser(views: Sequence[Run], search: str | None) -> Component:
    chosen = [
        (run, head_id)
        for run, head_id in chosen_heads(search)
        if run < len(views) and head_id in views[run].by_head
    ][:MOST]
    options: dict[str, str] = {}
    for place, view in enumerate(views):
        where = f" ({view.name})" if len(views) > 1 else ""
        rows = [row for row in view.rows if row.feasible][:OPTIONS]
        named = {row.head_id: f"{row.rank or row.control}. {row.head_id}{where}" for row in rows}
        named |= {
            head_id: f"{head_id}{where}" for run, head_id in chosen if run == place and head_id not in named
        }
        options |= {f"{place}:{head_id}": label for head_id, label in named.items()}
    dropdown = dcc.Dropdown(
        id="compare-heads",
        options=_options(options),
        value=[f"{run}:{head_id}" for run, head_id in chosen],
        multi=True,
        placeholder="choose heads",
    )
    return _settings(
        "Heads to compare", _group(f"Heads to compare, at most {MOST}", dropdown, className="wide")
    )
