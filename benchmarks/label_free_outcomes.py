"""The outcomes of benchmarks/headbench/LABEL_FREE.md, computed from the tables of HeadBench and of `label_free_candidates.py`.

`python benchmarks/evidence.py --only candidates` writes them. The protocol names two targets and does not choose: the rule has to hold for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from headbench.prediction import Ahead, Bench, ahead
from headbench.table import plain
from photographs_outcomes import reliability
from rich.table import Table

from headsearch.results.agreement import RESAMPLES, Tau, mean_tau

TARGETS = ("knn", "linear")
USED = "score in use"
CANDIDATES: Mapping[str, Callable[[pd.DataFrame], Any]] = {
    # LiDAR over the width, which all heads of a bench share, would order them alike.
    "discrepancy * LiDAR": lambda rows: rows["procrustes.embedding.output"] * rows["lidar.head"],
    "alpha-ReQ near 1": lambda rows: -(rows["alpha_req.base"] - 1).abs(),
    "DSE": lambda rows: rows["dse.base"],
}
SCORES: Mapping[str, Callable[[pd.DataFrame], Any]] = {
    **CANDIDATES,
    USED: lambda rows: rows["score"],
    "k-NN": lambda rows: rows["knn"],
    "discrepancy": lambda rows: rows["procrustes.embedding.output"],
}


@dataclass(frozen=True)
class Judged:
    """How well one score predicts a target."""

    score: str
    benches: Sequence[Tau]
    mean: Tau
    lead: Ahead | None
    """Over the score in use, in the mean over benches; None for that itself."""
    leads: int
    """Benches on which it has a higher tau than the score in use."""
    without: Sequence[float]
    """The mean tau with each bench left out."""

    @property
    def replaces(self) -> bool:
        """By the protocol's rule, for this target."""
        return self.lead is not None and self.lead.low > 0 and self.leads >= 2


def ends(long: pd.DataFrame, target: str) -> pd.DataFrame:
    """(heads, seeds): accuracy after the long schedule; controls are left out."""
    rows = long[(long["part"] == "long") & long["control"].isna()]
    return rows[rows["epoch"] == rows["epoch"].max()].pivot(
        index="head_id", columns="replicate", values=target
    )


def bench(long: pd.DataFrame, measured: pd.DataFrame, target: str) -> pd.DataFrame:
    """By head: every score, the mean over the seeds that were measured, and `target`."""
    values = {name: score(measured) for name, score in SCORES.items()}
    means = pd.DataFrame(values).groupby(measured["head_id"]).mean()
    return means.assign(target=ends(long, target).mean(axis=1))


def judge(benches: Sequence[pd.DataFrame]) -> list[Judged]:
    """Every score over all benches, whose heads are drawn together."""
    heads = sorted(set().union(*(each.index for each in benches)))
    columns = [{str(name): plain(values) for name, values in each.reindex(heads).items()} for each in benches]
    aligned = [Bench(each, each["target"]) for each in columns]
    found = []
    for name in SCORES:
        pairs = [(each.scores[name], each.target) for each in aligned]
        taus = [mean_tau([pair]) for pair in pairs]
        used = [mean_tau([(each.scores[USED], each.target)]) for each in aligned]
        leads = sum((a.tau or 0.0) > (b.tau or 0.0) for a, b in zip(taus, used, strict=True))
        lead = None if name == USED else ahead(aligned, name, USED, draws=RESAMPLES)
        others = [[*pairs[:place], *pairs[place + 1 :]] for place in range(len(pairs)) if len(pairs) > 1]
        without = [math.nan if (tau := mean_tau(each).tau) is None else tau for each in others]
        found.append(Judged(name, taus, mean_tau(pairs), lead, leads, without))
    return found


def text(benches: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Iterable[Table | str]:
    """For each target a table, then whether a candidate replaces the score in use.

    Args:
        benches: by name, the table of HeadBench and that of `label_free_candidates.py`.
    """
    replacing = set(CANDIDATES)
    for target in TARGETS:
        frames = [bench(*tables, target) for tables in benches.values()]
        judged = judge(frames)
        replacing &= {each.score for each in judged if each.replaces}
        table = Table(
            title=f"Kendall's tau-b with the {'k-NN' if target == 'knn' else 'linear'} accuracy after the long schedule [95%]",
            title_justify="left",
            box=None,
            pad_edge=False,
        )
        for header in ("score", *benches, "mean", "beyond the score in use", "mean, a bench left out"):
            table.add_column(
                header, justify="left" if header == "score" else "right", no_wrap=header == "score"
            )
        for each in judged:
            lead = (
                ""
                if each.lead is None
                else f"{each.lead.difference:+.2f} [{each.lead.low:.2f}, {each.lead.high:.2f}]"
            )
            without = " ".join(f"{tau:.2f}" for tau in each.without)
            table.add_row(each.score, *map(_shown, each.benches), _shown(each.mean), lead, without)
        ceilings = [reliability(ends(long, target)).perfect for long, _ in benches.values()]
        shown = [f"{tau:.2f} [{low:.2f}, {high:.2f}]" for tau, low, high in ceilings]
        table.add_row(
            "a perfect predictor", *shown, f"{sum(tau for tau, _, _ in ceilings) / len(ceilings):.2f}"
        )
        yield table
    counts = [
        f"{name} {measured['head_id'].nunique()} heads, {measured['replicate'].nunique()} of {ends(long, 'knn').shape[1]} seeds"
        for name, (long, measured) in benches.items()
    ]
    yield f"measured: {'; '.join(counts)}"
    yield f"by the rule, for both targets, the score in use is replaced by: {', '.join(sorted(replacing)) or 'none'}"


def _shown(found: Tau) -> str:
    return "-" if found.tau is None else f"{found.tau:.2f} [{found.low:.2f}, {found.high:.2f}]"
