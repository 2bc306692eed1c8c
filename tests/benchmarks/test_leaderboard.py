"""The leaderboard against scipy and by hand, and what a score may not do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import leaderboard
import numpy as np
import pytest
from headbench.table import read_headbench
from scipy import stats

from headsearch.errors import RunError

ROOT = Path(leaderboard.__file__).parents[1]


@pytest.fixture(scope="module")
def bench() -> leaderboard.Bench:
    return leaderboard.Bench(leaderboard.HERE / "cifar10.csv.gz", "screen")


def test_tau_and_ceiling_are_those_of_scipy(bench: leaderboard.Bench) -> None:
    table = read_headbench(leaderboard.HERE / "cifar10.csv.gz")
    screened = table[(table["part"] == "screen") & (table["epoch"] == 4)]
    score = screened.groupby("head_id")["retrieval.head"].mean()
    long = table[(table["part"] == "long") & (table["epoch"] == 20)]
    target = long.groupby("head_id")["knn"].mean().loc[score.index]
    [found] = [leaderboard.row("retrieval", lambda heads: heads["retrieval.head"], [bench])]
    assert found["tau"] == pytest.approx(stats.kendalltau(score, target).statistic)
    assert found["regret_1"] == pytest.approx(target.max() - target[score.idxmax()])
    assert found["regret_3"] == pytest.approx(target.max() - target[score.nlargest(3).index].max())
    first, second = (
        long[long["replicate"] == seed].set_index("head_id")["knn"].loc[score.index] for seed in (0, 1)
    )
    ceiling = leaderboard.ceiling([bench])["tau"]
    assert ceiling == pytest.approx(stats.kendalltau(first, second).statistic)


def test_a_target_that_a_bench_lacks_is_named_and_benches_that_have_it_are_found() -> None:
    with pytest.raises(RunError, match=r"cifar10.csv.gz: has no miou after the long schedule"):
        leaderboard.Bench(leaderboard.HERE / "cifar10.csv.gz", "screen", "miou")
    linear = leaderboard.Bench(leaderboard.HERE / "cifar10.csv.gz", "screen", "linear").target()
    table = read_headbench(leaderboard.HERE / "cifar10.csv.gz")
    long = table[(table["part"] == "long") & (table["epoch"] == 20)]
    assert linear.to_dict() == pytest.approx(long.groupby("head_id")["linear"].mean()[linear.index].to_dict())
    assert "cifar10.csv.gz" in {path.name for path in leaderboard.having("proxies", "linear")}


def test_the_lowest_leaves_out_each_family(bench: leaderboard.Bench) -> None:
    def score(heads: object) -> object:
        return heads["retrieval.head"]  # type: ignore[index]

    values, target = bench.judged(score), bench.target()
    without = [
        stats.kendalltau(values[bench.families != family], target[bench.families != family]).statistic
        for family in bench.families.unique()
    ]
    assert leaderboard.row("retrieval", score, [bench])["lowest"] == pytest.approx(min(without))


def test_a_score_sees_no_accuracy_and_may_spoil_nothing(bench: leaderboard.Bench) -> None:
    def spoils(heads: object) -> object:
        assert not {"knn", "linear", "score"} & set(heads.columns)  # type: ignore[attr-defined]
        heads["retrieval.head"] = 0.0  # type: ignore[index]
        return np.arange(len(heads))  # type: ignore[arg-type]

    before = bench.judged(lambda heads: heads["retrieval.head"])
    bench.judged(spoils)
    assert bench.judged(lambda heads: heads["retrieval.head"]).equals(before)
    with pytest.raises(RunError, match=r"shape \(\); expected one number for each of 12 heads"):
        bench.judged(lambda heads: 1.0)


def test_a_score_of_ones_own_has_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def score(heads):\n    return -heads['params']\n", encoding="utf-8")
    three = [str(leaderboard.HERE / f"{name}.csv.gz") for name in ("digits", "cifar10", "cifar10-convnext")]
    monkeypatch.setattr(sys, "argv", ["leaderboard.py", f"{file}:score", "--json", "--tables", *three])
    assert leaderboard.main() == 0
    rows = {row["score"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows[f"{file}:score"]["tau"] == pytest.approx(-rows["parameters"]["tau"])
    # docs/evidence.md: the score's tau from a screen.
    assert rows["headsearch's score"]["tau"] == pytest.approx(0.67, abs=0.005)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nope", "names no function"),
        ("{}/none.py:score", "names no function"),
        ("{}/mine.py:other", "has no function 'other'"),
    ],
)
def test_what_is_no_score_is_one_line(
    named: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("score = None\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["leaderboard.py", named.format(tmp_path)])
    assert leaderboard.main() == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_tables_are_read_without_torch_and_optuna_runs_on_them() -> None:
    program = (
        "import sys, runpy; runpy.run_path('examples/headbench_optuna.py'); assert 'torch' not in sys.modules"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "below the best head" in ended.stdout
