"""Which finalist gets the next seed, and when there are enough: policies compared on searches simulated from HeadBench.

    python benchmarks/seed_allocation.py [--repeats 300] [--json]

A repeat draws eight heads of a bench (true scores: their means over seeds), and noise from the residuals of all its heads. The best of them by
one seed are finalists. Two controls get all seeds first, and show the noise. Then a policy hands out seeds round by round, at most `replicates` a head, until
the first head has two seeds and is within one standard deviation between seeds of the best finalist with probability 0.9
(`headsearch.results.certainty`), or until nothing is left. The first is the one with the highest mean.

Policies:

- `all`: every finalist gets all its seeds; never stopped.
- `turns`: a round is one seed for each finalist.
- `top-two Thompson`: a round is two seeds, for the winner of one draw from the beliefs and for the first other winner of further draws (Russo,
  "Simple Bayesian algorithms for best-arm identification", 2020).
- `knowledge gradient`: a round is the one seed that is expected to raise the highest believed mean most (Frazier, Powell and Dayanik, 2008).
- `first and challenger`: a round is two seeds, for the first and for the head that most likely exceeds it.

Chosen is the policy with the fewest seeds, averaged over all settings, of those whose first head is as good as the best at least as often as `turns`, less one
point; between policies within 2 % of each other's seeds the one that draws no random numbers. That was written before the first simulation. Afterwards one thing
was added: where it is sure, and the first head has one seed, that head gets the next.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from headbench.table import read_headbench
from rich.console import Console
from rich.table import Table

from headsearch.results.allocation import knowledge_gradient as expected_rises
from headsearch.results.certainty import Belief, beliefs, probability_as_good
from headsearch.results.noise import Noise, pooled_noise

HERE = Path(__file__).parent / "headbench"
BENCHES = ("digits", "cifar10", "cifar10-convnext")
QUANTITIES = (("proxies", "score"), ("long", "knn"))
SIZES = ((3, 3), (3, 5), (8, 3))
"""(finalists, replicates)."""
HEADS, CONTROLS, ENOUGH = 8, 2, 0.9

Policy = Callable[[list[Belief], Noise, int, list[int], random.Random], list[int]]
"""Who gets a seed in the next round: from beliefs, noise, the place of the first, the places that may have another seed, and chance."""


def turns(
    heads: list[Belief], noise: Noise, first: int, open_: list[int], chance: random.Random
) -> list[int]:
    """One for each."""
    return open_


def thompson(
    heads: list[Belief], noise: Noise, first: int, open_: list[int], chance: random.Random
) -> list[int]:
    """The winners of draws, until two differ; of those that may have no other seed none is drawn."""
    chosen: list[int] = []
    for _ in range(1000):
        drawn = {place: chance.gauss(heads[place].mean, heads[place].deviation) for place in open_}
        winner = max(drawn, key=lambda place: drawn[place])
        if winner not in chosen:
            chosen.append(winner)
        if len(chosen) == 2:
            break
    return chosen


def knowledge_gradient(
    heads: list[Belief], noise: Noise, first: int, open_: list[int], chance: random.Random
) -> list[int]:
    """The head with the largest expected rise."""

    gradients = expected_rises(heads, noise)
    return [max(open_, key=lambda place: gradients[place])]


def challenger(
    heads: list[Belief], noise: Noise, first: int, open_: list[int], chance: random.Random
) -> list[int]:
    """The first, and who most likely exceeds it."""

    def likely(place: int) -> float:
        apart = math.hypot(heads[place].deviation, heads[first].deviation)
        return (heads[place].mean - heads[first].mean) / apart if apart else -math.inf

    rivals = sorted((place for place in open_ if place != first), key=likely, reverse=True)
    return [*([first] if first in open_ else []), *rivals][:2]


POLICIES: dict[str, Policy | None] = {
    "all": None,
    "turns": turns,
    "top-two Thompson": thompson,
    "knowledge gradient": knowledge_gradient,
    "first and challenger": challenger,
}


def scores_of(bench: str, part: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """(heads,) true scores and (n,) residuals with the variance that one seed has."""
    table = read_headbench(HERE / f"{bench}.csv.gz")
    rows = table[(table["part"] == part) & table["control"].isna()]
    rows = rows[rows["epoch"] == rows["epoch"].max()]
    wide = rows.pivot(index="head_id", columns="replicate", values=column).dropna().to_numpy(float)
    seeds = wide.shape[1]
    residuals = (wide - wide.mean(axis=1, keepdims=True)) * math.sqrt(seeds / (seeds - 1))
    return wide.mean(axis=1), residuals.ravel()


def search(
    truth: np.ndarray,
    residuals: np.ndarray,
    policy: Policy | None,
    finalists: int,
    replicates: int,
    seed: int,
) -> dict[str, float]:
    """One repeat: seeds handed out beyond the first, whether the first head is as good as the best finalist, and whether it stopped early."""
    chance = random.Random(seed)

    def observe(head: int) -> float:
        return float(truth[head] + chance.choice(residuals))

    drawn = chance.sample(range(len(truth)), HEADS)
    seen = {head: observe(head) for head in drawn}
    heads = sorted(drawn, key=lambda head: -seen[head])[:finalists]
    scores = [[seen[head]] for head in heads]
    controls = [[float(chance.choice(residuals)) for _ in range(replicates)] for _ in range(CONTROLS)]
    spent, stopped = 0, False
    while True:
        first = max(range(finalists), key=lambda place: fmean(scores[place]))
        open_ = [place for place in range(finalists) if len(scores[place]) < replicates]
        noise = pooled_noise(
            [(len(group), stdev(group) if len(group) > 1 else None) for group in (*controls, *scores)]
        )
        assert noise is not None
        believed = beliefs(scores, noise)
        sure = policy is not None and probability_as_good(first, believed, noise) >= ENOUGH
        if not open_ or (sure and len(scores[first]) > 1):
            stopped = bool(open_)
            break
        if policy is None:
            chosen = open_
        elif sure and first in open_:
            # Nothing is said of a first head that was seen once.
            chosen = [first]
        else:
            chosen = policy(believed, noise, first, open_, chance)
        for place in chosen:
            scores[place].append(observe(heads[place]))
            spent += 1
    deviation = math.sqrt(float((residuals**2).mean()))
    short = max(truth[head] for head in heads) - truth[heads[first]]
    overall = max(truth[head] for head in drawn) - truth[heads[first]]
    return {
        "seeds": spent,
        "good": float(short <= deviation),
        "good_of_all": float(overall <= deviation),
        "regret": float(overall / deviation),
        "stopped": float(stopped),
    }


def measure(repeats: int) -> list[dict[str, Any]]:
    """A row a setting and policy."""
    rows = []
    for bench in BENCHES:
        for part, column in QUANTITIES:
            truth, residuals = scores_of(bench, part, column)
            for finalists, replicates in SIZES:
                for name, policy in POLICIES.items():
                    found = [
                        search(truth, residuals, policy, finalists, replicates, seed)
                        for seed in range(repeats)
                    ]
                    early = [each["good"] for each in found if each["stopped"]]
                    rows.append(
                        {"bench": bench, "quantity": f"{part} {column}", "finalists": finalists}
                        | {"replicates": replicates, "policy": name}
                        | {key: fmean(each[key] for each in found) for key in found[0]}
                        | {"good_where_stopped": fmean(early) if early else None}
                    )
    return rows


def text_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Means over settings, a line a policy."""
    table = Table(title=title, title_justify="left", box=None)
    for header in (
        *("policy", "seeds", "as good as the best finalist", "as the best of 8", "regret, sd"),
        *("stopped early", "good where stopped"),
    ):
        table.add_column(header, justify="left" if header == "policy" else "right")
    for name in POLICIES:
        mine = [row for row in rows if row["policy"] == name]
        early = [row for row in mine if row["good_where_stopped"] is not None]
        weight = sum(row["stopped"] for row in early)
        table.add_row(
            name,
            f"{fmean(row['seeds'] for row in mine):.2f}",
            f"{fmean(row['good'] for row in mine):.3f}",
            f"{fmean(row['good_of_all'] for row in mine):.3f}",
            f"{fmean(row['regret'] for row in mine):.2f}",
            f"{fmean(row['stopped'] for row in mine):.2f}",
            f"{sum(row['stopped'] * row['good_where_stopped'] for row in early) / weight:.3f}"
            if weight
            else "-",
        )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    rows = measure(options.repeats)
    if options.json:
        print(json.dumps(rows))
        return
    console = Console(width=120)
    for size in SIZES:
        of_size = [row for row in rows if (row["finalists"], row["replicates"]) == size]
        console.print(
            text_table(
                of_size, f"{size[0]} finalists, at most {size[1]} seeds each, {options.repeats} repeats"
            )
        )
    console.print(text_table(rows, "Mean over all settings"))


if __name__ == "__main__":
    main()
