"""The outcomes of docs/protocol.md, computed from a table that `photographs.py` has written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

PROBES = ("knn", "linear")
BEST = 4
"""Heads by score that a search would try."""
RESAMPLES = 10_000


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """The last row of every training but screens."""
    return table[(table["arm"] != "screen") & (table["epoch"] == table["epochs"])]


def gains(last: pd.DataFrame, control: str) -> pd.DataFrame:
    """Of every arm over a control, by both probes, with simultaneous 95% intervals (Dunnett)."""
    groups = {arm: rows for arm, rows in last.groupby("arm") if len(rows) > 1}
    others = [arm for arm in groups if arm not in (control, "none")]
    rows: list[dict[str, Any]] = []
    for probe in PROBES:
        result = stats.dunnett(*(groups[arm][probe] for arm in others), control=groups[control][probe], rng=0)
        interval = result.confidence_interval(0.95)
        for place, arm in enumerate(others):
            gain = groups[arm][probe].mean() - groups[control][probe].mean()
            low, high = float(interval.low[place]), float(interval.high[place])
            rows.append({"arm": arm, "over": control, "probe": probe, "gain": gain, "low": low, "high": high})
    return pd.DataFrame(rows)


def flatness(table: pd.DataFrame) -> pd.DataFrame:
    """What the last quarter of the epochs adds to the k-NN accuracy, over what was gained from the first rung until then."""
    rows = []
    for arm, part in table[table["arm"] != "screen"].groupby("arm"):
        curve = part.groupby("epoch")["knn"].mean()
        before, added = curve.iloc[-2] - curve.iloc[0], curve.iloc[-1] - curve.iloc[-2]
        rows.append({"arm": arm, "added": added, "share": added / before, "flat": added < before / 5})
    return pd.DataFrame(rows)


def noise(last: pd.DataFrame, predictions: Any, labels: np.ndarray) -> pd.DataFrame:
    """Standard deviation of an accuracy between replicates (pooled over arms), and over resampled held-out images."""
    random = np.random.default_rng(0)
    drawn = random.integers(len(labels), size=(1000, len(labels)))
    rows = []
    for probe in PROBES:
        right = np.array([predictions[name] == labels for name in predictions if name.endswith(probe)])
        of_images = float(np.mean([(100 * hits[drawn].mean(axis=1)).std() for hits in right]))
        between = float(np.sqrt(last.groupby("arm")[probe].var(ddof=1).mean()))
        rows.append({"probe": probe, "replicates": between, "images": of_images})
    return pd.DataFrame(rows)


def resampled(statistic: Callable[[np.ndarray], float], count: int) -> tuple[float, float]:
    """A 95% bootstrap interval over heads of a statistic of their places."""
    random = np.random.default_rng(0)
    values = [statistic(random.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(values, (0.025, 0.975))
    return float(low), float(high)


def predicted(table: pd.DataFrame) -> dict[str, Any] | None:
    """The primary outcomes; None where screen or heads are missing."""
    scores = table[table["arm"] == "screen"].dropna(subset="score").groupby("head_id")["score"].mean()
    last = ends(table)
    means = last[last["arm"].str.startswith("head-")].groupby("head_id")[list(PROBES)].mean()
    both = means.join(scores, how="inner")
    if len(both) < BEST + 1:
        return None
    target = sum((both[probe] - both[probe].mean()) / both[probe].std() for probe in PROBES).to_numpy()
    score = both["score"].to_numpy()
    outcome: dict[str, Any] = {
        "heads": len(both),
        "tau": (
            float(stats.kendalltau(score, target).statistic),
            *resampled(lambda at: float(stats.kendalltau(score[at], target[at]).statistic), len(both)),
        ),
    }
    for probe in PROBES:
        values = both[probe].to_numpy()

        def lead(at: np.ndarray, values: np.ndarray = values) -> float:
            first = at[np.argsort(-score[at], kind="stable")[:BEST]]
            return float(values[first].mean() - values[at].mean())

        outcome[probe] = (lead(np.arange(len(both))), *resampled(lead, len(both)))
    return outcome


def shown(value: float, low: float, high: float) -> str:
    """A figure with its interval."""
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def judge(path: Path) -> None:
    """Print the outcomes as Markdown."""
    table = pd.read_csv(path)
    last = ends(table)
    bench = path.stem.rpartition("-")[0]
    raw = json.loads((path.parent / "heads.json").read_text(encoding="utf-8"))[bench]["raw_pixels"]
    print("| arm | trainings | epochs | k-NN | linear |\n|---|---|---|---|---|")
    print(f"| raw pixels | | | {raw['knn']:.1f} | {raw['linear']:.1f} |")
    for arm, rows in last.groupby("arm"):
        cells = [f"{rows[probe].mean():.2f} ± {rows[probe].std():.2f}" for probe in PROBES]
        print(f"| `{arm}` | {len(rows)} | {rows['epochs'].iloc[0]:.0f} | {' | '.join(cells)} |")
    controls = [name for name in ("none", "none-equal-time") if (last["arm"] == name).sum() > 1]
    print("\n| gain | over | k-NN | linear |\n|---|---|---|---|")
    for control in controls:
        for arm, rows in gains(last, control).groupby("arm"):
            cells = [shown(*row[["gain", "low", "high"]]) for _, row in rows.iterrows()]
            print(f"| `{arm}` | `{control}` | {' | '.join(cells)} |")
    for row in flatness(table).to_dict("records"):
        flat = "flat" if row["flat"] else "not flat"
        print(
            f"\n{row['arm']}: the last quarter adds {row['added']:.1f} points of k-NN, {row['share']:.0%} of the gain before it: {flat}"
        )
    outcome = predicted(table)
    if outcome is None:
        print("\nPrimary outcomes: not reached; the screen or the heads have not been trained.")
    else:
        print(f"\nτ of the screen's score, {outcome['heads']} heads: {shown(*outcome['tau'])}")
        print(
            f"best {BEST} by score over all: k-NN {shown(*outcome['knn'])}, linear {shown(*outcome['linear'])}"
        )
    predictions = np.load(path.with_name(f"{path.stem}-predictions.npz"))
    for row in noise(last, predictions, predictions["labels"]).to_dict("records"):
        print(
            f"\n{row['probe']}: {row['replicates']:.2f} points between replicates, {row['images']:.2f} over resampled held-out images"
        )
