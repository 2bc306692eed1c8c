"""The Dash application: callbacks from what the reader does, and from a timer, to what a page shows.

Every page is a function of its address and of the version of the data. Choices and filters are part of the address, so a page can be linked to, and a
refresh changes nothing that the reader has set.
"""

from __future__ import annotations

import html as markup
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from dash import ClientsideFunction, Dash, Input, Output, State
from dash.exceptions import PreventUpdate
from flask import Response, abort
from pydantic import BaseModel

from headsearch.dashboard import pages
from headsearch.dashboard.pages import Route
from headsearch.dashboard.requests import refuse_what_no_page_asks, typed
from headsearch.export import describe_head
from headsearch.report.page import ASSETS
from headsearch.report.parts import Links
from headsearch.report.views.audit import audit
from headsearch.report.views.compare import MOST
from headsearch.report.views.trials import ALWAYS, FIELDS, Query
from headsearch.runs.reading import RunReader
from headsearch.runs.run import Run

REFRESH_SECONDS = 3.0
"""Between two looks at the run directories."""

_INDEX = """<!doctype html>
<html lang="en">
<head>
{%metas%}
<title>{%title%}</title>
<link rel="icon" type="image/svg+xml" href="{prefix}assets/icon.svg">
{%css%}
</head>
<body>
{%app_entry%}
{%config%}
{%scripts%}
{%renderer%}
</body>
</html>
"""


class Runs:
    """Several runs, read by the threads of a server. The browser knows them by their position alone; no path comes from it."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises `RunError` where one is no run directory."""
        self._readers = [RunReader(path) for path in paths]
        self._lock = threading.Lock()
        self._views = [reader.read() for reader in self._readers]
        self._versions = [1] * len(self._views)

    @property
    def views(self) -> Sequence[Run]:
        """Every run, as of the last refresh."""
        return self._views

    def refresh(self) -> Sequence[int]:
        """Look for changes; for every run a number that grows when one is found."""
        with self._lock:
            for place, reader in enumerate(self._readers):
                view = reader.read()
                if view is not self._views[place]:
                    self._views[place] = view
                    self._versions[place] += 1
            return list(self._versions)


class _Point(BaseModel):
    customdata: list[Any] = []


class Clicked(BaseModel):
    """What plotly reports of a click. The first entry of a point's `customdata` is the id of its head."""

    points: list[_Point] = []


def make_app(runs: Runs, *, refresh: float = REFRESH_SECONDS, prefix: str = "/") -> Dash:
    """The application over `runs`, which looks for changes every `refresh` seconds, at addresses that begin with `prefix` (`/a/`)."""
    app = Dash(
        "headsearch.dashboard",
        title="headsearch",
        # A title that changes at every refresh would be read out.
        update_title=None,  # type: ignore[arg-type]
        assets_folder=str(ASSETS),
        assets_ignore=r"report\.js",
        index_string=_INDEX.replace("{prefix}", prefix),
        url_base_pathname=prefix,
        serve_locally=True,
        suppress_callback_exceptions=True,
        add_log_handler=False,
        enable_mcp=False,
    )
    app.layout = pages.shell(refresh)
    _refreshing(app, runs)
    _showing(app, runs)
    _setting(app)
    _downloading(app, runs, prefix)
    refuse_what_no_page_asks(app)
    return app


def _route(app: Dash, runs: Runs, path: str | None) -> Route:
    prefix: str = app.config.requests_pathname_prefix
    return Route.parse((path or "").removeprefix(prefix), len(runs.views))


def _refreshing(app: Dash, runs: Runs) -> None:
    @app.callback(
        Output("version", "data"),
        Input("tick", "n_intervals"),
        State("version", "data"),
        State("url", "pathname"),
    )
    @typed
    def look(_: int | None, known: list[int] | None, path: str | None) -> list[int]:
        versions, route = runs.refresh(), _route(app, runs, path)
        # A page is drawn again for a change of what it shows, and for no other.
        version = list(versions) if route.view == "compare" else [route.run, versions[route.run]]
        if version == known:
            raise PreventUpdate
        return version

    @app.callback(Output("status", "children"), Input("version", "data"), Input("url", "pathname"))
    @typed
    def tell(_: list[int] | None, path: str | None) -> str:
        view = runs.views[_route(app, runs, path).run]
        done = f"{view.settled} of {view.expected}" if view.expected else f"{view.settled}"
        return f"{done} trainings, as of {time.strftime('%H:%M:%S')}"


