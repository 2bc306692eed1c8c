"""The tables of the evidence: their numbers from toy runs against scipy, and the document that they stand in."""

import importlib
import itertools
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from headbench.making import OVERHEAD, collect, write_headbench
from scipy.stats import kendalltau

from headsearch.scoring.zero_cost_scores import FILE_NAME
from headsearch.testing.toy_search import run_toy, score_toys, toy_experiment, toy_materials

DOCUMENT = Path(__file__).parents[2] / "docs" / "evidence_tables.md"


@pytest.fixture(scope="module")
def script() -> Any:
    return importlib.import_module("evidence")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bench of toy runs, with all parts."""
    folder: Path = tmp_path_factory.mktemp("runs")
    every = {"sampler": "grid", "trials": 10, "finalists": 10, "replicates": 3}
    run_toy(folder / "proxies", toy_experiment(**every))
    run_toy(folder / "long", toy_experiment(seed=5, **every))
    run_toy(
        folder / "screen",
        toy_experiment(strategy="screen", screen={"heads": 66, "batch": 68, "reduction": 1}, replicates=3),
    )
    (folder / "screen" / OVERHEAD).write_text("1.5")
    for part in ("screen-all", "screen-long"):
        shutil.copytree(folder / "screen", folder / part)
    (folder / "untrained").mkdir()
    space = toy_materials(toy_experiment()).space
    score_toys(space, 66, folder / "untrained" / FILE_NAME, lambda done, total: None, seed=0)
    here: Path = tmp_path_factory.mktemp("benchmarks")
    (here / "headbench").mkdir()
    write_headbench(here / "headbench" / "a-toy.csv.gz", collect(folder))
    return here / "headbench" / "a-toy.csv.gz"


def test_taus_are_those_of_scipy(script: Any, table: Path) -> None:
    curves = script.Curves(table)
    knn = curves.scores("long", "knn")
    # Ten heads and the controls same and mlp.
    assert knn.shape == (12, 3)
    expected = np.mean([kendalltau(knn[a], knn[b]).statistic for a, b in itertools.combinations(range(3), 2)])
    assert script._between(knn).tau == pytest.approx(expected)


def test_gains_are_differences_to_each_control(script: Any, table: Path) -> None:
    curves = script.Curves(table)
    shown, *sentences = script.gains(curves)
    knn = curves.scores("long", "knn").mean(axis=1).sort_values(ascending=False)
    assert shown.row_count == len(knn) + 1
    over = list(shown.columns[2].cells)
    gain = knn.iloc[0] - curves.control("long", "none", "knn").mean()
    assert over[0].startswith(f"{gain:+.1f} [")
    assert [sentence.split(" heads beat ")[1].split(",")[0] for sentence in sentences[:3]] == [
        "none",
        "same",
        "mlp",
    ]


def test_the_document_gets_its_tables_and_is_checked(
    script: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "evidence.md"
    names = ("gains", "discrepancy", "seeds", "screens", "schedules", "scores")
    text = "".join(f"# {name}\n<!-- evidence: {name} a-toy -->\nold\n<!-- end -->\nkept\n" for name in names)
    document.write_text(text)
    monkeypatch.setattr(script, "DOCUMENT", document)
    monkeypatch.setattr(script, "HERE", table.parent.parent)
    monkeypatch.setattr(sys, "argv", ["evidence.py"])
    script.main()
    written = document.read_text()
    assert "old" not in written
    assert written.count("kept") == len(names)
    assert written.count("```") == 2 * len(names)
    monkeypatch.setattr(sys, "argv", ["evidence.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    document.write_text(written.replace("0.", "1."))
    with pytest.raises(SystemExit, match="is not what the curves say"):
        script.main()


def test_a_score_over_two_tables_is_judged_by_the_mean_of_scipys_taus(script: Any) -> None:
    names = ("digits", "cifar10")
    found = script.label_free_scores.judge([script.path_of(name) for name in names], "proxies")
    taus = []
    for name in names:
        curves = script.Curves(script.path_of(name))
        both = pd.concat(
            [
                curves.scores(part, column).mean(axis=1)
                for part, column in (("proxies", "score"), ("long", "knn"))
            ],
            axis=1,
        )
        taus.append(kendalltau(both[0], both[1]).statistic)
    (score,) = (each for each in found["scores"] if each.name == "score")
    assert score.agreement.tau == pytest.approx(np.mean(taus))
    # The score is the best on either, and so it is what each is judged by.
    assert {name: (each.name, each.agreement.tau) for name, each in found["carried"].items()} == {
        name: ("score", pytest.approx(tau)) for name, tau in zip(names, taus, strict=True)
    }
    assert (found["heads"], found["tables"]) == (26, 2)


def test_proxies_from_a_trunk_are_judged_by_scipys_tau(script: Any) -> None:
    curves, branched = (script.Curves(script.path_of(name)) for name in ("digits", "trunk/digits"))
    ends = curves.scores("long", "knn").mean(axis=1)
    assert set(branched.scores("trunk", "knn").index) == set(ends.index)
    taus = {
        part: kendalltau(scores[[0, 1]].mean(axis=1).reindex(ends.index), ends).statistic
        for part, scores in (
            ("cold", curves.scores("proxies", "knn")),
            ("trunk", branched.scores("trunk", "knn")),
        )
    }
    shown, *_ = script.trunk(curves)
    cells = {name: list(column.cells) for column in shown.columns for name in [column.header]}
    rows = dict(
        zip(cells["proxies"], zip(cells["k-NN"], cells["k-NN, beyond cold"], strict=True), strict=True)
    )
    for part, tau in taus.items():
        assert rows[part][0].startswith(f"{tau:.2f} [")
    assert rows["trunk"][1].startswith(f"{taus['trunk'] - taus['cold']:+.2f} [")


SLOW = {"cost", "scores", "anchors", "protocol"}


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_is_published_is_what_the_curves_say(
    script: Any, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    names = [name for name in (*script.TABLES, script.PROTOCOL) if (name in SLOW) is slow]
    monkeypatch.setattr(sys, "argv", ["evidence.py", "--check", "--only", *names])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    assert DOCUMENT == script.DOCUMENT


def test_orders_are_held_against_other_seeds_of_the_long_schedule(script: Any) -> None:
    curves = script.Curves(script.path_of("digits"))
    target = curves.scores("long", "knn")
    for length, part, epoch, place, column in (
        ("proxy", "proxies", None, 2, "score"),
        ("proxy", "proxies", None, 1, "knn"),
        ("full", "long", None, 1, "knn"),
        ("half", "long", 20, 2, "score"),
    ):
        values = curves.scores(part, column, epoch).reindex(target.index)
        pairs = [(a, b) for a in values for b in target if part != "long" or a != b]
        taus = [kendalltau(values[a], target[b], nan_policy="omit").statistic for a, b in pairs]
        assert script._orders(curves, length)[place] == pytest.approx(np.mean(taus))
