"""Draws the pictures of docs/evidence.md from the committed curves. Needs Chromium.

    python benchmarks/evidence_pictures.py [NAME ...] [--out docs/images]

NAME is a table in `benchmarks/headbench/` without its ending; `digits` unless given. Per table `evidence-NAME-gain.png`: what heads gain on the long schedule
against what a proxy measures of them; and `evidence-NAME-cost.png`: how far the head that a search returns falls short of the best, against what was spent.
Always, and over all tables, `evidence-score.png`: what heads gain against the label-free score.
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import plotly.graph_objects as go
from evidence import Curves, path_of
from playwright.sync_api import Page, sync_playwright
from plotly.subplots import make_subplots
from screenshots import ARGUMENTS, LARGEST
from search_cost import regret_at
from search_policies import POLICIES, load

from headsearch.report.figures import blank
from headsearch.report.palette import CONTROL_MARKERS, DASHES, GREY, SERIES, family_styles

WIDTH, HEIGHT = 920, 430
AGAINST = {
    "cka.embedding.output": "Discrepancy (CKA of embeddings)",
    "score": "Label-free score: discrepancy × retrieval",
}
TABLES = ("digits", "cifar10", "cifar10-convnext")
SHOWN = ("funnel", "funnel, stopped early", "tpe", "tpe, stopped early", "random", "random, stopped early")
SHARES = np.geomspace(0.01, 1.0, 60)
REPEATS = 300


def gain(curves: Curves) -> go.Figure:
    """Two panels with the accuracy of the base after the long schedule against what proxies measure of the heads."""
    return _panels([(curves, column, label) for column, label in AGAINST.items()])


def benches(names: Sequence[str]) -> go.Figure:
    """The same against the label-free score, a panel a table."""
    return _panels([(Curves(path_of(name)), "score", f"Score, {name}") for name in names], share=False)


def _panels(panels: Sequence[tuple[Curves, str, str]], *, share: bool = True) -> go.Figure:
    """Accuracy against a score of proxies, a point a head with its standard deviation between seeds. With `share` all have one axis of accuracy."""
    figure = make_subplots(1, len(panels), shared_yaxes=share, horizontal_spacing=0.04 if share else 0.07)
    families = {family for curves, _, _ in panels for family in curves.table["family"]}
    styles = family_styles(families)
    named = set()
    for place, (curves, column, label) in enumerate(panels, start=1):
        style = blank(
            x=label, y="k-NN accuracy after the long schedule, %" if place == 1 else None, height=HEIGHT
        )
        figure.update_xaxes(style.layout.xaxis.to_plotly_json(), col=place)
        figure.update_yaxes(style.layout.yaxis.to_plotly_json(), col=place)
        knn = curves.scores("long", "knn")
        table = curves.table.drop_duplicates("head_id").set_index("head_id")
        measured = curves.scores("proxies", column).mean(axis=1)
        shown = table.loc[sorted(set(knn.index) & set(measured.index))]
        shown = shown.assign(
            name=shown["control"].map("control {}".format, na_action="ignore").fillna(shown["family"])
        )
        for (family, name), heads in shown.groupby(["family", "name"]):
            control = heads["control"].iloc[0]
            colour, marker = styles[family] if name == family else (GREY, CONTROL_MARKERS[control])
            figure.add_scatter(
                name=name,
                legendgroup=name,
                showlegend=name not in named,
                x=measured[heads.index],
                y=knn.loc[heads.index].mean(axis=1),
                error_y={"array": knn.loc[heads.index].std(axis=1), "thickness": 1, "width": 0},
                mode="markers",
                marker={"color": colour, "symbol": marker, "size": 11},
                row=1,
                col=place,
            )
            named.add(name)
        figure.add_hline(
            y=float(curves.control("long", "none", "knn").mean()),
            line={"color": GREY, "dash": "dot", "width": 1.5},
            annotation_text="no head",
            row=1,
            col=place,
        )
    figure.update_layout(
        {key: value for key, value in style.layout.to_plotly_json().items() if "axis" not in key}
    )
    return figure


def cost(name: str) -> go.Figure:
    """Mean regret against the share of the hours of training every head that was spent."""
    bench = load(path_of(name))
    figure = blank(
        x="Hours spent, % of training every head", y="Falls short of the best head, points", height=HEIGHT
    )
    for place, policy in enumerate(SHOWN):
        searches = [POLICIES[policy](bench, seed) for seed in range(REPEATS)]
        figure.add_scatter(
            name=policy,
            x=100 * SHARES,
            y=[np.mean([regret_at(bench, steps, share) for steps in searches]) for share in SHARES],
            mode="lines",
            line={"color": SERIES[place // 2], "dash": DASHES[place % 2], "width": 2.5},
        )
    figure.add_hline(
        y=bench.noise,
        line={"color": GREY, "dash": "dot", "width": 1.5},
        annotation_text="standard deviation between seeds",
    )
    figure.update_xaxes(type="log", tickvals=[1, 2, 5, 10, 20, 50, 100])
    figure.update_yaxes(rangemode="tozero")
    return figure


def draw(page: Page, figure: go.Figure, file: Path) -> None:
    """One picture on white."""
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white", width=WIDTH, font_color="#374151")
    page.set_content(figure.to_html(include_plotlyjs=True))
    page.wait_for_selector(".main-svg")
    page.wait_for_timeout(300)
    page.locator(".svg-container").screenshot(path=file, animations="disabled")
    size = file.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"{file}: {size} bytes, more than {LARGEST}")
    print(f"{file}: {size // 1000} kB")


def main() -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=["digits"], metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1.5)
        for name in options.names:
            draw(page, gain(Curves(path_of(name))), options.out / f"evidence-{name}-gain.png")
            draw(page, cost(name), options.out / f"evidence-{name}-cost.png")
        draw(page, benches(TABLES), options.out / "evidence-score.png")
        browser.close()


if __name__ == "__main__":
    main()
