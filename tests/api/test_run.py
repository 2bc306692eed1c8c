"""A run from Python: the same ranking, trials, scores, head and verdict as the commands print."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import headsearch
from headsearch.export import export_head
from headsearch.report.named_figures import FIGURES
from headsearch.results.tables import rank_text, trial_text
from headsearch.runs.run import read_run


@pytest.fixture(scope="module")
def run(toy_run: Path) -> headsearch.Run:
    return headsearch.open(toy_run)


def _plain(table: pd.DataFrame) -> list[dict[str, object]]:
    return [
        {name: None if not isinstance(value, list | dict) and pd.isna(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]  # fmt: skip


@pytest.mark.parametrize("by", [None, "pareto", "probe", "discrepancy", "score"])
def test_the_table_is_the_ranking(run: headsearch.Run, toy_run: Path, by: str | None) -> None:
    expected = json.loads(rank_text(read_run(toy_run).ranking(by), "json"))  # type: ignore[arg-type]
    assert _plain(run.table(by)) == expected  # type: ignore[arg-type]
    assert run.table()["rank"].dropna().to_list() == list(range(1, len(run.ranked) + 1))


def test_an_order_that_is_not_known_is_refused(run: headsearch.Run) -> None:
    with pytest.raises(headsearch.UserError, match="cannot rank by 'prob'; did you mean 'probe'"):
        run.table("prob")  # type: ignore[arg-type]


def test_everything_holds_the_heads_that_were_let_go(run: headsearch.Run) -> None:
    table = run.table(everything=True)
    assert len(table) == len(run.rows) + len(run.departed)
    assert run.departed


def test_trials_are_those_of_the_command(run: headsearch.Run) -> None:
    assert _plain(run.trials()) == json.loads(trial_text(run.records, "json"))


def test_curves_hold_every_rung(run: headsearch.Run) -> None:
    trained = [record for record in run.records if record.state != "duplicate"]
    assert len(run.curves()) == sum(len(record.rungs) for record in trained)


def test_a_head_is_what_export_writes_and_a_module(
    run: headsearch.Run, toy_run: Path, tmp_path: Path
) -> None:
    import torch

    head = run.head(2)
    assert export_head(toy_run, tmp_path / "a.yaml", rank=2) == head
    assert run.export(tmp_path / "b.yaml", rank=2) == head
    assert (tmp_path / "a.yaml").read_text() == (tmp_path / "b.yaml").read_text()
    info = head.base.info
    module = headsearch.load_head(head)
    assert module(torch.zeros(2, info.width, *info.grid)).shape == (2, info.width, *info.grid)
    assert run.head(head_id=head.head_id) == head
    assert head.head_id in repr(head)


@pytest.mark.parametrize("rank", [0, 10_000])
def test_a_rank_that_is_not_there_is_told(run: headsearch.Run, rank: int) -> None:
    with pytest.raises(headsearch.UserError, match=f"no head at rank {rank}"):
        run.head(rank)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_hold_the_runs_numbers(run: headsearch.Run, name: str) -> None:
    figure = run.figure(name)
    drawn = [
        value for trace in figure.data for axis in (trace.x, trace.y) if axis is not None for value in axis
    ]
    best = run.ranked[0]
    assert best.probe is not None
    expected = {
        "overview": best.probe,
        "curves": run.by_head[best.head_id][0].rungs[-1].knn,
        "cost": run.spending.parts[0].epochs,
    }
    assert any(
        value == pytest.approx(expected[name], rel=1e-5) for value in drawn if isinstance(value, int | float)
    )


def test_an_unknown_figure_is_told(run: headsearch.Run) -> None:
    with pytest.raises(headsearch.UserError, match="no figure 'overveiw'; did you mean 'overview'"):
        run.figure("overveiw")


def test_a_notebook_shows_verdict_and_ranking_with_all_text_escaped(
    run: headsearch.Run, toy_run: Path, tmp_path: Path
) -> None:
    html = run._repr_html_()
    assert run.verdict in html
    assert all(row.head_id in html for row in run.ranked[:12])
    assert f"and {len(run.ranked) - 12} more" in html or len(run.ranked) <= 12
    assert run.verdict in repr(run)
    strange = shutil.copytree(toy_run, tmp_path / "<script>alert(1)")
    assert "<script>" not in headsearch.open(strange)._repr_html_()


def test_a_damaged_run_says_so(toy_run: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_run, tmp_path / "run")
    (tmp_path / "run" / "experiment.yaml").write_text("experiment: {")
    run = headsearch.open(tmp_path / "run")
    assert run.problems
    assert "Cannot be read" in run._repr_html_()
    with pytest.raises(headsearch.UserError, match=r"experiment\.yaml"):
        run.head()
