"""How well does your score predict what heads gain in the end? On HeadBench's real training curves, beside the scores that are known.

    python benchmarks/leaderboard.py my_score.py:score [--part screen] [--target knn] [--json]

`score` is a function of a pandas table, one row a head, and returns a number a head, larger being better. The columns are those of HeadBench's part
(docs in headbench/README.md), means over seeds at the last rung, without accuracies: no label may be read. For example

    def score(heads):
        return heads["cka.embedding.output"] * heads["retrieval.head"]

Printed are Kendall's tau-b with the accuracy after the long schedule (by k-NN, or --target), and its 95% bootstrap interval over heads: on each bench, as mean over the benches, and the
lowest mean where one bench or one family of heads is left out; and what choosing by the score loses, in points, by its first head and by its first
three. The ceiling is what one whole long training of every head predicts of the mean of its other seeds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from headbench.table import PARTS, need_parts, plain, read_headbench

from headsearch.errors import RunError
from headsearch.results.agreement import mean_tau, regret

HERE = Path(__file__).parent / "headbench"
TARGETS = ("knn", "linear", "miou")
HIDDEN = (*TARGETS, "version", "control", "state", "replicate", "seed", "part", "score")
"""Columns that a score is not shown: accuracies, and what tells nothing of a head. `score` is headsearch's own."""
Score = Callable[[pd.DataFrame], Any]


class Bench:
    """What one table says of the heads: what a score may see, and what it is to predict."""

    def __init__(self, path: Path, part: str, target: str = "knn") -> None:
        """Read it. Raises `RunError` where the part, the long schedule or the target is missing."""
        table = read_headbench(path)
        need_parts(path, table, part, "long")
        table = table[(table["control"] != "none") & (table["state"] != "infeasible")]
        self.name = path.name.split(".")[0]
        long = table[table["part"] == "long"]
        last = long[long["epoch"] == long["epoch"].max()]
        if last[target].isna().all():
            raise RunError(f"{path}: has no {target} after the long schedule")
        self._ends = last.pivot_table(index="head_id", columns="replicate", values=target)
        rows = table[table["part"] == part].sort_values("epoch").groupby(["head_id", "replicate"]).tail(1)
        heads = rows.groupby("head_id").mean(numeric_only=True)
        heads = heads.join(rows.groupby("head_id")[["family", "config"]].first())
        if part != "untrained":
            costs = table.groupby("head_id")[["synflow", "naswot"]].first()
            heads = heads.drop(columns=list(costs)).join(costs)
        self._heads = heads[heads.index.isin(self._ends.index)].sort_index()

    @property
    def families(self) -> pd.Series[str]:
        """By head."""
        return self._heads["family"]

    def target(self) -> pd.Series[float]:
        """Accuracy after the long schedule, by head, the mean over seeds."""
        return self._ends.mean(axis=1).loc[self._heads.index]

    def judged(self, score: Score) -> pd.Series[float]:
        """The score of every head. Raises `RunError` where it gives something else."""
        shown = self._heads.drop(columns=[name for name in HIDDEN if name in self._heads])
        values = np.asarray(score(shown.copy()), dtype=float)
        if values.shape != (len(shown),):
            raise RunError(
                f"the score gives an array of shape {values.shape}; expected one number for each of {len(shown)} heads"
            )
        return pd.Series(values, index=shown.index)

    def ceilings(self) -> list[tuple[list[float], list[float]]]:
        """One long training of every head, and the mean of the others: a pair for each seed."""
        ends = self._ends.loc[self._heads.index].dropna()
        return [(ends[seed].tolist(), ends.drop(columns=seed).mean(axis=1).tolist()) for seed in ends.columns]


def having(part: str, target: str) -> list[Path]:
    """The benches of this folder that have a part, and a target after the long schedule."""

    def has(path: Path) -> bool:
        table = read_headbench(path)
        return (table["part"] == part).any() and table.loc[table["part"] == "long", target].notna().any()

    return [path for path in sorted(HERE.glob("*.csv.gz")) if has(path)]


def known(part: str) -> dict[str, Score]:
    """Scores to compare with."""
    different = "cka.embedding.output" if part == "untrained" else "procrustes.embedding.output"
    return {
        "headsearch's score": lambda heads: heads[different] * heads["retrieval.head"],
        "discrepancy": lambda heads: heads["cka.embedding.output"],
        "retrieval": lambda heads: heads["retrieval.head"],
        "parameters": lambda heads: heads["params"],
        "synflow": lambda heads: heads["synflow"],
    }


