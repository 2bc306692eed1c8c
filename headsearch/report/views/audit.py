"""The audit of a run: whether its stages, rungs, seeds and measures agree. Each question has an answer and the comparisons behind it."""

from __future__ import annotations

from dash import html

from headsearch.report.parts import Child, Column, card, empty, table
from headsearch.results.audit import Section
from headsearch.results.tables import section_cells
from headsearch.runs.run import Run

TITLE = "Audit"


def audit(view: Run) -> Child:
    """Its section of the page. It takes seconds, and every new trial would change it, so it is left out while the search is at work."""
    if view.at_work:
        told = "While the search runs, use a terminal: headsearch audit " + str(view.path)
        return card(TITLE, empty(told), wide=True)
    if view.experiment is None:
        return card(TITLE, empty("The experiment cannot be read, so nothing can be compared."), wide=True)
    return card(
        TITLE,
        *map(_section, view.audit.sections),
        note="Comparisons within the run, with intervals from a bootstrap over heads. docs/audit.md explains every line.",
        wide=True,
    )


def _section(section: Section) -> Child:
    told: list[Child] = [html.H3(section.question), html.P(section.conclusion)]
    if section.lines:
        headings, rows = section_cells(section)
        last = len(headings) - 1
        columns = [Column(name, numeric=0 < place < last) for place, name in enumerate(headings)]
        count = "1 comparison" if len(rows) == 1 else f"{len(rows)} comparisons"
        told.append(html.Details([html.Summary(count), table(section.question, columns, rows)]))
    return html.Div(told)
