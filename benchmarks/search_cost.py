"""What a search costs until the head that it returns is as good as the best: the funnel against others, on real training curves.

    python benchmarks/search_cost.py [TABLE] [--repeats 500] [--json]

TABLE is a HeadBench (`benchmarks/headbench/digits.csv.gz`). Every repeat draws the order of heads, the seed of every training, and what is random in a
sampler. A head is as good as the best when its accuracy on the long schedule, the mean over seeds, is within one standard deviation between
seeds of the best head's. Counted is the cost from which on the returned head stays that good, as a share of training every head once on the long schedule; a search
that ends with a worse one counts as endless. Of a median the interval is a 95% bootstrap interval over repeats.

Trainings follow the short schedule (`proxies` of the table) or the long one, the latter also stopped early at a quarter and a half. Returned is the head with the best probe
among those trained to the end; the funnel returns the screen's first before there is one, and in the end the finalists are trained with a second seed. `tpe`
and `nsga2` are Optuna's with default settings, told the probe, and discrepancy and probe.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table
from search_policies import POLICIES, Bench, Step, Training, load

from headsearch.errors import RunError

SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
"""Of the cost of everything, at which regret is printed."""


def until_good(bench: Bench, steps: Sequence[Step]) -> Training | None:
    """What was spent when the returned head became as good as the best for the rest of the search; None where it is not in the end."""
    regret = bench.truth.max() - bench.truth
    since = None
    for step in steps:
        if regret[step.head] > bench.noise:
            since = None
        elif since is None:
            since = Training(step.epochs, step.hours)
    return since


def regret_at(bench: Bench, steps: Sequence[Step], share: float) -> float:
    """Points that the returned head falls short of the best; before anything is returned, those of a head at random."""
    regret = bench.truth.max() - bench.truth
    returned = [step.head for step in steps if step.hours <= share * bench.everything.hours + 1e-9]
    return float(regret[returned[-1]]) if returned else float(regret.mean())


def measure(bench: Bench, repeats: int) -> list[dict[str, Any]]:
    """A row a policy."""
    whole = bench.everything
    draws = np.random.default_rng(0).integers(repeats, size=(2000, repeats))
    rows = []
    for name, policy in POLICIES.items():
        searches = [policy(bench, seed) for seed in range(repeats)]
        found = [until_good(bench, steps) for steps in searches]
        row: dict[str, Any] = {
            "search": name,
            "reached": float(np.mean([each is not None for each in found])),
        }
        for unit, total in (("epochs", whole.epochs), ("hours", whole.hours)):
            shares = np.array([math.inf if each is None else getattr(each, unit) / total for each in found])
            low, high = np.quantile(np.median(shares[draws], axis=1), [0.025, 0.975], method="nearest")
            row[unit] = [_finite(float(value)) for value in (np.median(shares), low, high)]
        row["whole"] = float(np.mean([steps[-1].hours for steps in searches])) / whole.hours
        row["regret"] = float(np.mean([regret_at(bench, steps, math.inf) for steps in searches]))
        row["regret_at"] = {
            share: float(np.mean([regret_at(bench, s, share) for s in searches])) for share in SHARES
        }
        rows.append(row)
    return rows


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _percent(values: Sequence[float | None]) -> str:
    shown = ["never" if value is None else f"{100 * value:.0f}%" for value in values]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def text_tables(bench: Bench, rows: Sequence[dict[str, Any]]) -> list[Table]:
    """Cost until good, and regret against cost."""
    cost = Table(
        title="Cost until the returned head stays as good as the best, of training every head",
        box=None,
        pad_edge=False,
    )
    for header in ("search", "of the epochs", "of the hours", "reached", "whole search", "regret in the end"):
        cost.add_column(header, justify="left" if header == "search" else "right", no_wrap=True)
    curve = Table(
        title="Mean regret (points) when so much of the hours of everything is spent",
        box=None,
        pad_edge=False,
    )
    curve.add_column("search", no_wrap=True)
    for share in SHARES:
        curve.add_column(f"{100 * share:.0f}%", justify="right")
    for row in rows:
        cost.add_row(
            row["search"],
            _percent(row["epochs"]),
            _percent(row["hours"]),
            f"{100 * row['reached']:.0f}%",
            f"{100 * row['whole']:.0f}%",
            f"{row['regret']:.2f}",
        )
        curve.add_row(row["search"], *(f"{value:.2f}" for value in row["regret_at"].values()))
    return [cost, curve]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "table", type=Path, nargs="?", default=Path(__file__).parent / "headbench" / "digits.csv.gz"
    )
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    try:
        bench = load(options.table)
    except RunError as error:
        sys.exit(f"search_cost: {error}")
    rows = measure(bench, options.repeats)
    if options.json:
        print(
            json.dumps(
                {"table": options.table.name, "heads": len(bench.heads), "noise": bench.noise, "rows": rows}
            )
        )
        return
    console = Console(width=120)
    console.print(
        f"{len(bench.heads)} heads, {bench.screened.shape[1]} seeds, {options.repeats} repeats; as good as the best: within {bench.noise:.2f} points\n"
    )
    for table in text_tables(bench, rows):
        console.print(table)


if __name__ == "__main__":
    main()