def row(name: str, score: Score, benches: Sequence[Bench]) -> dict[str, Any]:
    """A line of the leaderboard."""
    family_of = pd.concat([bench.families for bench in benches])
    family_of = family_of[~family_of.index.duplicated()].sort_index()
    pairs = [
        (
            plain(bench.judged(score).reindex(family_of.index)),
            plain(bench.target().reindex(family_of.index)),
        )
        for bench in benches
    ]
    mean = mean_tau(pairs)
    without = [
        mean_tau([*pairs[:place], *pairs[place + 1 :]]) for place in range(len(pairs)) if len(pairs) > 1
    ]
    for family in family_of.unique():
        kept = np.flatnonzero(family_of.to_numpy() != family)
        without.append(mean_tau([([a[at] for at in kept], [b[at] for at in kept]) for a, b in pairs]))
    taus = [found.tau for found in without if found.tau is not None]
    losses: dict[int, list[float]] = {1: [], 3: []}
    for scores, target in pairs:
        both = [(a, b) for a, b in zip(scores, target, strict=True) if b is not None]
        for k, lost in losses.items():
            if all(a is not None for a, _ in both):
                lost.append(regret([a for a, _ in both if a is not None], [b for _, b in both], k))
    return {
        "score": name,
        "benches": {bench.name: mean_tau([pair]).tau for bench, pair in zip(benches, pairs, strict=True)},
        "tau": mean.tau,
        "low": mean.low,
        "high": mean.high,
        "lowest": min(taus, default=None),
        "regret_1": float(np.mean(losses[1])) if len(losses[1]) == len(pairs) else None,
        "regret_3": float(np.mean(losses[3])) if len(losses[3]) == len(pairs) else None,
    }


def ceiling(benches: Sequence[Bench]) -> dict[str, Any]:
    """The line of a whole long training."""
    taus = {
        bench.name: float(
            np.mean([found for pair in bench.ceilings() if (found := mean_tau([pair]).tau) is not None])
        )
        for bench in benches
    }
    return {
        "score": "ceiling: one long training",
        "benches": taus,
        "tau": float(np.mean(list(taus.values()))),
    }


def load_score(named: str) -> Score:
    """The function that FILE.py:NAME names. Raises `RunError` where there is none."""
    file, _, name = named.rpartition(":")
    spec = importlib.util.spec_from_file_location("score", file) if file.endswith(".py") else None
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise RunError(f"'{named}' names no function; expected FILE.py:NAME")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        raise RunError(f"{file}: has no function '{name}'")
    return found  # type: ignore[no-any-return]


def main() -> int:
    """Judge and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "score", nargs="?", metavar="FILE.py:NAME", help="your score; without it only those that are known"
    )
    parser.add_argument(
        "--part", choices=[part for part in PARTS if part not in ("long", "screen-long")], default="screen"
    )
    parser.add_argument(
        "--target",
        choices=TARGETS,
        default="knn",
        help="what counts after the long schedule: accuracy by either probe, or segmentation",
    )
    parser.add_argument(
        "--tables", nargs="+", type=Path, help="benches; all of headbench/ that have the part and the target"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    try:
        tables = options.tables or having(options.part, options.target)
        benches = [Bench(path, options.part, options.target) for path in tables]
        yours = {} if options.score is None else {options.score: load_score(options.score)}
        rows = [row(name, score, benches) for name, score in {**yours, **known(options.part)}.items()]
    except RunError as error:
        print(error, file=sys.stderr)
        return 2
    rows = sorted(rows, key=lambda each: -2.0 if each["tau"] is None else -each["tau"])
    rows.append(ceiling(benches))
    if options.json:
        print(json.dumps({"part": options.part, "rows": rows}))
        return 0
    from rich.console import Console
    from rich.table import Table

    names = [bench.name for bench in benches]
    table = Table(
        "score", *names, "mean tau [95%]", "lowest, one left out", "top-1 loses", "top-3 loses", box=None
    )
    for each in rows:
        interval = f" [{each['low']:.2f}, {each['high']:.2f}]" if each.get("low") is not None else ""
        figures = [each["benches"][name] for name in names]
        table.add_row(
            each["score"],
            *("-" if value is None else f"{value:.2f}" for value in figures),
            "-" if each["tau"] is None else f"{each['tau']:.2f}{interval}",
            *(
                "-" if each.get(key) is None else f"{each[key]:.2f}"
                for key in ("lowest", "regret_1", "regret_3")
            ),
        )
    Console(width=160).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
