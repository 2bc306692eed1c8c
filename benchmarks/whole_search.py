"""Whether a whole search, controls and all, finds a head as good as the best for a tenth of what training every head costs.

    python benchmarks/whole_search.py [TABLE ...] [--repeats 500] [--json]

Simulated on HeadBench. Every search follows the short schedule (a fifth of the long one) and orders heads by the label-free score, as `headsearch run` does where proxies are
shorter than half of the target. Everything is charged: the controls `none`, `same` and `mlp` with a training each, the joint screen, every training, every further seed. Hours are counted by
measured overheads. No search spends more than a tenth of the hours of training every head once on the long schedule; it returns the best mean score.

| search | spends it on |
|---|---|
| screen | the joint screen alone, once; no controls, as `strategy: screen` |
| funnel | the screen, then trainings: the best of the screen first, one of four by chance (`audit`); in the end a second seed of the best two |
| random, tpe, nsga2 | trainings of the heads that the sampler chooses, told the score; `nsga2` is told its two factors |

Trainings are taken as long as the next one and the second seeds fit. A head is as good as the best when its accuracy on the long schedule, the mean over seeds, is within one standard deviation between seeds of the
best head's. Printed is in how many of the repeats the returned head is (95% Wilson interval), and how many of all heads are, which is what a random pick has. The goal is 95%. This was written before the first
search.
"""

from __future__ import annotations

import argparse
import json
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from headbench.simulation import InOrder, Sampler
from headbench.table import read_headbench
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest
from search_policies import Bench, load, nsga2, shuffled, tpe

TABLES = [
    Path(__file__).parent / "headbench" / f"{name}.csv.gz"
    for name in ("digits", "cifar10", "cifar10-convnext")
]
SHARE = 0.1
"""Of the hours of everything, that a search may spend."""
FINALISTS = 2
"""Heads with a second seed."""
CHANCE = 4
"""One of so many trainings of the funnel is of a head taken by chance."""


@dataclass(frozen=True)
class Short:
    """The short trainings of a bench."""

    bench: Bench
    factors: np.ndarray
    """(H, R, 2): what the score multiplies, larger being better."""
    hours: np.ndarray
    """(H,): of a training."""
    controls: float
    """Hours of the three controls."""

    @property
    def limit(self) -> float:
        """Hours that a search may spend."""
        return SHARE * self.bench.everything.hours


def read(path: Path) -> Short:
    """From a table."""
    bench, table = load(path), read_headbench(path)
    last = table[(table["part"] == "proxies") & (table["epoch"] == bench.short.epochs)]
    heads = last[last["head_id"].isin(bench.heads) & last["control"].isna()]
    wide = heads.pivot(
        index="head_id", columns="replicate", values=["procrustes.embedding.output", "retrieval.head"]
    ).loc[bench.heads]
    factors = np.stack(
        [wide["procrustes.embedding.output"].to_numpy(float), wide["retrieval.head"].to_numpy(float) / 100],
        axis=-1,
    )
    plain = float(last.loc[last["control"] == "none", "seconds"].median()) / 3600
    # Where a control is one of the heads, it costs what a head costs.
    hours = bench.short.epochs * bench.hours
    beside = [last.loc[last["control"] == name, "overhead"] for name in ("same", "mlp")]
    extra = [float(hours.mean()) if rows.empty else plain * (1.0 + float(rows.median())) for rows in beside]
    return Short(bench, factors, hours, plain + sum(extra))


def screen(short: Short, seed: int) -> int:
    """The first of one joint screen."""
    seen = random.Random(seed).randrange(short.factors.shape[1])
    return int(short.bench.screened[:, seen].argmax())


def funnel(short: Short, seed: int) -> int:
    """The best of a screen and some by chance, trained."""
    chance = random.Random(seed)
    screened = short.bench.screened[:, chance.randrange(short.factors.shape[1])]
    best = sorted(range(len(screened)), key=lambda head: -screened[head])
    order: list[int] = []
    while best:
        order.append(best.pop(chance.randrange(len(best)) if len(order) % CHANCE == CHANCE - 1 else 0))
    return trained(short, InOrder(order), seed, spent=short.bench.screen.hours, begun=order[0])


