"""What a screen costs: wall time and memory of one joint run of many heads, against the mean proxy of the same heads on the same schedule.

The base is a ViT of twelve blocks on the embedded digits; heads are drawn from the space `paper`. Every measurement has a process of its own, so
that its peak memory is its own; proxies are measured before and after the screens, since the machine's speed drifts. Nothing is dropped.

    python benchmarks/screening.py [--epochs 6] [--proxies 6] [--threads 2] [--sampled-only] [--quick] [--json]

`proxies_for_12` and `proxies_for_24` are the wall times of screens with heads drawn in turn (a sixth in each step, the default), in mean proxies.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from headsearch.base.model import check_base
from headsearch.experiment import Experiment, load_experiment
from headsearch.heads.config import HeadConfig
from headsearch.scoring.cost import head_cost
from headsearch.space import load_space
from headsearch.space.drawing import distinct_heads
from headsearch.testing.tiny import Context, training
from headsearch.training.proxy import ProxyEvaluator


@dataclass(frozen=True)
class Measured:
    """One training."""

    seconds: float
    memory: float
    """Peak of the process, in MB."""


def experiment(
    epochs: int, heads_per_step: int | None, device: str = "cpu", *, quick: bool = False
) -> Experiment:
    """Digits with a ViT of twelve blocks, or of one and a few of the images."""
    blocks = 1 if quick else 12
    return load_experiment(
        "digits",
        [
            f"base.kwargs={{patch_size: 4, embed_dim: 64, depth: {blocks}, num_heads: 4}}",
            f"proxy.epochs={epochs}",
            f"proxy.device={device}",
            "search.strategy=screen",
            f"data.subset={256 if quick else 'null'}",
            "search.replicates=1",
            f"search.screen={{heads: 24, reduction: 1, heads_per_step: {heads_per_step or 'null'}}}",
        ],
    )


def train(epochs: int, heads: list[HeadConfig], heads_per_step: int | None, threads: int) -> Measured:
    """Train these heads jointly, or a single one alone, in this process."""
    torch.set_num_threads(threads)
    evaluate = ProxyEvaluator(experiment(epochs, heads_per_step))
    evaluate.prepare()
    with tempfile.TemporaryDirectory() as folder:
        wanted = training(Path(folder), *heads, stage="proxy" if len(heads) == 1 else "screen")
        began = time.perf_counter()
        evaluate(wanted, Context())
        seconds = time.perf_counter() - began
    return Measured(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def apart(epochs: int, heads: list[HeadConfig], heads_per_step: int | None, threads: int) -> Measured:
    """`train` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(train, (epochs, heads, heads_per_step, threads))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--proxies", type=int, default=6, help="heads trained alone, every so-manieth of the 24"
    )
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        "--sampled-only", action="store_true", help="not with all heads in every step, which takes longest"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one epoch and two proxies: a smoke test, says nothing"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    epochs, count = (1, 2) if options.quick else (options.epochs, options.proxies)
    info = check_base(
        "vit_tiny_patch16_224",
        image_size=16,
        kwargs={"patch_size": 4, "embed_dim": 64, "depth": 12, "num_heads": 4},
    )
    drawn = distinct_heads(load_space("paper"), 24, seed=0, base=info, cost_function=head_cost)
    heads = [candidate.config for candidate in drawn]
    alone = heads[:: 24 // count][:count]
    proxies = [apart(epochs, [head], None, options.threads) for head in alone[: count // 2]]
    cases = {"12, a sixth in each step": (12, None), "24, a sixth in each step": (24, None)}
    if not options.sampled_only and not options.quick:
        cases |= {"12, all in each step": (12, 12), "24, all in each step": (24, 24)}
    screens = {
        name: apart(epochs, heads[:size], each, options.threads) for name, (size, each) in cases.items()
    }
    proxies += [apart(epochs, [head], None, options.threads) for head in alone[count // 2 :]]
    proxy = statistics.fmean(measured.seconds for measured in proxies)
    ratios = {name: measured.seconds / proxy for name, measured in screens.items()}
    if options.json:
        result = {
            "epochs": epochs,
            "threads": options.threads,
            "proxy_seconds": round(proxy, 1),
            "proxy_memory_mb": round(max(measured.memory for measured in proxies)),
            "proxies_for_12": round(ratios["12, a sixth in each step"], 3),
            "proxies_for_24": round(ratios["24, a sixth in each step"], 3),
            "screens": {
                name: {"proxies": round(ratios[name], 3), "memory_mb": round(measured.memory)}
                for name, measured in screens.items()
            },
        }
        print(json.dumps(result))
        return
    print(f"ViT 12 x 64 on digits, {epochs} epochs, {options.threads} threads; heads of the space paper\n")
    print(f"{'joint run of':28} {'seconds':>8}  {'proxies':>8}  {'peak memory, MB':>16}")
    for name, measured in screens.items():
        print(f"{name:28} {measured.seconds:8.1f}  {ratios[name]:8.2f}  {measured.memory:16,.0f}")
    largest = max(measured.memory for measured in proxies)
    print(f"{f'mean of {len(proxies)} proxies':28} {proxy:8.1f}  {1.0:8.2f}  {largest:16,.0f}")


if __name__ == "__main__":
    main()
