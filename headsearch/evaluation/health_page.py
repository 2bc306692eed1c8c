"""The label-free measures of a row of checkpoints: a figure with a panel for each measure, and a page that opens without a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from dash import html
from plotly.subplots import make_subplots

from headsearch.report.figures import blank, plain, short
from headsearch.report.page import brand, html_page
from headsearch.report.palette import BLUE
from headsearch.report.parts import Child, Column, callout, numbers, table
from headsearch.report.parts import figure as drawn
from headsearch.report.static import to_html
from headsearch.results.text import number

if TYPE_CHECKING:
    from headsearch.evaluation.health import Health
    from headsearch.evaluation.result import Evaluation

MEASURES = {
    "rankme": "RankMe: directions in use",
    "alpha_req": "α-ReQ: decay of the spectrum",
    "lidar": "LiDAR: directions that tell images apart",
    "alignment": "Alignment of two views",
    "uniformity": "Uniformity",
    "wasserstein": "Wasserstein uniformity",
    "retrieval": "Retrieval of the other view, %",
    "twonn": "Intrinsic dimension",
    "dse": "DSE: structure of positions",
}
"""Every measure with the title of its panel."""
_COLUMNS = 3


def epochs(names: Sequence[str]) -> list[int] | None:
    """The last number in each name, where every name has one and they rise, as in `epoch-10.pt`; else None.

    >>> epochs(["run/epoch-2.pt", "run/epoch-10.pt"])
    [2, 10]
    """
    found = [re.findall(r"\d+", PurePath(name).stem) for name in names]
    if not all(found):
        return None
    last = [int(told[-1]) for told in found]
    return last if all(a < b for a, b in pairwise(last)) else None


def health_figure(health: Sequence[Health]) -> go.Figure:
    """Every measure over the weights, by epoch where their names tell it, else in the order given. A cross is not healthy."""
    titles = list(MEASURES.values())
    rows = -(-len(titles) // _COLUMNS)
    figure = make_subplots(
        rows, _COLUMNS, subplot_titles=titles, vertical_spacing=0.11, horizontal_spacing=0.08
    )
    style = blank(x=None, y=None, height=230 * rows).layout.to_plotly_json()
    axis = style.pop("xaxis")
    style.pop("yaxis")
    figure.update_layout(**style, showlegend=False)
    figure.update_layout(margin_t=36)
    at = epochs([each.weights for each in health])
    x = [plain(each.weights) for each in health] if at is None else at
    for place, name in enumerate(MEASURES):
        row, column = divmod(place, _COLUMNS)
        figure.add_scatter(
            x=x,
            y=[short(each.measures.get(name)) for each in health],
            mode="lines+markers",
            line={"color": BLUE, "width": 2},
            marker={
                "size": 8,
                "symbol": ["circle" if each.verdict.startswith("healthy") else "x" for each in health],
            },
            customdata=[[plain(each.weights), plain(each.verdict)] for each in health],
            hovertemplate="<b>%{customdata[0]}</b>: %{y:.4g}<br>%{customdata[1]}<extra></extra>",
            row=row + 1,
            col=column + 1,
        )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_annotations(font_size=13)
    if at is None:
        figure.update_xaxes(type="category")
    else:
        figure.update_xaxes(title_text="Epoch", row=rows)
    return figure


def health_page(evaluation: Evaluation) -> str:
    """The page's text: the sentences, the figure and the table."""
    health = evaluation.health
    sentences = html.Ul([html.Li([html.Code(each.weights), f": {each.verdict}"]) for each in health])
    cells: list[list[Child]] = [
        [html.Code(each.weights), *(number(each.measures.get(name), ".3g") for name in MEASURES)]
        for each in health
    ]
    spec = evaluation.spec
    where = f"{spec.base.model}, images of {spec.data.dataset}"
    label = "Nine measures without labels over the weights, a panel each; the table below has their values"
    content = [
        html.Header(html.Div(brand(), className="inner"), className="top"),
        html.Main(
            [
                html.Div(html.H1("Is my training healthy?"), className="title"),
                html.P(where, className="subtitle"),
                callout(sentences),
                drawn(health_figure(health), label, "health"),
                table("Label-free measures", [Column("weights"), *numbers(*MEASURES)], cells),
            ]
        ),
        html.Footer("Made by headsearch. Compare values of the same base and number of images only."),
    ]
    return html_page("Is my training healthy? headsearch", to_html(content))
