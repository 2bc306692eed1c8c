"""The outcomes of docs/protocol.md, computed from a table that `photographs.py` has written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

PROBES = ("knn", "linear")
DENSE = "miou"
"""Measured since the random heads: the trainings before have none."""
MEASURED = (*PROBES, DENSE)
NAMES = {"knn": "k-NN", "linear": "linear", "miou": "mIoU"}
BEST = 4
"""Heads by score that a search would try."""
RESAMPLES = 10_000


def read(path: Path) -> pd.DataFrame:
    """A table; one from before segmentation has none."""
    table = pd.read_csv(path)
    return table if DENSE in table else table.assign(**{DENSE: math.nan})


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """The last row of every training but screens."""
    return table[(table["arm"] != "screen") & (table["epoch"] == table["epochs"])]


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """The ends of the arms whose gains the protocol asks for: the controls, `paper`, and `best`, the head with the best score; `none` for the dense outcome too."""
    last = ends(table)
    scores = screened(table)
    best = last[last["head_id"] == scores.idxmax()].assign(arm="best") if len(scores) else last[:0]
    return pd.concat([last[~last["arm"].str.startswith("head-")], best])


def screened(table: pd.DataFrame) -> pd.Series:
    """The mean score over screens, by head."""
    return table[table["arm"] == "screen"].dropna(subset="score").groupby("head_id")["score"].mean()


def gains(last: pd.DataFrame, control: str, probes: Sequence[str] = PROBES) -> pd.DataFrame:
    """Of every arm over a control, by each probe, with simultaneous 95% intervals (Dunnett)."""
    rows: list[dict[str, Any]] = []
    for probe in probes:
        groups = {
            arm: values for arm, values in last.dropna(subset=probe).groupby("arm")[probe] if len(values) > 1
        }
        others = [arm for arm in groups if arm not in (control, "none")]
        if control not in groups or not others:
            continue
        result = stats.dunnett(*(groups[arm] for arm in others), control=groups[control], rng=0)
        interval = result.confidence_interval(0.95)
        for place, arm in enumerate(others):
            gain = groups[arm].mean() - groups[control].mean()
            low, high = float(interval.low[place]), float(interval.high[place])
            rows.append({"arm": arm, "over": control, "probe": probe, "gain": gain, "low": low, "high": high})
    return pd.DataFrame(rows)


def mean_gain(last: pd.DataFrame, control: str, probe: str, comparisons: int) -> tuple[float, float, float]:
    """Of the random heads' mean over a control, with a 95% interval that allows for so many comparisons (Welch, Bonferroni).

    The interval is for these heads: each replicate is one observation of their mean.
    """
    known = last.dropna(subset=probe)
    heads = known[known["arm"].str.startswith("head-")]
    means = heads.groupby("replicate")[probe].mean()
    base = known[known["arm"] == control][probe]
    interval = stats.ttest_ind(means, base, equal_var=False).confidence_interval(1 - 0.05 / comparisons)
    return float(means.mean() - base.mean()), float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Reliability:
    """How much of what is measured of heads is theirs, and not noise between replicates."""

    share: float
    low: float
    high: float
    """Of the variance of the means over replicates, with a 95% interval."""
    again: float
    """τ of one training of every head with the mean of the others, on average."""

    @property
    def perfect(self) -> tuple[float, float, float]:
        """τ of a perfect predictor with the means, if all is normal: 2/π arcsin √share."""
        low, share, high = (max(0.0, value) for value in (self.low, self.share, self.high))
        return tuple(2 / math.pi * math.asin(math.sqrt(value)) for value in (share, low, high))  # type: ignore[return-value]


def reliability(target: pd.DataFrame) -> Reliability:
    """Of a target with a row per head and a column per replicate: ICC(1, k) and its interval (Shrout and Fleiss 1979). Heads that lack a replicate are left out."""
    target = target.dropna()
    heads, replicates = target.shape
    between = replicates * target.mean(axis=1).var(ddof=1)
    within = target.var(axis=1, ddof=1).mean()
    ratio, degrees = between / within, (heads - 1, heads * (replicates - 1))
    low, high = ratio / stats.f.ppf(0.975, *degrees), ratio * stats.f.ppf(0.975, *reversed(degrees))
    again = [
        stats.kendalltau(target[one], target.drop(columns=one).mean(axis=1)).statistic
        for one in target.columns
    ]
    return Reliability(1 - 1 / ratio, 1 - 1 / low, 1 - 1 / high, float(np.mean(again)))


def targets(table: pd.DataFrame, probes: Sequence[str] = PROBES) -> pd.DataFrame:
    """z(k-NN) + z(linear) of every random head and replicate, z by the means over replicates."""
    last = ends(table)
    heads = last[last["arm"].str.startswith("head-")]
    total: Any = 0.0
    for probe in probes:
        values = heads.pivot(index="head_id", columns="replicate", values=probe)
        means = values.mean(axis=1)
        total = total + (values - means.mean()) / means.std()
    return total


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


def predicted(table: pd.DataFrame) -> dict[str, tuple[float, float, float]] | None:
    """The primary outcomes: τ of the screen's score, and the lead of the best four by each probe; None where the screen or most heads are missing."""
    scores = screened(table)
    last = ends(table)
    heads = last[last["arm"].str.startswith("head-")]
    means = heads.groupby("head_id")[list(MEASURED)].mean().join(scores, how="inner")
    if len(means) < BEST + 1:
        return None
    target = targets(table).mean(axis=1).reindex(means.index).to_numpy()
    score = means["score"].to_numpy()

    def tau(at: np.ndarray) -> float:
        return float(stats.kendalltau(score[at], target[at], nan_policy="omit").statistic)

    outcome = {"tau": (tau(np.arange(len(means))), *resampled(tau, len(means)))}
    for probe in MEASURED:
        values = means[probe].to_numpy()

        def lead(at: np.ndarray, values: np.ndarray = values) -> float:
            first = at[np.argsort(-score[at], kind="stable")[:BEST]]
            return float(values[first].mean() - values[at].mean())

        outcome[probe] = (lead(np.arange(len(means))), *resampled(lead, len(means)))
    return outcome


