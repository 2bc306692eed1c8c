"""Figures, static pages, Markdown, and the terminal: what they show is what was found, and nothing in a run is taken for markup."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from dash import dcc, html
from rich.console import Console

from headsearch.report import figures
from headsearch.report.figures import Series
from headsearch.report.markdown import markdown_report
from headsearch.report.page import html_report
from headsearch.report.palette import family_styles
from headsearch.report.parts import Links
from headsearch.report.picture import picture
from headsearch.report.static import to_html
from headsearch.report.status import sparkline, status_data, status_panel
from headsearch.report.views.audit import audit
from headsearch.report.views.compare import compare
from headsearch.report.views.cost import cost
from headsearch.report.views.head import head
from headsearch.report.views.matters import matters
from headsearch.report.views.overview import overview
from headsearch.report.views.trials import FIELDS, Query, select, trials
from headsearch.results.tables import rank_table
from headsearch.runs.run import Run, read_run

EVIL = "<script>alert('x')</script><b>&amp;\"</b>"


@pytest.fixture(scope="module")
def view(toy_run: Path) -> Run:
    return read_run(toy_run)


@pytest.fixture(scope="module")
def evil(view: Run) -> Run:
    """The run with markup wherever text can come from."""
    records = tuple(
        replace(record, head_id=f"{EVIL}{record.head_id}", reason=record.reason and EVIL)
        for record in view.records
    )
    return Run(view.path, view.experiment, view.facts, records, problems=(EVIL,))


@pytest.fixture(scope="module")
def empty(view: Run) -> Run:
    return Run(view.path, view.experiment, view.facts)


def all_views(view: Run) -> Iterator[list[object]]:
    links = Links(0)
    yield overview(view, links)
    yield trials(view, Query(), links)
    yield matters(view)
    yield [audit(view)]
    yield cost(view)
    yield compare([view, view], [(0, row.head_id) for row in view.ranked[:3]] + [(1, "none")])
    yield head(view, view.ranked[0].head_id if view.ranked else "nothing", links)


class Elements(HTMLParser):
    """Every element and all text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_scatter_has_every_head_once_the_front_and_the_controls(view: Run) -> None:
    figure = figures.pareto(view)
    points = {
        point[0]: (x, y)
        for trace in figure.data
        if trace.customdata is not None
        for point, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }
    for row in (*view.ranked, *view.controls[1:]):
        assert points[row.head_id] == (
            pytest.approx(row.discrepancy, rel=1e-5),
            pytest.approx(row.probe, rel=1e-5),
        )
    stopped = {record.head_id for record in view.records if record.state == "stopped"}
    assert stopped <= set(points)
    front = next(trace for trace in figure.data if trace.name == "Pareto front")
    expected = sorted((row.discrepancy, row.probe) for row in view.ranked if row.pareto_layer == 1)
    assert list(front.x) == pytest.approx([x for x, _ in expected], rel=1e-5)
    assert list(front.y) == sorted(front.y, reverse=True)


def test_families_differ_in_colour_and_marker() -> None:
    styles = family_styles(["vit+mlp", "resnet"])
    assert len(set(styles.values())) == len(styles) == 12
    assert family_styles([])["vit"] == styles["vit"], "the same in every run"


def test_parallel_axes_place_numbers_by_size_and_leave_gaps() -> None:
    figure = figures.parallel(
        [("a", {"x": 1, "y": None}), ("b", {"x": 3, "y": 2.0}), ("c", {"x": 2, "y": 4.0})]
    )
    assert [trace.y[0] for trace in figure.data] == [0.0, 1.0, 0.5]
    assert [trace.y[1] for trace in figure.data] == [None, 0.0, 1.0]


@pytest.mark.parametrize("kind", ["view", "empty", "evil"])
def test_every_view_shows_text_as_text_and_states_of_any_run(
    kind: str, request: pytest.FixtureRequest
) -> None:
    for parts in all_views(request.getfixturevalue(kind)):
        page = re.sub(r'<script type="application/json">.*?</script>', "", to_html(as_static(parts)))
        elements = Elements(page)
        assert "script" not in elements.tags
        assert elements.text.strip()
        if kind == "evil":
            assert "alert" in elements.text or "Importance" in elements.text or "tau" in elements.text


