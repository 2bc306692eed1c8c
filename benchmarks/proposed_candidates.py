"""Whether a sampler finds better untrained heads than chance does in the same time, in a space too large to look through.

    python benchmarks/proposed_candidates.py [--seconds 15] [--seeds 5] [--out runs/proposed_candidates.jsonl]

The space is that of `paper` with its kinds as slots of a stack: 2 to 4 slots, more than 10^6 heads. The base and the images are those of `digits`. Every search has so
many seconds of processor time on one thread, for proposals and for scores alike (one initialisation, 128 images; the funnel's first stage takes three and 256). `random` is the draw of that stage;
the samplers are those of `search.sampler`: TPE and GP are told the score, NSGA-II its two factors. Searches take turns, and are written down as they end; the same call takes
up what was interrupted.

Compared are the mean score of the best 24 distinct heads, as many as the default screen takes, and how many different sequences of families they are. A
sampler becomes the default of the first stage if the interval (Student's, over seeds, paired) of its lead in the former is above 0, and it has at least three
quarters as many sequences. That was written before the first search.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import ttest_rel

from headsearch.experiment import load_experiment
from headsearch.heads import Candidate
from headsearch.scoring.cost import head_cost
from headsearch.scoring.score import DIFFERENT
from headsearch.search.proposer import Proposer
from headsearch.search.zero_cost import ZeroCostScorer
from headsearch.space import Space, parse_space

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
BEST = 24
SAMPLERS = ("random", "tpe", "nsga2", "gp")


def drawn(space: Space, scorer: ZeroCostScorer, seed: int) -> Iterator[tuple[Candidate, None]]:
    """Heads as the first stage draws them."""
    chance = random.Random(seed)
    while True:
        judged = space.judge(space.sample(chance), scorer.base, head_cost)
        if isinstance(judged, Candidate):
            yield judged, None


def search(space: Space, scorer: ZeroCostScorer, sampler: str, seed: int, seconds: float) -> dict[str, Any]:
    """The best heads that one search finds."""
    both = sampler == "nsga2"
    proposer = Proposer(
        space,
        scorer.base,
        sampler=sampler,
        seed=seed,
        objectives=2 if both else 1,
        cost_function=head_cost,
    )
    by_chance = drawn(space, scorer, seed)
    known: dict[str, tuple[float, float] | None] = {}
    kinds: dict[str, str] = {}
    begun, proposing = time.process_time(), 0.0
    while time.process_time() - begun < seconds:
        asked = time.process_time()
        proposal = None if sampler == "random" else proposer.propose(known, ())
        candidate = next(by_chance)[0] if proposal is None else proposal.candidate
        proposing += time.process_time() - asked
        name = candidate.head_id
        if name not in known:
            scores = scorer.score(candidate)
            kinds[name] = "+".join(stage.family for stage in candidate.config.stages)
            known[name] = (
                None
                if scores.reason is not None
                else (scores.measures[DIFFERENT[1]], scores.quality["retrieval.head"] / 100.0)
            )
        if proposal is not None:
            found = known[name]
            values = None if found is None else list(found) if both else [found[0] * found[1]]
            proposer.tell(proposal.position, values)
    score = {name: a * b for name, values in known.items() if values is not None for a, b in [values]}
    best = sorted(score, key=lambda name: -score[name])[:BEST]
    return {
        "sampler": sampler,
        "seed": seed,
        "seconds": seconds,
        "heads": len(known),
        "proposing": round(proposing, 2),
        "best": fmean(score[name] for name in best),
        "first": score[best[0]],
        "kinds": len({kinds[name] for name in best}),
    }


def text_table(rows: list[dict[str, Any]]) -> Table:
    """A line a sampler."""
    table = Table(title=f"Best {BEST} heads by score before training", title_justify="left", box=None)
    for header in (
        "sampler",
        "seeds",
        "heads",
        "time proposing",
        "mean score",
        "lead over random [95%]",
        "first",
        "kinds",
    ):
        table.add_column(header, justify="left" if header == "sampler" else "right")
    by_seed = {(row["sampler"], row["seed"]): row for row in rows}
    for sampler in SAMPLERS:
        mine = [row for row in rows if row["sampler"] == sampler and ("random", row["seed"]) in by_seed]
        if not mine:
            continue
        lead = "-"
        if sampler != "random" and len(mine) > 1:
            others = [by_seed["random", row["seed"]]["best"] for row in mine]
            own = [row["best"] for row in mine]
            interval = ttest_rel(own, others).confidence_interval()
            lead = f"{np.mean(own) - np.mean(others):+.4f} [{interval.low:.4f}, {interval.high:.4f}]"
        mean = {key: fmean(row[key] for row in mine) for key in ("heads", "best", "first", "kinds")}
        share = fmean(row["proposing"] / row["seconds"] for row in mine)
        table.add_row(
            *(sampler, str(len(mine)), f"{mean['heads']:.0f}", f"{100 * share:.0f}%"),
            *(f"{mean['best']:.4f}", lead, f"{mean['first']:.4f}", f"{mean['kinds']:.1f}"),
        )
    return table


def main() -> None:
    """Search what has not been searched, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/proposed_candidates.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = options.out.read_text(encoding="utf-8").splitlines() if options.out.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["sampler"], row["seed"], row["seconds"]) for row in rows}
    space = parse_space(SPACE, "stacks of paper")
    scorer = ZeroCostScorer(load_experiment("digits", ["proxy.device=cpu"]), seeds=1, images=128)
    scorer.prepare()
    for seed in range(options.seeds):
        for sampler in SAMPLERS:
            if (sampler, seed, options.seconds) in done:
                continue
            rows.append(search(space, scorer, sampler, seed, options.seconds))
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print(f"{space.count():.3g} heads as written, {options.seconds:g} s of processor time a search")
    Console(width=120).print(text_table([row for row in rows if row["seconds"] == options.seconds]))


if __name__ == "__main__":
    main()
