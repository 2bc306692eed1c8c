"""The parts of pages: links, tiles, tables, figures, notes. They are Dash components, which `static.py` can also write as plain HTML.

Everything that comes from a run is a child of a component, and so is text, never markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import plotly.graph_objects as go
from dash import dcc, get_relative_path, html
from dash.development.base_component import Component

Child = Component | str | int | float | None
Children = Sequence[Child] | Child

CONFIG: Any = {
    "displaylogo": False,
    "displayModeBar": "hover",
    "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    "plotlyServerURL": "",
    "responsive": True,
    "toImageButtonOptions": {"format": "svg"},
}
"""Plotly's options for every figure: no logo, and nothing that leaves the machine."""


@dataclass(frozen=True)
class Links:
    """Where links of a view lead."""

    run: int | None
    """Position of the run in the dashboard; None in a report, whose links stay on the page."""
    heads: frozenset[str] | None = None
    """In a report, the heads that it has a section for."""

    def view(self, name: str) -> str:
        """Another view of the same run."""
        return f"#{name}" if self.run is None else address(f"run/{self.run}/{name}")

    def head(self, head_id: str) -> str | None:
        """A head's own page; None where a report has none."""
        if self.run is None:
            return f"#{anchor(head_id)}" if self.heads is not None and head_id in self.heads else None
        return address(f"run/{self.run}/head/{quote(head_id, safe='')}")

    def download(self, head_id: str) -> str | None:
        """The head's `head.yaml`; None in a report."""
        return (
            None if self.run is None else address(f"run/{self.run}/head/{quote(head_id, safe='')}/head.yaml")
        )

    def trials(self, **query: str) -> str | None:
        """Trials that answer a query; in a report, all of them."""
        return "#trials" if self.run is None else address(f"run/{self.run}/trials?{urlencode(query)}")

    def compare(self, head_ids: Sequence[str]) -> str | None:
        """A comparison of heads; None in a report."""
        if self.run is None:
            return None
        return address("compare?") + urlencode([("head", f"{self.run}:{head_id}") for head_id in head_ids])


def address(path: str = "") -> str:
    """Of a page of the dashboard, below its prefix, which Dash knows."""
    try:
        return str(get_relative_path(f"/{path}"))  # type: ignore[no-untyped-call]
    except AttributeError:
        # No dashboard was made: a view is drawn by itself.
        return f"/{path}"


def aria(**attributes: str | None) -> dict[str, Any]:
    """ARIA attributes, for those who cannot see the page: `aria(label="Trials")`."""
    return {f"aria-{name}": value for name, value in attributes.items()}


def anchor(head_id: str) -> str:
    """A head's place in a report."""
    return f"head-{quote(head_id, safe='')}"


def link(children: Children, href: str | None, **more: Any) -> Component:
    """A link, or plain text where it leads nowhere."""
    if href is None:
        return html.Span(children)
    if href.startswith("#") or href.endswith(".yaml"):
        return html.A(children, href=href, **more)
    return dcc.Link(children, href=href, **more)


def card(title: str, *children: Child, note: Children = None, wide: bool = False) -> Component:
    """A part of a page under a heading."""
    parts: list[Child] = [html.H2(title)]
    if note is not None:
        parts.append(html.P(note, className="note"))
    return html.Section([*parts, *children], className="card wide" if wide else "card")


def grid(*children: Child) -> Component:
    """Cards side by side where there is room."""
    return html.Div(list(children), className="grid")


def tiles(*entries: tuple[str, Children, Children]) -> Component:
    """Numbers that matter: (name, value, remark)."""
    parts = [
        [html.Dt(name), html.Dd(value), *([html.Dd(remark, className="remark")] if remark else [])]
        for name, value, remark in entries
    ]
    return html.Dl([html.Div(tile, className="tile") for tile in parts], className="tiles")


def bar(share: float, label: str) -> Component:
    """How much of something is done, from 0 to 1."""
    percent = f"{100 * min(1.0, max(0.0, share)):.1f}"
    told = aria(label=label, valuenow=percent, valuemin="0", valuemax="100")
    return html.Div(html.Div(style={"width": f"{percent}%"}), className="bar", role="progressbar", **told)


def callout(*children: Child, kind: str = "") -> Component:
    """A box for what should be read first."""
    return html.Div(list(children), className=f"callout {kind}".strip())


def empty(text: str) -> Component:
    """A text in place of something that is not there yet: why, and what would change that."""
    return html.P(text, className="empty")


def chip(text: str, kind: str = "") -> Component:
    """A short word with a frame, such as a state."""
    return html.Span(text, className=f"chip {kind}".strip())


def figure(drawn: go.Figure, label: str, id: str) -> Component:
    """A figure with a description for those who cannot see it."""
    height = drawn.layout.height
    return html.Div(
        dcc.Graph(id=id, figure=drawn, config=CONFIG, style={"height": f"{height}px"}, responsive=True),
        className="figure",
        role="img",
        **aria(label=label),
    )


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    numeric: bool = False
    hint: str | None = None
    """What it means; shown when the pointer rests on the heading."""
    header: Children = None
    """In place of the name, e.g. a link that sorts."""
    kind: str = ""
    """A class of its cells."""
    sort: str | None = None
    """`ascending` or `descending` where the table is sorted by it."""


def numbers(*names: str) -> list[Column]:
    """Columns that hold numbers."""
    return [Column(name, numeric=True) for name in names]


def table(
    caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Children]], *, id: str | None = None
) -> Component:
    """A table; the first cell of a row is its heading. Scrolls by itself where the page is narrow."""
    more: Mapping[str, Any] = {"id": id} if id else {}
    head = [
        html.Th(
            column.name if column.header is None else column.header,
            scope="col",
            className="number" if column.numeric else "",
            **_given(title=column.hint, **aria(sort=column.sort)),
        )
        for column in columns
    ]
    kinds = ["number" if column.numeric else column.kind for column in columns]
    body = []
    for first, *others in rows:
        cells: list[Component] = [html.Th(first, className=kinds[0], scope="row")]
        cells += [html.Td(cell, className=kind) for cell, kind in zip(others, kinds[1:], strict=True)]
        body.append(html.Tr(cells))
    parts = [html.Caption(caption, className="hidden"), html.Thead(html.Tr(head)), html.Tbody(body)]
    return html.Div(
        html.Table(parts, **more),
        className="scroll",
        # What scrolls must be reachable without a mouse.
        tabIndex="0",
        role="region",
        **aria(label=caption),
    )


def _given(**attributes: Any) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def facts(entries: Sequence[tuple[str, Children]]) -> Component:
    """Names and values."""
    return html.Dl(
        [html.Div([html.Dt(name), html.Dd(value)]) for name, value in entries if value is not None],
        className="facts",
    )