def shown(value: float, low: float, high: float) -> str:
    """A figure with its interval."""
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def cell(values: pd.Series) -> str:
    """Mean and standard deviation."""
    known = values.dropna()
    if known.empty:
        return ""
    return f"{known.mean():.2f} ± {known.std():.2f}" if len(known) > 1 else f"{known.iloc[0]:.2f}"


def judged(path: Path) -> str:
    """The outcomes as Markdown."""
    table = read(path)
    last = ends(table)
    bench = path.stem.rpartition("-")[0]
    raw = json.loads((path.parent / "heads.json").read_text(encoding="utf-8"))[bench]["raw_pixels"]
    lines = ["| arm | trainings | epochs | k-NN | linear | mIoU |", "|---|---|---|---|---|---|"]
    lines.append(f"| raw pixels | | | {raw['knn']:.1f} | {raw['linear']:.1f} | |")
    for arm, rows in last.groupby("arm"):
        named = f"`{arm}`" + (f" `{rows['head_id'].iloc[0]}`" if arm.startswith("head-") else "")
        cells = " | ".join(cell(rows[probe]) for probe in MEASURED)
        lines.append(f"| {named} | {len(rows)} | {rows['epochs'].iloc[0]:.0f} | {cells} |")
    lines += ["", "| gain | over | k-NN | linear | mIoU |", "|---|---|---|---|---|", *gain_rows(table), ""]
    lines += [
        f"- Void by {NAMES[probe]}: `none` is not better than raw pixels."
        for probe in PROBES
        if last[last["arm"] == "none"][probe].mean() <= raw[probe]
    ]
    lines += primary_lines(table)
    flat = flatness(table)
    lines.append(
        f"- Curves: the last quarter adds {flat['share'].min():.0%} to {flat['share'].max():.0%} of the k-NN gain before it; "
        f"{flat['flat'].sum()} of {len(flat)} arms count as flat."
    )
    predictions = np.load(path.with_name(f"{path.stem}-predictions.npz"))
    lines += [
        f"- Noise of {NAMES[row['probe']]}: {row['replicates']:.2f} points between replicates, {row['images']:.2f} over resampled held-out images."
        for row in noise(last, predictions, predictions["labels"]).to_dict("records")
    ]
    return "\n".join(lines)


def gain_rows(table: pd.DataFrame) -> list[str]:
    """Gains over either control."""
    arms, last = compared(table), ends(table)
    rows = []
    for control in ("none", "none-equal-time"):
        found = gains(arms, control, MEASURED)
        if found.empty:
            continue
        for arm, each in found.groupby("arm"):
            by_probe = each.set_index("probe")[["gain", "low", "high"]]
            cells = [shown(*by_probe.loc[probe]) if probe in by_probe.index else "" for probe in MEASURED]
            rows.append(f"| `{arm}` | `{control}` | {' | '.join(cells)} |")
        if predicted(table) is not None:
            comparisons = found["arm"].nunique() + 1
            known = last[last["arm"] == control][list(MEASURED)].count()
            cells = [
                shown(*mean_gain(last, control, probe, comparisons)) if known[probe] > 1 else ""
                for probe in MEASURED
            ]
            rows.append(f"| mean of the random heads | `{control}` | {' | '.join(cells)} |")
    return rows


def primary_lines(table: pd.DataFrame) -> list[str]:
    """The primary outcomes, and the reliability of their target."""
    outcome = predicted(table)
    if outcome is None:
        return ["- Primary outcomes: not reached; too few of the heads, or no screen, have been trained."]
    found = reliability(targets(table))
    leads = "; ".join(f"{NAMES[probe]} {shown(*outcome[probe])}" for probe in MEASURED)
    return [
        f"- τ of the screen's score with z(k-NN) + z(linear): {shown(*outcome['tau'])}.",
        f"- The best {BEST} heads by score, over all: {leads}.",
        f"- Reliability of the target: {shown(found.share, found.low, found.high)}. A perfect predictor would reach a τ of "
        f"{shown(*found.perfect)}, another training of every head {found.again:+.2f}.",
    ]