def as_static(node: object) -> object:
    """Links and buttons of the dashboard as plain elements, so that their text can be looked at."""
    if isinstance(node, list | tuple):
        return [as_static(child) for child in node]
    if isinstance(node, dcc.Link):
        return html.A(as_static(node.children), href=node.href)
    if isinstance(node, dcc.Clipboard):
        return None
    if getattr(node, "children", None) is not None:
        node.children = as_static(node.children)  # type: ignore[attr-defined]
    return node


def test_hover_texts_and_names_of_figures_are_escaped(evil: Run) -> None:
    drawn = [
        figures.pareto(evil),
        figures.parallel([(EVIL, {EVIL: EVIL})]),
        figures.curves([Series(EVIL, [(1, 2)], 0)], y="loss"),
    ]
    for figure in drawn:
        assert "<script" not in json.dumps(figure.to_plotly_json(), default=list)
        assert "&lt;script" in json.dumps(figure.to_plotly_json(), default=list)


def test_static_html_escapes_attributes_and_refuses_what_needs_a_server() -> None:
    page = to_html(html.P(EVIL, title='"><script>', style={"borderTopColor": "red"}))
    assert Elements(page).tags == ["p"]
    assert 'style="border-top-color:red"' in page
    assert to_html(html.H2("a"), demote=True) == "<h3>a</h3>"
    with pytest.raises(TypeError, match="Dropdown"):
        to_html(dcc.Dropdown())


def test_a_report_is_one_small_file_that_names_no_address(view: Run, evil: Run) -> None:
    for shown in (view, evil):
        page = html_report(shown)
        elements = Elements(page)
        assert len(page.encode()) < 6e6
        assert not [address for address in elements.addresses if not address.startswith("#")]
        assert elements.tags.count("h1") == 1
        assert len(set(elements.ids)) == len(elements.ids)
        for address in elements.addresses:
            assert address[1:] in elements.ids, f"{address} leads nowhere"
        assert page.count("<script>") == 3
        assert "default-src 'none'" in page


def test_the_markdown_has_the_ranking_and_escapes_what_markdown_reads(view: Run, evil: Run) -> None:
    text = markdown_report(view)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert sum(view.ranked[0].head_id in line.replace("\\", "") for line in rows) == 1
    assert "## How far to trust it" in text
    assert evil.facts is not None
    evil = replace(evil, facts=replace(evil.facts, created=EVIL, space_hash=EVIL, versions={EVIL: EVIL}))
    escaped = markdown_report(evil)
    assert "<script" not in escaped
    assert "&lt;script" in escaped


def test_status_is_the_same_for_people_and_programs(view: Run, empty: Run) -> None:
    data = json.loads(json.dumps(status_data(view), allow_nan=False))
    assert data["condition"] == "ended"
    assert (data["done"], data["expected"]) == (view.settled, view.expected)
    assert data["best"]["head_id"] == view.ranked[0].head_id
    out = io.StringIO()
    Console(file=out, width=100, color_system=None).print(status_panel(view))
    assert view.ranked[0].head_id in out.getvalue()
    assert f"{view.settled} of {view.expected} done" in out.getvalue()
    assert status_data(empty)["best"] is None
    assert status_data(empty)["condition"] == "empty"


def test_a_clock_that_was_turned_back_tells_no_time(view: Run) -> None:
    start = datetime(2026, 1, 1, 12)
    back = {r.number: (start, start - timedelta(hours=12)) for r in view.records}
    turned = replace(view, records=tuple(replace(r, seconds=None) for r in view.records), times=back)
    assert not turned.clock
    assert turned.spending.seconds == 0
    assert "-12 h" not in html_report(turned) + markdown_report(turned)


def test_a_sparkline_keeps_its_ends_and_its_width() -> None:
    assert sparkline([]) == ""
    assert sparkline([1.0, 1.0]) == "▁▁"
    line = sparkline([float(n) for n in range(1000)], width=40)
    assert (len(line), line[0], line[-1]) == (40, "▁", "█")


def test_a_head_is_drawn_block_by_block(view: Run) -> None:
    record = next(
        r for r in view.records if r.config.depth > 1 and not r.config.stages[0].params["first_shortcut"]
    )
    page = to_html(picture(record.config, view.facts.base if view.facts else None))
    assert Elements(page).tags.count("li") == record.config.depth + 2
    assert page.count("no shortcut") == 1
    assert page.count('class="block shortcut"') == record.config.depth - 1


