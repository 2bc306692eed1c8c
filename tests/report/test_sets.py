"""A run that searched sets of heads has a report like any other: every member is drawn and described."""

import pytest

from headsearch.heads import parse_head
from headsearch.report.page import html_report
from headsearch.report.picture import picture
from headsearch.report.static import to_html
from headsearch.runs.run import Run, read_run
from headsearch.search.session import conduct
from headsearch.testing.toy_search import TOY_BASE, toy_experiment, toy_materials


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    experiment = toy_experiment(space="sets", strategy="proxies", trials=4, finalists=2, replicates=2)
    folder = tmp_path_factory.mktemp("sets") / "run"
    return read_run(conduct(experiment, toy_materials(experiment), folder).directory)


def test_a_search_of_sets_ranks_them_with_their_cost(run: Run) -> None:
    ranked = [row for row in run.rows if row.rank is not None]
    assert len(ranked) == 4
    for row in ranked:
        assert row.family.startswith("set(")
        assert row.params == 1000 * parse_head(row.config).depth


def test_every_member_is_drawn() -> None:
    drawn = to_html(
        picture(parse_head({"set": [{"convnext": {"depth": 1}}, {"mixer": {"depth": 2}}]}), TOY_BASE)
    )
    assert drawn.count("Embedding") == 2
    assert "1 convnext blocks" in drawn
    assert "2 mixer blocks" in drawn


def test_the_report_names_the_sets_and_how_to_load_them(run: Run) -> None:
    page = html_report(run)
    best = next(row for row in run.rows if row.rank == 1)
    assert best.head_id in page
    assert "load_heads" in page
    assert "plain self-supervised learning. Every head is compared with it" not in page
