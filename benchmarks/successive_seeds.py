"""Whether heads that do badly with their first untrained seed can be left at that, and a screen still gets the same heads.

Draws of heads of the space `paper`, without its constraints, are scored with all three seeds, on the base of digits and on a small ResNet. `best_and_spread` then chooses 24 of all
heads, and 24 of those that would get all seeds: of every family the better half by the first seed, and never fewer than so many heads.
docs/decisions/330-successive-seeds.md holds the rule, which was written before this was run.

    python benchmarks/successive_seeds.py [--heads 300] [--draws 4] [--threads 1]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import torch

from headsearch.experiment import load_experiment
from headsearch.scoring.zero_cost_scores import ZeroCostScores, ordered
from headsearch.search.selection import best_and_spread
from headsearch.search.zero_cost import ZeroCostScorer, score_space
from headsearch.space import load_space

PLACES = 24
FEWEST = (4, 8, 24)
"""Heads of a family that get all seeds, whatever its size."""
BASES = {
    "digits": [],
    "resnet10t": ["base={model: resnet10t, kwargs: {}}", "data.image_size=32"],
}


def chosen(rows: Sequence[ZeroCostScores]) -> list[ZeroCostScores]:
    """The heads that a screen takes."""
    fit = [row for row in rows if row.score is not None]
    return best_and_spread(
        fit, PLACES, score=lambda row: row.score or 0.0, family=lambda row: row.config.family
    )


def better(first: Sequence[ZeroCostScores], fewest: int) -> set[str]:
    """The heads that would get all seeds, by the scores with the first."""
    families: dict[str, list[str]] = defaultdict(list)
    for row in ordered(first):
        families[row.config.family].append(row.head_id)
    return {name for names in families.values() for name in names[: max(-(-len(names) // 2), fewest)]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heads", type=int, default=300)
    parser.add_argument("--draws", type=int, default=4, help="on digits; there is one on the ResNet")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    space = replace(load_space("paper"), constraints=())
    for base, draws in (("digits", options.draws), ("resnet10t", 1)):
        for draw in range(draws):
            experiment = load_experiment("digits", [*BASES[base], f"seed={draw}", "proxy.device=cpu"])
            scorers = (ZeroCostScorer(experiment, seeds=seeds) for seeds in (1, 3))
            first, rows = (score_space(space, each, number=options.heads, seed=draw) for each in scorers)
            everything = chosen(rows)
            for fewest in FEWEST:
                kept = better(first, fewest)
                taken = chosen([row for row in rows if row.head_id in kept])
                alike = {row.head_id for row in taken} & {row.head_id for row in everything}
                mean, before = (fmean(row.score or 0.0 for row in side) for side in (taken, everything))
                print(
                    f"{base} draw {draw}, fewest {fewest}: {len(kept)} of {len(rows)} heads get all seeds, {len(alike)} of {len(everything)} "
                    f"chosen are the same, mean score {mean:.4f} in place of {before:.4f} ({100 * (mean / before - 1):+.2f} %)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
