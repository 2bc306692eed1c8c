"""Whether differences between heads are less noisy when all heads train with the same seeds.

    python benchmarks/pairing.py --train [--workers 2] [--out runs/pairing]
    python benchmarks/pairing.py [--json]

`--train` trains the heads of `headbench/heads-12.yaml` and the base without a head, on the digits of HeadBench, each with the same seeds: so with the same
initial base and projectors, the same batches, and the same views. It goes seed by seed, writes every training to `headbench/pairing.csv` as it ends, and
takes up what was interrupted. Without `--train` the table is judged by the rule of `headbench/pairing.md`,
written before anything was trained.

Both kinds of difference are in one table of heads and seeds. Paired: two heads with the same seed. Unpaired: the same two heads with different
seeds. In the additive model score = head + seed + rest the ratio of their variances is rest / (rest + seed), and has an exact interval (F distribution).
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.stats import f as fisher

HERE = Path(__file__).parent / "headbench"
RESULTS = HERE / "pairing.csv"
COLUMNS = ("epochs", "seed", "head_id", "knn", "linear", "score", "seconds")
SCORES = ("knn", "linear", "score")
RESAMPLES = 10_000
ROUNDS = (*((8, seed) for seed in range(6)), *((40, seed) for seed in range(3)))
"""(epochs, seed) of every round of trainings, in order."""


@dataclass(frozen=True)
class Job:
    """One training: of a head, or of none, with a seed that all heads share."""

    epochs: int
    seed: int
    overrides: tuple[str, ...]
    config: dict[str, Any] | None
    folder: Path


@cache
def evaluator(epochs: int, overrides: tuple[str, ...]) -> Any:
    """What trains and scores heads for so many epochs."""
    from headsearch.experiment import load_experiment
    from headsearch.training.evaluator import Evaluator

    rungs = [epochs // 4, epochs // 2, epochs]
    changes = [f"proxy.epochs={epochs}", f"proxy.rungs={rungs}", *overrides]
    return Evaluator(load_experiment(str(HERE / "digits.yaml"), changes))


def run(job: Job) -> list[Any]:
    """A row of the table."""
    from headsearch.heads.registry import parse_head
    from headsearch.scoring.score import head_score
    from headsearch.search.seeds import search_seed
    from headsearch.testing.tiny import Context, training

    wanted = training(job.folder, parse_head(job.config), seed=search_seed("pairing", job.seed))
    result = evaluator(job.epochs, job.overrides)(wanted, Context())
    last = result.trials[0].rungs[-1]
    head_id = wanted.candidates[0].head_id
    score = head_score(last.measures, last.quality)
    return [job.epochs, job.seed, head_id, last.knn, last.linear, score, round(result.seconds, 1)]


def train(out: Path, workers: int, overrides: tuple[str, ...]) -> None:
    """Train whatever is not in the table."""
    import torch

    from headsearch.heads import Candidate, HeadConfig
    from headsearch.scoring.cost import head_cost
    from headsearch.search.materials import read_space
    from headsearch.space.drawing import distinct_heads

    done = set()
    if RESULTS.exists():
        table = pd.read_csv(RESULTS)
        done = set(zip(table["epochs"], table["seed"], table["head_id"], strict=True))
    else:
        RESULTS.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    space, _ = read_space(str(HERE / "heads-12.yaml"))
    info = evaluator(8, overrides).inputs.info
    heads = distinct_heads(space, 12, seed=0, base=info, cost_function=head_cost)
    jobs = [
        Job(epochs, seed, overrides, head.config.to_dict(), out / f"{epochs}-{seed}-{head.head_id}")
        for epochs, seed in ROUNDS
        for head in [Candidate.of(HeadConfig()), *heads]
        if (epochs, seed, head.head_id) not in done
    ]
    with multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,)) as pool:
        for row in pool.imap_unordered(run, jobs):
            with RESULTS.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file).writerow(row)
            print(*row, flush=True)


@dataclass(frozen=True)
class Ratio:
    """Variance of paired differences over that of unpaired ones; below 1, pairing takes noise away."""

    estimate: float
    low: float
    high: float


def between_any(scores: np.ndarray) -> Ratio:
    """For two arms of (arms, seeds) scores, with an exact 95% interval: two-way analysis of variance with seeds at random.

    The estimate may exceed 1, where seeds have less in common than chance; the interval ends at 1 then, as no variance is below 0.
    """
    arms, seeds = scores.shape
    of_arm, of_seed = scores.mean(axis=1, keepdims=True), scores.mean(axis=0, keepdims=True)
    rest = ((scores - of_arm - of_seed + scores.mean()) ** 2).sum() / ((arms - 1) * (seeds - 1))
    seed = arms * ((of_seed - scores.mean()) ** 2).sum() / (seeds - 1)
    df = (seeds - 1, (arms - 1) * (seeds - 1))

    def ratio(f: float) -> float:
        return 1.0 / (1.0 + (f - 1.0) / arms)

    low, high = (seed / rest / fisher.ppf(level, *df) for level in (0.025, 0.975))
    return Ratio(ratio(seed / rest), ratio(max(1.0, low)), ratio(max(1.0, high)))


def to_control(scores: np.ndarray, control: np.ndarray) -> Ratio:
    """For the differences of (heads, seeds) scores to a control's (seeds,), with a 95% bootstrap interval over heads, seeds held fixed."""
    paired = (scores - control).var(axis=1, ddof=1)
    unpaired = scores.var(axis=1, ddof=1) + control.var(ddof=1)
    drawn = np.random.default_rng(0).integers(len(scores), size=(RESAMPLES, len(scores)))
    ratios = paired[drawn].sum(axis=1) / unpaired[drawn].sum(axis=1)
    return Ratio(float(paired.sum() / unpaired.sum()), *np.quantile(ratios, (0.025, 0.975)).tolist())


def judge(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A row per length and score; seeds that not all heads have are left out."""
    rows = []
    for epochs, part in table.groupby("epochs"):
        for score in SCORES:
            wide = part.pivot(index="head_id", columns="seed", values=score).dropna(axis=0, how="all")
            wide = wide.dropna(axis=1)
            if wide.shape[1] < 2:
                continue
            arms = wide.to_numpy(float)
            none = wide.index == "none"
            row = {"epochs": int(str(epochs)), "score": score, "arms": len(wide), "seeds": wide.shape[1]}
            row |= {
                "sd": float(np.sqrt(arms.var(axis=1, ddof=1).mean())),
                "any": vars(between_any(arms)),
                # Without a head there is no label-free score.
                "none": vars(to_control(arms[~none], arms[none][0])) if none.any() else None,
            }
            rows.append(row)
    return rows


def main() -> None:
    """Train, or judge and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/pairing"))
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    if options.train:
        train(options.out, options.workers, tuple(options.overrides))
        return
    rows = judge(pd.read_csv(RESULTS))
    if options.json:
        print(json.dumps(rows))
        return
    table = Table(
        title="Variance of a paired difference over that of an unpaired one [95%]",
        title_justify="left",
        box=None,
    )
    for header in ("epochs", "score", "arms", "seeds", "sd between seeds", "any two arms", "head and none"):
        table.add_column(header, justify="right")
    for row in rows:
        shown = [
            f"{ratio['estimate']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else "-"
            for ratio in (row["any"], row["none"])
        ]
        table.add_row(
            *(str(row["epochs"]), row["score"], str(row["arms"]), str(row["seeds"])),
            f"{row['sd']:.3g}",
            *shown,
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
