"""Every trial with its state and the reason: filtered, sorted, a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args
from urllib.parse import parse_qs, urlencode

from dash import html
from dash.development.base_component import Component

from headsearch.report.parts import Child, Column, Links, aria, chip, empty, link, table
from headsearch.results.records import State, TrialRecord, trial_rows
from headsearch.results.spending import part_of
from headsearch.results.text import UNKNOWN, duration, number
from headsearch.runs.run import Run

STATES: tuple[str, ...] = get_args(State)
PAGE = 100
"""Trials on a page."""


@dataclass(frozen=True)
class _Field:
    """A column that trials have."""

    name: str
    show: Callable[[Any], str] = str
    numeric: bool = True
    usual: bool = True
    """Whether it is shown unless asked for."""


FIELDS: Mapping[str, _Field] = {
    "number": _Field("Trial"),
    "head_id": _Field("Head", numeric=False),
    "state": _Field("State", numeric=False),
    "reason": _Field("Reason", numeric=False),
    "part": _Field("Stage", numeric=False),
    "family": _Field("Family", numeric=False, usual=False),
    "replicate": _Field("Seed", lambda value: str(value + 1)),
    "epoch": _Field("Epoch"),
    "discrepancy": _Field("Discrepancy", lambda value: number(value, ".3f")),
    "knn": _Field("k-NN %", lambda value: number(value, ".1f")),
    "linear": _Field("Linear %", lambda value: number(value, ".1f")),
    "loss": _Field("Loss", lambda value: number(value, ".3f"), usual=False),
    "seconds": _Field("Time", duration),
    "images_per_second": _Field("Images/s", lambda value: number(value, ",.0f"), usual=False),
    "seed": _Field("Seed number", usual=False),
}
"""By the names of `headsearch trials --format json`, and `part`."""
ALWAYS = ("number", "head_id", "state")
"""Columns that cannot be left out."""
USUAL = tuple(name for name, column in FIELDS.items() if column.usual)


@dataclass(frozen=True)
class Query:
    """What the table should show. It is part of the page's address, so that it can be linked to."""

    text: str = ""
    """Part of a head's name or of a reason."""
    states: tuple[str, ...] = ()
    """Any where empty."""
    family: str = ""
    sort: str = "number"
    descending: bool = False
    page: int = 1
    columns: tuple[str, ...] = USUAL

    @classmethod
    def parse(cls, search: str | None) -> Query:
        """From the query string of an address. Invalid parts are ignored."""
        given = parse_qs((search or "").removeprefix("?"))

        def one(name: str) -> str:
            return given.get(name, [""])[0]

        page = one("page")
        columns = tuple(name for name in FIELDS if name in given.get("column", []))
        return cls(
            text=one("text")[:200],
            states=tuple(state for state in given.get("state", []) if state in STATES),
            family=one("family")[:200],
            sort=one("sort") if one("sort") in FIELDS else "number",
            descending=one("order") == "descending",
            page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 7 else 1,
            columns=columns or USUAL,
        )

    def search(self) -> str:
        """The inverse of `parse`, shortest."""
        parts: list[tuple[str, str]] = [("text", self.text), ("family", self.family)]
        parts += [("state", state) for state in self.states]
        if self.sort != "number":
            parts.append(("sort", self.sort))
        if self.descending:
            parts.append(("order", "descending"))
        if self.page > 1:
            parts.append(("page", str(self.page)))
        if self.columns != USUAL:
            parts += [("column", name) for name in self.columns]
        return f"?{urlencode([(name, value) for name, value in parts if value])}"


def trials(view: Run, query: Query, links: Links, *, page: int | None = PAGE) -> list[Child]:
    """The table, and what stands around it; `page` trials at once, all of them for None."""
    if not view.records:
        return [empty("No trial has begun yet. They appear here as the search starts them.")]
    found = select(view, query)
    if not found:
        return [
            empty(f"None of the {len(view.records)} trials answers this filter. Take something out of it.")
        ]
    size = page or len(found)
    pages = -(-len(found) // size)
    current = min(query.page, pages)
    shown = found[(current - 1) * size : current * size]
    count = (
        f"{len(found)} of {len(view.records)} trials"
        if len(found) < len(view.records)
        else f"{len(found)} trials"
    )
    columns = [name for name in FIELDS if name in query.columns or name in ALWAYS]
    return [
        html.P(count, className="note", id="trials-count", role="status"),
        table(
            "Trials",
            [_column(name, query, links) for name in columns],
            [[_cell(name, row, links) for name in columns] for row in shown],
            id="trials-table",
        ),
        _pages(query, current, pages, links),
    ]


def select(view: Run, query: Query) -> list[dict[str, Any]]:
    """The rows that match a query, in its order; unknown values come last in either direction."""
    wanted = query.text.casefold()
    kept = [
        record
        for record in view.records
        if (not query.states or record.state in query.states)
        and (not query.family or record.config.family == query.family)
        and (
            not wanted
            or wanted in f"{record.head_id} {record.control or ''} {record.reason or ''}".casefold()
        )
    ]
    parts = {record.number: _part(record) for record in kept}
    rows = [{**row, "part": parts[row["number"]]} for row in timed_rows(view, kept)]
    known = [row for row in rows if row[query.sort] is not None]
    known.sort(key=lambda row: row[query.sort], reverse=query.descending)
    return known + [row for row in rows if row[query.sort] is None]


def timed_rows(view: Run, records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """The rows of some trials. If a trial did not record its time, the study's is taken."""
    rows = trial_rows(records)
    for row in rows:
        if row["seconds"] is None:
            row["seconds"] = view.clock.get(row["number"])
    return rows


def _part(record: TrialRecord) -> str:
    part = part_of(record)
    return f"control {record.control}" if record.control and part != "replicates" else part


def _column(name: str, query: Query, links: Links) -> Column:
    column = FIELDS[name]
    if links.run is None:
        return Column(column.name, column.numeric, kind=name)
    current = query.sort == name
    descending = not query.descending if current else False
    target = replace(query, sort=name, descending=descending, page=1).search()
    sign = (" ▼" if query.descending else " ▲") if current else ""
    header = link([column.name, html.Span(sign, **aria(hidden="true"))], f"{links.view('trials')}{target}")
    order = ("descending" if query.descending else "ascending") if current else None
    return Column(column.name, column.numeric, header=header, kind=name, sort=order)


def _cell(name: str, row: Mapping[str, Any], links: Links) -> Child:
    value = row[name]
    return link(html.Code(value), links.head(value)) if name == "head_id" else shown_as(name, row)


def shown_as(name: str, row: Mapping[str, Any]) -> Child:
    """One of `FIELDS` of a row."""
    value = row[name]
    if name == "state":
        return chip(value if row["duplicate_of"] is None else f"{value} of {row['duplicate_of']}", value)
    return UNKNOWN if value is None else FIELDS[name].show(value)


def _pages(query: Query, current: int, pages: int, links: Links) -> Component | None:
    if pages < 2:
        return None

    def step(text: str, page: int) -> Component:
        there = 1 <= page <= pages
        target = f"{links.view('trials')}{replace(query, page=page).search()}"
        return link(text, target) if there else html.Span(text, className="off")

    return html.Nav(
        [step("Earlier", current - 1), html.Span(f"page {current} of {pages}"), step("Later", current + 1)],
        className="pages",
        **aria(label="Pages of the table"),
    )


def families(view: Run) -> Sequence[str]:
    """Every family that was tried."""
    return sorted({record.config.family for record in view.records})
