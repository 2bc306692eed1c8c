"""Three label-free predictors judged: taus against scipy, the protocol's rule, and whether the proxies trained anew are those of HeadBench."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from headbench.table import read_headbench
from label_free_candidates import HERE, MEASURED
from label_free_outcomes import CANDIDATES, SCORES, USED, judge, text
from scipy.stats import kendalltau

PUBLISHED = sorted((HERE / "label_free").glob("*.csv.gz"))


def benches(seed: int, heads: tuple[int, ...] = (12, 12, 11)) -> list[pd.DataFrame]:
    """Scores that know nothing, but DSE, which knows the target."""
    random = np.random.default_rng(seed)
    found = []
    for count in heads:
        names = [f"head-{place:02}" for place in range(count)]
        table = pd.DataFrame(random.normal(size=(count, len(SCORES))), index=names, columns=list(SCORES))
        found.append(table.assign(target=table["DSE"] + 0.1 * random.normal(size=count)))
    return found


def test_taus_are_those_of_scipy_and_leads_their_differences() -> None:
    frames = benches(0)
    expected = {
        name: [kendalltau(frame[name], frame["target"]).statistic for frame in frames] for name in SCORES
    }
    judged = {each.score: each for each in judge(frames)}
    for name, each in judged.items():
        assert [found.tau for found in each.benches] == pytest.approx(expected[name])
        assert each.mean.tau == pytest.approx(np.mean(expected[name]))
        assert each.without[0] == pytest.approx(np.mean(expected[name][1:]))
        if each.lead is not None:
            ahead = np.subtract(expected[name], expected[USED])
            assert each.lead.difference == pytest.approx(ahead.mean())
            assert each.leads == (ahead > 0).sum()


def test_what_knows_the_target_replaces_the_score_and_what_knows_nothing_does_not() -> None:
    replacing = [{each.score for each in judge(benches(seed)) if each.replaces} for seed in range(3)]
    assert replacing == [{"DSE"}] * 3


def test_a_lead_on_one_bench_alone_replaces_nothing() -> None:
    frames = benches(0)
    for frame in frames[1:]:
        frame["target"] = frame[USED]
    (dse,) = (each for each in judge(frames) if each.score == "DSE")
    assert dse.leads == 1
    assert not dse.replaces


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name.split(".")[0])
def test_proxies_trained_anew_are_those_of_headbench(path: Any) -> None:
    """To the digits that the tables hold; a LiDAR lies between 1 and the width, as a rank does."""
    where = ["head_id", "replicate", "seed"]
    known = ["knn", "linear", "loss", "procrustes.embedding.output", "retrieval.head"]
    again, whole = read_headbench(path), read_headbench(HERE / path.name)
    once = whole[(whole["part"] == "proxies") & whole["control"].isna()]
    once = once[once["epoch"] == once["epoch"].max()].set_index(where)
    again = again.set_index(where)
    pd.testing.assert_frame_equal(again[known], once.loc[again.index, known], check_exact=True)
    assert again[list(MEASURED)].notna().all(axis=None)
    assert again["lidar.head"].between(1, 64).all()


def test_the_tables_say_what_was_measured_and_whether_anything_replaces_the_score() -> None:
    assert PUBLISHED, "nothing was measured"
    tables = {path.name: (read_headbench(HERE / path.name), read_headbench(path)) for path in PUBLISHED}
    knn, linear, measured, rule = text(tables)
    assert knn.row_count == linear.row_count == len(SCORES) + 1
    assert measured.count(" heads, ") == len(PUBLISHED)
    assert rule.split(": ")[1] == "none" or set(rule.split(": ")[1].split(", ")) <= set(CANDIDATES)
