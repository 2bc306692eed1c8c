"""The report: one HTML file with all views of a run. It opens without a network and can be mailed."""

from __future__ import annotations

import base64
import hashlib
import html as markup
from collections.abc import Iterator
from pathlib import Path

from dash import html
from dash.development.base_component import Component

from headsearch.report.parts import Child, Links, anchor, aria, callout, empty
from headsearch.report.static import to_html
from headsearch.report.views.audit import audit
from headsearch.report.views.cost import cost
from headsearch.report.views.head import head
from headsearch.report.views.matters import matters
from headsearch.report.views.overview import condition, overview, subtitle
from headsearch.report.views.trials import Query, trials
from headsearch.runs.run import Run

ASSETS = Path(__file__).parent / "assets"
HEADS = 10
"""How many of the best heads get a section of their own."""

VIEWS = (
    ("overview", "Overview"),
    ("heads", "Heads"),
    ("matters", "What matters"),
    ("trust", "Trust"),
    ("cost", "Cost"),
    ("trials", "Trials"),
)


def html_report(view: Run) -> str:
    """The page's text."""
    body = "".join([to_html(_header()), "<main>", *_main(view), "</main>", to_html(_footer(view))])
    return html_page(f"{view.name}: headsearch report", body)


def html_page(title: str, body: str) -> str:
    """A page in our style, with figures as `to_html` writes them; `body` is markup."""
    from plotly.offline import get_plotlyjs

    early, late = asset("theme.js"), (get_plotlyjs(), asset("report.js"))
    # Nothing is loaded from anywhere and no script runs but these, whatever the page holds.
    policy = f"default-src 'none'; script-src {' '.join(map(_hash, (early, *late)))}; style-src 'unsafe-inline'; img-src data: blob:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{markup.escape(title)}</title>"
        f"<style>{asset('style.css')}</style><script>{early}</script></head>"
        f"<body>{body}{''.join(f'<script>{script}</script>' for script in late)}</body></html>\n"
    )


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def asset(name: str) -> str:
    """The text of a file of the pages."""
    return (ASSETS / name).read_text(encoding="utf-8")


def brand() -> Component:
    """Our name and the switch of themes, for the top of a page."""
    switch = html.Button("Dark", className="theme quiet jsonly", type="button")
    name = [html.Span("headsearch", className="name"), html.Span(className="spring")]
    return html.Div([*name, switch], className="brand")


def _header() -> Component:
    tabs = html.Ul([html.Li(html.A(title, href=f"#{name}")) for name, title in VIEWS], className="tabs")
    return html.Header(
        [
            html.A("Skip to the content", href="#overview", className="skip"),
            html.Div([brand(), html.Nav(tabs, **aria(label="Views"))], className="inner"),
        ],
        className="top",
    )


def _main(view: Run) -> Iterator[str]:
    best = [row.head_id for row in view.ranked[:HEADS]]
    links = Links(None, frozenset(best))
    heading = html.Div([html.H1(view.name), condition(view)], className="title")
    yield to_html([heading, html.P(subtitle(view), className="subtitle")])
    contents: dict[str, list[Child]] = {
        "overview": overview(view, links),
        "heads": [_head(view, head_id, place, links) for place, head_id in enumerate(best, start=1)]
        or [empty("No head has a rank yet.")],
        "matters": matters(view),
        "trust": [callout(view.verdict), audit(view)],
        "cost": cost(view),
        # The page's own script puts a field there.
        "trials": [
            html.Div(id="filter", className="filters jsonly"),
            *trials(view, Query(), links, page=None),
        ],
    }
    for name, title in VIEWS:
        below = to_html(html.H2(title, className="view"))
        yield f'<section id="{name}" class="view">{below}{to_html(contents[name], demote=True)}</section>'


def _head(view: Run, head_id: str, place: int, links: Links) -> Child:
    return html.Details(
        [html.Summary([f"{place}. ", html.Code(head_id)]), *head(view, head_id, links)],
        className="head",
        id=anchor(head_id),
    )


def _footer(view: Run) -> Component:
    told = [f"Made by headsearch from {view.path}."]
    if view.facts is not None:
        versions = ", ".join(f"{name} {version}" for name, version in view.facts.versions.items())
        told += [f"{line}." for line in view.facts.data]
        told.append(f"The run began on {view.facts.created}, with {versions}; space {view.facts.space_hash}.")
    if view.experiment is not None:
        told.append(f"Seed {view.experiment.seed}.")
    return html.Footer(" ".join(told))
