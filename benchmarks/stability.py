"""How stable a ranking is between seeds, and how early it settles: from the trials of a finished run.

    python benchmarks/stability.py RUN [--json]

Compares the first two seeds of every head that has two, controls with a head among them. τ is Kendall's τ-b (1: the same order, 0: no
relation) with its two-sided p-value; the noise is the standard deviation between seeds, pooled over heads; the spread is the standard
deviation of the heads' means. A score tells heads apart where the spread is much larger than the noise. Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from headsearch.results.trials import TrialRecord
from headsearch.scoring.names import MEASURES
from headsearch.search.ledger import read_records
from headsearch.trial import RungScores

Score = Callable[[RungScores], float | None]

SCORES: dict[str, Score] = {
    "linear": lambda rung: rung.linear,
    "knn": lambda rung: rung.knn,
    **{name: (lambda rung, name=name: rung.measures.get(name)) for name in MEASURES},  # type: ignore[misc]
}


def pairs(records: Sequence[TrialRecord]) -> list[tuple[TrialRecord, TrialRecord]]:
    """The first two complete seeds of every head that has them; the control without a head has no discrepancy and is left out."""
    by_head: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.state == "complete" and record.control != "none":
            by_head.setdefault(record.head_id, []).append(record)
    return [(group[0], group[1]) for group in by_head.values() if len(group) >= 2]


def agreement(first: Sequence[float | None], second: Sequence[float | None]) -> dict[str, Any]:
    """τ-b, noise and spread of two series over the same heads; heads with an unknown score are left out."""
    known = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if len(known) < 3:
        return {"heads": len(known), "tau": None, "p": None, "noise": None, "spread": None}
    result = kendalltau([a for a, _ in known], [b for _, b in known])
    return {
        "heads": len(known),
        "tau": float(result.statistic),
        "p": float(result.pvalue),
        "noise": math.sqrt(statistics.fmean((a - b) ** 2 / 2 for a, b in known)),
        "spread": statistics.stdev((a + b) / 2 for a, b in known),
    }


def report(run: Path) -> dict[str, list[dict[str, Any]]]:
    """All comparisons of a run."""
    found = pairs(read_records(run))
    between_seeds = [
        {
            "score": name,
            **agreement([score(a.rungs[-1]) for a, _ in found], [score(b.rungs[-1]) for _, b in found]),
        }
        for name, score in SCORES.items()
    ]
    rungs = [rung.epoch for rung in found[0][0].rungs] if found else []
    early = [
        {
            "rung": epoch,
            "score": name,
            **agreement(means(found, SCORES[name], place), means(found, SCORES[name], -1)),
        }
        for place, epoch in enumerate(rungs[:-1])
        for name in ("knn", "cka.embedding.output")
    ]
    against_probe = [
        {"score": name, **agreement(means(found, score, -1), means(found, SCORES["knn"], -1))}
        for name, score in SCORES.items()
        if name != "knn"
    ]
    return {"between_seeds": between_seeds, "early_rungs": early, "against_knn": against_probe}


def means(found: Sequence[tuple[TrialRecord, TrialRecord]], score: Score, rung: int) -> list[float | None]:
    """The mean over both seeds of every head's score at a rung."""
    both = [(score(a.rungs[rung]), score(b.rungs[rung])) for a, b in found]
    return [None if a is None or b is None else (a + b) / 2 for a, b in both]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON object alone")
    arguments = parser.parse_args()
    found = report(arguments.run)
    if arguments.json:
        print(json.dumps(found))
        return
    titles = {
        "between_seeds": "Between two seeds, at the full budget",
        "early_rungs": "An early rung against the full budget, means of two seeds",
        "against_knn": "Against k-NN at the full budget, means of two seeds",
    }
    console = Console(width=120, highlight=False)
    for key, rows in found.items():
        columns = [
            name
            for name in ("rung", "score", "heads", "tau", "p", "noise", "spread")
            if rows and name in rows[0]
        ]
        if key != "between_seeds":
            columns = [name for name in columns if name not in ("noise", "spread")]
        table = Table(*columns, title=titles[key], title_justify="left", box=None)
        for row in rows:
            table.add_row(*[_shown(row[column]) for column in columns])
        console.print(table, "")


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