def sampled(make: Callable[[Bench, int], Sampler], short: Short, seed: int, *, both: bool = False) -> int:
    """Heads that a sampler chooses, trained."""
    return trained(short, make(short.bench, seed), seed, both=both)


def trained(
    short: Short,
    sampler: Sampler,
    seed: int,
    *,
    spent: float = 0.0,
    begun: int | None = None,
    both: bool = False,
) -> int:
    """The head with the best mean score, of those trained within the limit; `begun` where there is none, and without that any."""
    draw = np.random.default_rng(seed)
    seeds = draw.permuted(np.tile(np.arange(short.factors.shape[1]), (len(short.hours), 1)), axis=1)
    spent += short.controls
    scores: dict[int, float] = {}
    # Two of the longest are always in reserve for the second seeds.
    reserve = FINALISTS * float(short.hours.max())
    while (head := sampler.ask()) is not None and spent + short.hours[head] + reserve <= short.limit:
        spent += float(short.hours[head])
        found = short.factors[head, seeds[head, 0]]
        scores[head] = float(found.prod())
        sampler.tell(head, tuple(map(float, found)) if both else (scores[head],))
    if not scores:
        return int(draw.integers(len(short.hours))) if begun is None else begun
    finalists = sorted(scores, key=lambda head: -scores[head])[:FINALISTS]
    means = {head: scores[head] + float(short.factors[head, seeds[head, 1]].prod()) for head in finalists}
    return max(means, key=lambda head: means[head])


SEARCHES: dict[str, Callable[[Short, int], int]] = {
    "screen": screen,
    "funnel": funnel,
    "random": partial(sampled, shuffled),
    "tpe": partial(sampled, tpe),
    "nsga2": partial(sampled, nsga2, both=True),
}


def measure(short: Short, repeats: int) -> list[dict[str, Any]]:
    """A row a search, and one of a random pick."""
    regret = short.bench.truth.max() - short.bench.truth
    good = regret <= short.bench.noise
    rows = [{"search": "a random head", "good": float(good.mean()), "regret": float(regret.mean())}]
    for name, search in SEARCHES.items():
        returned = [search(short, seed) for seed in range(repeats)]
        hits = int(good[returned].sum())
        interval = binomtest(hits, repeats).proportion_ci(method="wilson")
        rows.append(
            {
                "search": name,
                "good": hits / repeats,
                "low": interval.low,
                "high": interval.high,
                "regret": float(regret[returned].mean()),
            }
        )
    return rows


def text_table(name: str, short: Short, rows: Sequence[dict[str, Any]]) -> Table:
    """A line a search."""
    whole = short.bench.everything.hours
    table = Table(
        title=f"{name}: {len(short.hours)} heads, as good as the best: within {short.bench.noise:.2f} points; screen {100 * short.bench.screen.hours / whole:.1f}%, "
        f"controls {100 * short.controls / whole:.1f}%, a training {100 * short.hours.mean() / whole:.1f}% of everything",
        title_justify="left",
        box=None,
    )
    for header in ("search", "as good as the best [95%]", "mean regret"):
        table.add_column(header, justify="left" if header == "search" else "right")
    for row in rows:
        interval = f" [{100 * row['low']:.0f}, {100 * row['high']:.0f}]" if "low" in row else ""
        table.add_row(row["search"], f"{100 * row['good']:.0f}%{interval}", f"{row['regret']:.2f}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", type=Path, nargs="*", default=TABLES)
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    found = {}
    for path in options.tables:
        short = read(path)
        name = path.name.removesuffix(".csv.gz")
        found[name] = measure(short, options.repeats)
        if not options.json:
            Console(width=140).print(text_table(name, short, found[name]))
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