def test_a_query_survives_the_address_and_rubbish_is_left_out() -> None:
    query = Query("a&b=<c>", ("failed", "stopped"), "vit", "knn", True, 3, ("knn", "loss"))
    assert Query.parse(query.search()) == replace(query, columns=("knn", "loss"))
    assert Query.parse(Query().search()) == Query()
    assert Query.parse("?sort=__class__&state=x&page=-1&order=up&column=number%20") == Query()
    assert Query.parse("?page=99999999999999999999").page == 1
    assert Query.parse(None) == Query()


def test_trials_are_filtered_and_sorted_with_the_unknown_last(view: Run) -> None:
    found = select(view, Query(states=("failed", "infeasible"), text="COLLAPSED"))
    assert {row["state"] for row in found} == {"infeasible"}
    assert {row["family"] for row in found} == {"swin"}
    for descending in (False, True):
        scores = [row["knn"] for row in select(view, Query(sort="knn", descending=descending))]
        known = [score for score in scores if score is not None]
        assert known == sorted(known, reverse=descending)
        assert scores[: len(known)] == known
        assert len(scores) == len(view.records)
    for name in FIELDS:
        assert len(select(view, Query(sort=name))) == len(view.records)


def test_the_ranking_of_the_page_is_that_of_the_terminal(view: Run) -> None:
    assert rank_table(view.rows, labels=True).row_count == sum(row.feasible for row in view.rows)
    page = to_html(as_static(overview(view, Links(0))))
    shown = re.findall(r"<code>([^<]*)</code>", page[page.index('id="ranking"') :])
    assert shown == [
        row.head_id for row in view.rows if row.feasible and (row.rank is None or row.rank <= 12)
    ]


def test_a_funnel_shows_the_way_of_its_heads_and_whom_it_let_go(tmp_path: Path) -> None:
    from headsearch.testing.toy_search import run_toy, toy_experiment

    search = {
        "strategy": "funnel",
        "candidates": 30,
        "screen": {"heads": 10},
        "trials": 4,
        "finalists": 2,
        "replicates": 2,
    }
    run_toy(tmp_path / "run", toy_experiment(sampler="random", **search))
    view = read_run(tmp_path / "run")
    assert view.passage is not None
    assert view.condition == "ended"
    page = to_html(as_static(overview(view, Links(0))))
    assert str(view.passage) in Elements(page).text
    assert f"{len(view.departed)} heads were dropped" in page
    controls = tuple(record for record in view.records if record.control is not None)
    begun = replace(view, records=controls, at_work=True)
    page = to_html(as_static(overview(begun, Links(0))))
    assert "30 heads have no place in the ranking so far" in page, "nothing is dropped before the screen"
    assert view.departed[-1].stage == "zero-cost"
    for parts in all_views(view):
        assert Elements(to_html(as_static(parts))).text.strip()
    assert "screen → proxy" in to_html(audit(view))


def test_the_audit_is_shown_question_by_question_and_waits_for_a_search_at_work(view: Run) -> None:
    assert view.audit is not None
    page = Elements(to_html(audit(view))).text
    for section in view.audit.sections:
        assert section.question in page
        assert section.conclusion in page
        assert all(line.name in page for line in section.lines)
        assert section.question in markdown_report(view).replace("\\", "")
    busy = Run(view.path, view.experiment, view.facts, view.records, at_work=True)
    assert "headsearch audit" in Elements(to_html(audit(busy))).text
    assert view.audit.sections[1].question not in markdown_report(busy)


def test_without_labels_nothing_speaks_of_a_probe(tmp_path: Path) -> None:
    from headsearch.testing.toy import ToyEvaluator
    from headsearch.testing.toy_search import run_toy, toy_experiment

    experiment = toy_experiment("none", trials=6, sampler="random", finalists=2, replicates=2)
    run_toy(tmp_path / "run", experiment, ToyEvaluator(labels=False))
    view = read_run(tmp_path / "run")
    assert not view.labels
    for parts in all_views(view):
        assert "Probe %" not in to_html(as_static(parts))
    assert "k-NN" not in to_html(audit(view))
    assert "| discrepancy | params |" in markdown_report(view)
