"""Whether scores at random initialisation predict what training gives: against the trials of a finished run with labels.

    python benchmarks/zero_cost_agreement.py RUN [--seeds 3] [--json]

For every head that a proxy of the run has trained in full (controls with a head among them; replicates averaged), its zero-cost scores on the run's own
base and images, and Kendall's τ-b of each with the k-NN accuracy of the trained base. `low` and `high` bound 95 % of 2,000 bootstrap draws of heads: with
a dozen heads they are wide, and heads that a search has chosen are not a random sample of its space. Trains nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from headsearch.heads import Candidate, HeadConfig
from headsearch.runs.directory import RunDirectory
from headsearch.runs.run import read_records
from headsearch.scoring.zero_cost_scores import ORDERS
from headsearch.search.zero_cost import ZeroCostScorer

DRAWS = 2000


def trained(run: str) -> dict[HeadConfig, float]:
    """k-NN accuracy in percent of every head with a full proxy, averaged over its seeds."""
    accuracies: dict[HeadConfig, list[float]] = {}
    for record in read_records(run):
        complete = record.state == "complete" and record.stage == "proxy" and len(record.config.heads) == 1
        if complete and record.rungs[-1].knn is not None and not record.config.members:
            accuracies.setdefault(record.config, []).append(record.rungs[-1].knn)
    return {config: statistics.fmean(values) for config, values in accuracies.items()}


def agreement(name: str, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """τ-b of a zero-cost score with the trained accuracy, with its bootstrap interval."""
    row: dict[str, Any] = {"score": name, "heads": len(pairs), "tau": None, "low": None, "high": None}
    if len(pairs) < 4:
        return row
    values = np.array(pairs)
    random = np.random.default_rng(0)
    draws = (values[random.integers(len(values), size=len(values))] for _ in range(DRAWS))
    taus = [tau for draw in draws if not math.isnan(tau := float(kendalltau(*draw.T).statistic))]
    low, high = np.quantile(taus, [0.025, 0.975])
    return row | {
        "tau": float(kendalltau(*values.T).statistic),
        "low": float(low),
        "high": float(high),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run directory with labels")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    accuracies = trained(options.run)
    scorer = ZeroCostScorer(RunDirectory.open(options.run).experiment(), seeds=options.seeds)
    scores = {config: scorer.score(Candidate.of(config, scorer.base)) for config in accuracies}
    columns = {name: {config: row.value(name) for config, row in scores.items()} for name in ORDERS}
    columns["params"] = {config: row.cost.params if row.cost else None for config, row in scores.items()}
    rows = [
        agreement(
            name,
            [(value, accuracies[config]) for config, value in column.items() if value is not None],
        )
        for name, column in columns.items()
    ]
    if options.json:
        print(json.dumps({"run": options.run, "seeds": options.seeds, "against": "knn", "rows": rows}))
        return
    table = Table(title="At initialisation against k-NN after training", box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        cells = (f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values())
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    main()
