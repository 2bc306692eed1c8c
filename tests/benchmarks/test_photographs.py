"""The protocol's trainings and outcomes, and the accelerator's script on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import photographs
import photographs_outcomes as outcomes
import pytest
import torch
from scipy import stats

from headsearch.data.sets import MemoryImages
from headsearch.heads import Candidate
from headsearch.heads.registry import parse_head

ROOT = Path(photographs.__file__).parents[1]


def test_the_arms_are_those_of_the_protocol() -> None:
    listed = list(photographs.tasks("vit", 40, 55))
    counted = Counter(task.arm for task in listed)
    assert counted.pop("none") == 6
    assert counted == dict.fromkeys(counted, 3)
    assert len(counted) == 4 + 15
    assert len({task.name for task in listed}) == len(listed)
    assert [task.epochs for task in listed if task.arm == "none-equal-time"] == [55] * 3
    assert {len(task.heads) for task in listed if task.arm == "screen"} == {15}
    first = [task.name for task in listed[:4]]
    assert first == ["none-0", "paper-0", "mlp-0", "none-equal-time-0"]


@pytest.mark.parametrize("bench", photographs.BENCHES)
def test_the_heads_are_what_their_names_say(bench: str) -> None:
    described = json.loads(photographs.HEADS.read_text(encoding="utf-8"))[bench]
    assert len({head["head_id"] for head in described["heads"]}) == 15
    scores = [head["untrained"] for head in described["heads"]]
    assert scores == sorted(scores, reverse=True)
    for head in described["heads"]:
        assert Candidate.of(parse_head(head["config"])).head_id == head["head_id"]


def test_accuracies_are_those_of_the_predictions() -> None:
    last = outcomes.ends(pd.read_csv(photographs.HERE / "vit-mocov3.csv"))
    predictions = np.load(photographs.HERE / "vit-mocov3-predictions.npz")
    for row in last.to_dict("records"):
        for probe in outcomes.PROBES:
            found = predictions[f"{row['arm']}-{row['replicate']}/{probe}"]
            assert 100 * np.mean(found == predictions["labels"]) == pytest.approx(row[probe])


def test_with_one_arm_the_interval_is_students() -> None:
    random = np.random.default_rng(0)
    last = pd.DataFrame(
        [
            {"arm": arm, "knn": 50 + random.normal(), "linear": 60 + random.normal()}
            for arm, count in (("paper", 3), ("none", 6))
            for _ in range(count)
        ]
    )
    found = outcomes.gains(last, "none")
    for row in found.to_dict("records"):
        paper, none = (last[last["arm"] == arm][row["probe"]] for arm in ("paper", "none"))
        student = stats.ttest_ind(paper, none).confidence_interval(0.95)
        assert row["gain"] == pytest.approx(paper.mean() - none.mean())
        assert (row["low"], row["high"]) == pytest.approx((student.low, student.high), abs=0.02)


def test_a_score_that_orders_as_the_target_does_has_a_tau_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "RESAMPLES", 200)
    rows = []
    for place in range(8):
        common = {"head_id": f"h{place}", "replicate": 0, "epochs": 4, "epoch": 4}
        rows.append({**common, "arm": "screen", "score": 0.1 * place})
        accuracies = {"knn": 40.0 + place, "linear": 50.0 + 2 * place, "miou": 20.0 - place}
        rows.append({**common, "arm": f"head-{place:02}", **accuracies})
    found = outcomes.predicted(pd.DataFrame(rows))
    assert found is not None
    assert found["tau"] == pytest.approx((1.0, 1.0, 1.0))
    # The best four are 4 to 7, their mean 5.5; that of all is 3.5.
    assert found["knn"][0] == pytest.approx(2.0)
    assert found["linear"][0] == pytest.approx(4.0)
    assert found["miou"][0] == pytest.approx(-2.0)
    assert outcomes.predicted(pd.DataFrame(rows[1:])[lambda table: table["arm"] != "screen"]) is None


def test_the_reliability_is_that_of_a_known_model() -> None:
    random = np.random.default_rng(0)
    truth, shares, inside = 1.5, [], 0
    share = truth**2 / (truth**2 + 1 / 3)
    for _ in range(300):
        true = random.normal(scale=truth, size=(15, 1))
        found = outcomes.reliability(pd.DataFrame(true + random.normal(size=(15, 3))))
        shares.append(found.share)
        inside += found.low < share < found.high
    assert np.median(shares) == pytest.approx(share, abs=0.02)
    assert 0.92 < inside / 300 < 0.98


def test_a_perfect_predictor_s_tau_follows_from_the_reliability() -> None:
    random = np.random.default_rng(0)
    true = random.normal(size=4000)
    measured = true + random.normal(scale=0.5, size=4000)
    expected = outcomes.Reliability(1 / 1.25, 0.5, 0.9, 0.0).perfect[0]
    assert stats.kendalltau(true, measured).statistic == pytest.approx(expected, abs=0.02)


def test_a_mosaic_s_pixels_and_classes_are_those_of_four_images() -> None:
    plain = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 3, 16, 16).contiguous()
    found = photographs.mosaics(MemoryImages(plain, torch.arange(8) * 10), 50, seed=0)
    assert torch.equal(found.images[:, 0].long() * 10, found.masks)
    assert torch.equal(found.images[:, 0], found.images[:, 2])
    corners = found.masks[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    for mask, classes in zip(found.masks, corners, strict=True):
        assert set(mask.unique().tolist()) == set(classes.tolist())


def test_the_mean_of_the_heads_has_an_observation_for_each_replicate() -> None:
    random = np.random.default_rng(0)
    rows = [
        {"arm": arm, "replicate": replicate, "knn": random.normal()}
        for replicate in range(3)
        for arm in ("none", "head-00", "head-01")
    ]
    last = pd.DataFrame(rows)
    gain, low, high = outcomes.mean_gain(last, "none", "knn", comparisons=1)
    none = last[last["arm"] == "none"]["knn"].to_numpy()
    means = last[last["arm"] != "none"].groupby("replicate")["knn"].mean().to_numpy()
    spread = np.sqrt(means.var(ddof=1) / 3 + none.var(ddof=1) / 3)
    assert gain == pytest.approx(means.mean() - none.mean())
    assert (gain - low, high - gain) == pytest.approx((high - gain, gain - low))
    # Between Student's quantiles of four degrees of freedom and of two.
    assert 2.776 <= (high - gain) / spread <= 4.303
    assert outcomes.mean_gain(last, "none", "knn", comparisons=5)[1] < low


def test_flatness_is_the_last_quarter_over_what_came_before() -> None:
    curve = [(25, 30.0), (50, 36.0), (75, 40.0), (100, 41.0)]
    table = pd.DataFrame([{"arm": "none", "epoch": epoch, "knn": knn} for epoch, knn in curve])
    [row] = outcomes.flatness(table).to_dict("records")
    assert row == {"arm": "none", "added": 1.0, "share": pytest.approx(0.1), "flat": True}


@pytest.mark.slow
def test_the_accelerators_script_works_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "--device", "cpu", "--quick", "--out", str(out)]
    environment = {**os.environ, "PYTHON": sys.executable}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=580)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    parts = json.loads(out.read_text(encoding="utf-8"))["parts"]
    assert list(parts) == ["steps", "screen", "sharing", "streaming", "search"]
    assert parts["search"]["arms"]["none"]["trainings"] == 1
    assert parts["streaming"]["of_ready"] > 0
    assert len(parts["steps"]["rows"]) == 2
