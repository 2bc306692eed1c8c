"""What the zero-cost stage costs: seconds of processor time for many heads on the digits experiment, and how many heads that is for one proxy.

Heads are those of the space `paper` without its constraints on cost, deep ones included.

The base's part (reading the images, running the base of every seed) is counted apart; heads are drawn and scored by `score_space`, as a funnel does it: with all seeds where they
may still be chosen for its screen. The proxy is
one of the same experiment's schedule, with its rungs' scoring, of the space's default head, in the same process and with as many threads.

    python benchmarks/zero_cost.py [--heads 1000] [--seeds 3] [--epochs 40] [--json]

`ratio` is the seconds of all heads, base included, over those of the one proxy. A shorter `--epochs` makes the proxy cheaper than the experiment's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from headsearch.experiment import load_experiment
from headsearch.search.zero_cost import ZeroCostScorer, score_space
from headsearch.space import load_space
from headsearch.testing.tiny import Context, training
from headsearch.training.evaluator import Evaluator


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heads", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40, help="of the proxy")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    experiment = load_experiment("digits", [f"proxy.epochs={options.epochs}", "proxy.device=cpu"])
    # The small base of digits would leave 158 of its heads.
    space = replace(load_space("paper"), constraints=())

    began = time.process_time()
    scorer = ZeroCostScorer(experiment, seeds=options.seeds)
    scorer.prepare()
    base_seconds = time.process_time() - began
    rows = score_space(space, scorer, number=options.heads, places=experiment.search.screen.heads)
    seconds = time.process_time() - began
    head_seconds = seconds - base_seconds

    evaluator = Evaluator(experiment)
    evaluator.prepare()
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        evaluator(training(Path(folder), space.default()), Context())
        proxy_seconds = time.process_time() - began
    result = {
        "experiment": "digits",
        "space": "paper without constraints",
        "threads": torch.get_num_threads(),
        "heads": len(rows),
        "infeasible": sum(row.reason is not None for row in rows),
        "with_all_seeds": sum(row.seeds == options.seeds for row in rows),
        "seeds": options.seeds,
        "base_seconds": round(base_seconds, 1),
        "head_seconds": round(head_seconds, 1),
        "heads_per_second": round(len(rows) / head_seconds, 2),
        "proxy_epochs": options.epochs,
        "proxy_seconds": round(proxy_seconds, 1),
        "ratio": round(seconds / proxy_seconds, 3),
        "heads_per_proxy": round(proxy_seconds / (head_seconds / len(rows)), 1),
    }
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"{len(rows)} heads of paper, unconstrained, on digits, {result['with_all_seeds']} with all {options.seeds} seeds, {result['threads']} threads: {seconds:.1f} s, "
        f"of it base {base_seconds:.1f} s; {result['heads_per_second']} heads/s\n"
        f"one proxy of {options.epochs} epochs: {proxy_seconds:.1f} s\n"
        f"ratio of all heads to one proxy: {result['ratio']}; a proxy's time scores {result['heads_per_proxy']} heads"
    )


if __name__ == "__main__":
    main()
