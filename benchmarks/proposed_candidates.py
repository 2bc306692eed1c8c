"""Whether NSGA-II finds better untrained heads than chance does in the same time, in a space too large to look through.

    python benchmarks/proposed_candidates.py [--candidates 200] [--seeds 8] [--out runs/proposed_candidates.jsonl]

The space is that of `paper` with its kinds as slots of a stack: 2 to 4 slots, more than 10^6 heads. The base and the images are those of `digits`. Every search is the funnel's
first stage, `score_space`, with one initialisation and 128 images (a funnel takes three and 256) on one thread. NSGA-II scores so many candidates, in 5 generations and in
generations of 10. `random` scores so many, and again as many as fit into the processor time of the slower NSGA-II: `random, equal time`. Searches are written down as they end; the
same call takes up what was interrupted.

Compared are the 24 heads that the funnel would screen (`best_and_spread`): their mean score, their mean score on another base and with other initial weights, which no search has
seen, and how many different sequences of families they are. NSGA-II is the default of the first stage if the interval (Student's, over seeds, paired) of its lead over chance in equal
time, in the score that no search has seen, is above 0, and it has at least nine tenths as many sequences; of the two sizes of a generation, the one with the larger lead. That was written before the
first search.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import ttest_rel

from headsearch.experiment import load_experiment
from headsearch.experiment.search import CandidateSampler
from headsearch.heads import Candidate
from headsearch.scoring.cost import head_cost
from headsearch.search import zero_cost
from headsearch.search.selection import best_and_spread
from headsearch.search.zero_cost import ZeroCostScorer, score_space
from headsearch.space import Space, parse_space
from headsearch.space.drawing import distinct_heads

SPACE = """
space: headsearch/space@1
define:
  depth: {int: [1, 2]}
  kernel: {choice: [3, 5, 7, 9]}
  ratio: {choice: [2, 4]}
head:
  stack:
    repeat: {int: [2, 4]}
    each:
      one_of:
        - convnext: {depth: {ref: depth}, kernel_size: {ref: kernel}, mlp_ratio: {ref: ratio}}
        - resnet: {depth: {ref: depth}, block: {choice: [basic, bottleneck]}}
        - mbconv: {depth: {ref: depth}, kernel_size: {choice: [3, 5]}}
        - mixer: {depth: {ref: depth}, mlp_ratio: {ref: ratio}}
        - resmlp: {depth: {ref: depth}, mlp_ratio: {ref: ratio}}
        - gmlp: {depth: {ref: depth}, mlp_ratio: {ref: ratio}}
        - poolformer: {depth: {ref: depth}, mlp_ratio: {ref: ratio}}
        - vit: {depth: {ref: depth}, mlp_ratio: {ref: ratio}}
"""
SCREENED = 24
GENERATIONS = {"nsga2, 5 generations": 5, "nsga2, 10 a generation": sys.maxsize}
CHANCE = "random, equal time"


def scorer(seed: int) -> ZeroCostScorer:
    """Of the digits, with one initialisation and 128 images. It keeps what heads began with: every search needs its own."""
    experiment = load_experiment("digits", ["proxy.device=cpu", f"seed={seed}"])
    made = ZeroCostScorer(experiment, seeds=1, images=128)
    made.prepare()
    return made


def search(
    space: Space,
    unseen: ZeroCostScorer,
    sampler: CandidateSampler,
    number: int,
    seed: int,
) -> dict[str, Any]:
    """What one search finds."""
    seen = scorer(0)
    begun = time.process_time()
    rows = score_space(space, seen, number=number, seed=seed, sampler=sampler)
    seconds = time.process_time() - begun
    taken = best_and_spread(
        [row for row in rows if row.score is not None],
        SCREENED,
        score=lambda row: row.score or 0.0,
        family=lambda row: row.config.family,
    )
    again = [unseen.score(Candidate(row.config, row.head_id)).score for row in taken]
    return {
        "seed": seed,
        "heads": len(rows),
        "seconds": round(seconds, 2),
        "score": fmean(row.score or 0.0 for row in taken),
        # A head that is worthless there is worth nothing.
        "unseen": fmean(score or 0.0 for score in again),
        "kinds": len({tuple(stage.family for stage in row.config.stages) for row in taken}),
    }


def text_table(rows: list[dict[str, Any]]) -> Table:
    """A line a way of proposing."""
    table = Table(title=f"The {SCREENED} heads to be screened", title_justify="left", box=None)
    for header in (
        "proposed by",
        "seeds",
        "heads",
        "seconds",
        "score",
        "unseen",
        "lead in it [95%]",
        "sequences",
    ):
        table.add_column(header, justify="left" if header == "proposed by" else "right")
    by_way: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        by_way.setdefault(row["way"], []).append(row)
    for way, mine in by_way.items():
        lead = "-"
        if way in GENERATIONS and len(mine) > 1:
            own, others = ([row["unseen"] for row in by_way[name]] for name in (way, CHANCE))
            interval = ttest_rel(own, others).confidence_interval()
            lead = f"{np.mean(own) - np.mean(others):+.4f} [{interval.low:.4f}, {interval.high:.4f}]"
        mean = {
            key: fmean(row[key] for row in mine) for key in ("heads", "seconds", "score", "unseen", "kinds")
        }
        table.add_row(
            *(way, str(len(mine)), f"{mean['heads']:.0f}", f"{mean['seconds']:.1f}"),
            *(f"{mean['score']:.4f}", f"{mean['unseen']:.4f}", lead, f"{mean['kinds']:.1f}"),
        )
    return table


def main() -> None:
    """Search what has not been searched, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("runs/proposed_candidates.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = options.out.read_text(encoding="utf-8").splitlines() if options.out.exists() else []
    rows = [json.loads(line) for line in lines]
    space = parse_space(SPACE, "stacks of paper")
    unseen = scorer(1)
    # Blocks are counted once in a process, whoever needs them first.
    for head in distinct_heads(space, 2000, seed=options.seeds):
        head_cost(head.config, unseen.base)

    def searched(way: str, sampler: CandidateSampler, number: int, seed: int) -> dict[str, Any]:
        for row in rows:
            if (row["way"], row["candidates"], row["seed"]) == (way, options.candidates, seed):
                return row
        found = search(space, unseen, sampler, number, seed)
        rows.append({"way": way, "candidates": options.candidates, **found})
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        return rows[-1]

    for seed in range(options.seeds):
        chance = searched("random", "random", options.candidates, seed)
        seconds = []
        for way, generations in GENERATIONS.items():
            zero_cost.GENERATIONS = generations
            seconds.append(searched(way, "nsga2", options.candidates, seed)["seconds"])
        number = round(options.candidates * max(1.0, max(seconds) / chance["seconds"]))
        searched(CHANCE, "random", number, seed)
    print(f"{space.count():.3g} heads as written, {options.candidates} candidates of NSGA-II")
    Console(width=130).print(text_table([row for row in rows if row["candidates"] == options.candidates]))


if __name__ == "__main__":
    main()
