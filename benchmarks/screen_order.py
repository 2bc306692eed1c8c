"""Whether a screen orders heads as proxies of their own do, where two seeds of proxies show the most that can be asked for.

    python benchmarks/screen_order.py [--base resnet10t] [--heads 18] [--epochs 4] [--out FILE.jsonl] [--threads 1]

Settled before any of it was trained: the heads are those of `screening.py`. Each is trained alone with two seeds, and all jointly with the same two
seeds, with a sixth, with two and with one of them in each step; everything for four epochs on 512 digits, 64 images a step, and nothing is dropped.
After four epochs were judged, and before any other training, the same was settled for sixteen (`--epochs 16`, in a file of its own): a head of a
screen has had five steps after four epochs, and twenty-one after sixteen.
The primary outcome is Kendall's tau-b of `score` at the last epoch between a screen with a sixth in each step and proxies of the other seed, the mean
of both ways; it is to be 0.7 or more, or not less than the ceiling, which is the tau of the two seeds of proxies. Discrepancy is a secondary outcome,
and so are fewer heads in each step. Intervals are bootstraps over heads.

Seconds are of training and label-free scores alone: a search also probes a proxy and measures its head's overhead, which makes proxies dearer.
Every training is kept in the file when it ends, and the same command goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from screening import SETTINGS, experiment

from headsearch.errors import InfeasibleHead
from headsearch.experiment import Experiment
from headsearch.heads.config import HeadConfig
from headsearch.results.agreement import mean_tau
from headsearch.scoring.score import head_score
from headsearch.testing.tiny import Context, training
from headsearch.training.evaluator import Evaluator
from headsearch.training.trial import TrialStage

IMAGES, BATCH = 512, 64
SEEDS = (0, 1)
MEASURES = ("score", "discrepancy")


def jobs(count: int) -> Iterator[tuple[str, int | None, int, list[int]]]:
    """All trainings: kind, heads in each step, seed, and places of the heads."""
    everyone = list(range(count))
    for seed in SEEDS:
        yield "screen, a sixth in each step", None, seed, everyone
    for seed, place in itertools.product(SEEDS, everyone):
        yield "proxy", None, seed, [place]
    for (name, each), seed in itertools.product({"two": 2, "one": 1}.items(), SEEDS):
        yield f"screen, {name} in each step", each, seed, everyone


def train(described: Experiment, heads: list[HeadConfig], seed: int) -> dict[str, Any]:
    """Scores of these heads, null of one that is infeasible, and the seconds of the processor that their training took."""
    evaluate = Evaluator(described)
    evaluate.prepare()
    stage: TrialStage = "proxy" if len(heads) == 1 else "screen"
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        run = evaluate.start(training(Path(folder), *heads, seed=seed, stage=stage), Context())
        with contextlib.suppress(InfeasibleHead):
            run.run()
        seconds = time.process_time() - began
    ends = [run.rungs(place)[-1] if place in run.alive else None for place in range(len(heads))]
    return {
        "score": [None if end is None else head_score(end.measures, end.quality) for end in ends],
        "discrepancy": [None if end is None else end.discrepancy for end in ends],
        "seconds": round(seconds, 2),
    }


def told(rows: list[dict[str, Any]], count: int) -> Iterator[str]:
    """How well each kind of training agrees with proxies of the other seed, and what it costs."""

    def values(kind: str, seed: int, measure: str) -> list[float | None]:
        found: list[float | None] = [None] * count
        for row in rows:
            if (row["kind"], row["seed"]) == (kind, seed):
                for place, value in zip(row["heads"], row[measure], strict=True):
                    found[place] = value
        return found

    seconds = {
        kind: statistics.fmean(row["seconds"] for row in rows if row["kind"] == kind)
        for kind in dict.fromkeys(row["kind"] for row in rows)
    }
    for kind, spent in seconds.items():
        cost = f"{spent / seconds['proxy']:.2f} proxies" if "proxy" in seconds else "-"
        yield f"{kind}: {spent:.0f} s of the processor, {cost}"
        for measure in MEASURES:
            tau = mean_tau(
                [
                    (values(kind, one, measure), values("proxy", other, measure))
                    for one, other in (SEEDS, SEEDS[::-1])
                ]
            )
            if tau.tau is not None:
                yield f"  {measure}: tau {tau.tau:.2f} [{tau.low:.2f}, {tau.high:.2f}], {tau.n} heads"


def main() -> None:
    """Train what is missing, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", choices=SETTINGS, default="resnet10t")
    parser.add_argument("--heads", type=int, help="so many of the setting's; left out: all")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("screen_order.jsonl"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    heads = SETTINGS[options.base].heads()[: options.heads]
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = {(row["kind"], row["seed"], *row["heads"]) for row in rows}
    for kind, each, seed, places in jobs(len(heads)):
        if (kind, seed, *places) in done:
            continue
        described = experiment(
            options.epochs,
            each,
            base=options.base,
            overrides=[f"data.subset={IMAGES}", f"proxy.batch_size={BATCH}", "data.labels=none"],
        )
        row = {"kind": kind, "seed": seed, "heads": places}
        rows.append(row | train(described, [heads[place] for place in places], seed))
        with options.out.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    print("\n".join(told(rows, len(heads))))


if __name__ == "__main__":
    main()