def _showing(app: Dash, runs: Runs) -> None:
    @app.callback(
        Output("navigation", "children"),
        Output("controls", "children"),
        Output("title", "data"),
        Input("url", "pathname"),
        State("url", "search"),
    )
    @typed
    def arrive(path: str | None, search: str | None) -> tuple[Any, Any, str]:
        route = _route(app, runs, path)
        title = f"{route.title} · {runs.views[route.run].name} · headsearch"
        return pages.navigation(route, runs.views), pages.controls(route, search, runs.views), title

    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("headsearch", "arrived"),
        Output("title", "modified_timestamp"),
        Input("title", "data"),
    )

    @app.callback(
        Output("heading", "children"),
        Output("live", "children"),
        Input("url", "pathname"),
        Input("url", "search"),
        Input("version", "data"),
    )
    @typed
    def show(path: str | None, search: str | None, _: list[int] | None) -> tuple[Any, Any]:
        route = _route(app, runs, path)
        return pages.heading(route, runs.views), pages.content(route, search, runs.views)

    @app.callback(Output("audit", "children"), Input("version", "data"), State("url", "pathname"))
    @typed
    def hold_against_itself(_: list[int] | None, path: str | None) -> Any:
        return audit(runs.views[_route(app, runs, path).run])

    @app.callback(
        Output("url", "href"),
        Input("pareto", "clickData"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    @typed
    def open_head(clicked: Clicked | None, path: str | None) -> str:
        route = _route(app, runs, path)
        told = clicked.points[0].customdata if clicked is not None and clicked.points else []
        head_id = markup.unescape(str(told[0])) if told else ""
        if head_id not in runs.views[route.run].by_head:
            raise PreventUpdate
        return str(Links(route.run).head(head_id))


def _setting(app: Dash) -> None:
    @app.callback(
        Output("url", "search"),
        Input("filter-text", "value"),
        Input("filter-family", "value"),
        Input("filter-states", "value"),
        Input("filter-columns", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    @typed
    def filter_trials(
        text: str | None,
        family: str | None,
        states: Sequence[str] | None,
        columns: Sequence[str] | None,
        search: str | None,
    ) -> str:
        before = Query.parse(search)
        chosen = tuple(name for name in FIELDS if name in (columns or ()) or name in ALWAYS)
        after = replace(
            before, text=text or "", states=tuple(states or ()), family=family or "", columns=chosen
        )
        if after == before:
            raise PreventUpdate
        # Another filter starts at its first page.
        return replace(after, page=1).search()

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("compare-heads", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    @typed
    def choose_heads(chosen: Sequence[str] | None, search: str | None) -> str:
        after = pages.chosen_heads("?" + urlencode([("head", value) for value in (chosen or [])[:MOST]]))
        if after == pages.chosen_heads(search):
            raise PreventUpdate
        return "?" + urlencode([("head", f"{run}:{head_id}") for run, head_id in after])


def _downloading(app: Dash, runs: Runs, prefix: str) -> None:
    @app.server.get(  # type: ignore[untyped-decorator]
        f"{prefix}run/<int:position>/head/<path:head_id>/head.yaml"
    )
    def download(position: int, head_id: str) -> Response:
        if position >= len(runs.views):
            abort(404)
        view = runs.views[position]
        row = view.row_of.get(head_id)
        if row is None or not row.config or view.experiment is None or view.facts is None:
            abort(404)
        text = describe_head(view.experiment, view.facts, view.records, row).to_yaml()
        return Response(
            text,
            mimetype="application/yaml",
            headers={"Content-Disposition": 'attachment; filename="head.yaml"', "Cache-Control": "no-store"},
        )
