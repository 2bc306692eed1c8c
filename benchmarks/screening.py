"""What a screen costs: wall time and memory of one joint run of many heads, against the mean proxy of the same heads on the same schedule.

The base is a ViT of twelve blocks on the embedded digits, or a small ResNet at 32 pixels; heads are drawn from the space `paper`. Every measurement
has a process of its own, so that its peak memory is its own; proxies are measured before and after the screens, since the machine's speed drifts.
Nothing is dropped. `screen_order.py` says whether the order of heads is kept.

    python benchmarks/screening.py [--base resnet10t] [--epochs 6] [--proxies 6] [--threads 2] [--sampled-only] [--quick] [--json]

`proxies_for_12` and `proxies_for_24`, of the ResNet `proxies_for_18`, are the times of screens with heads drawn in turn (a sixth in each step, the
default), in mean proxies: of the processor, since what else a loaded machine does must not count.
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
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headsearch.base.model import check_base
from headsearch.experiment import Experiment, load_experiment
from headsearch.heads.config import HeadConfig
from headsearch.scoring.cost import head_cost
from headsearch.space import load_space
from headsearch.space.drawing import distinct_heads
from headsearch.testing.tiny import Context, training
from headsearch.training.evaluator import Evaluator


@dataclass(frozen=True)
class Setting:
    """A base, the side of its images in pixels, and how many heads are screened at once."""

    model: str
    kwargs: dict[str, Any]
    image_size: int
    sizes: tuple[int, ...]

    def heads(self) -> list[HeadConfig]:
        """As many as the largest screen has."""
        info = check_base(self.model, image_size=self.image_size, kwargs=self.kwargs)
        drawn = distinct_heads(
            load_space("paper"), self.sizes[-1], seed=0, base=info, cost_function=head_cost
        )
        return [candidate.config for candidate in drawn]


SETTINGS = {
    "vit": Setting(
        "vit_tiny_patch16_224", {"patch_size": 4, "embed_dim": 64, "depth": 12, "num_heads": 4}, 16, (12, 24)
    ),
    "resnet10t": Setting("resnet10t", {}, 32, (18,)),
}


@dataclass(frozen=True)
class Measured:
    """One training."""

    seconds: float
    """Of the processor, on all its threads."""
    memory: float
    """Peak of the process, in MB."""


def experiment(
    epochs: int,
    heads_per_step: int | None,
    device: str = "cpu",
    *,
    base: str = "vit",
    quick: bool = False,
    overrides: Sequence[str] = (),
) -> Experiment:
    """Digits with one of the bases; `quick`: a ViT of one block, and few of the images."""
    setting = SETTINGS[base]
    kwargs = setting.kwargs | ({"depth": 1} if quick and base == "vit" else {})
    return load_experiment(
        "digits",
        [
            f"base={{model: {setting.model}, kwargs: {json.dumps(kwargs)}}}",
            f"data.image_size={setting.image_size}",
            f"proxy.epochs={epochs}",
            f"proxy.device={device}",
            "search.strategy=screen",
            f"data.subset={256 if quick else 'null'}",
            "search.replicates=1",
            f"search.screen={{heads: 24, reduction: 1, heads_per_step: {heads_per_step or 'null'}}}",
            *overrides,
        ],
    )


def train(described: Experiment, heads: list[HeadConfig], threads: int) -> Measured:
    """Train these heads jointly, or a single one alone, in this process."""
    torch.set_num_threads(threads)
    evaluate = Evaluator(described)
    evaluate.prepare()
    with tempfile.TemporaryDirectory() as folder:
        wanted = training(Path(folder), *heads, stage="proxy" if len(heads) == 1 else "screen")
        began = time.process_time()
        evaluate(wanted, Context())
        seconds = time.process_time() - began
    return Measured(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def apart(described: Experiment, heads: list[HeadConfig], threads: int) -> Measured:
    """`train` in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(train, described, heads, threads).result()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", choices=SETTINGS, default="vit")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--proxies", type=int, default=6, help="heads trained alone, every so-manieth of all")
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
    setting = SETTINGS[options.base]
    heads = setting.heads()
    alone = heads[:: len(heads) // count][:count]

    def measured(heads: list[HeadConfig], heads_per_step: int | None = None) -> Measured:
        described = experiment(epochs, heads_per_step, base=options.base, quick=options.quick)
        return apart(described, heads, options.threads)

    proxies = [measured([head]) for head in alone[: count // 2]]
    cases: dict[str, tuple[int, int | None]] = {
        f"{size}, a sixth in each step": (size, None) for size in setting.sizes
    }
    if not options.sampled_only and not options.quick:
        cases |= {f"{size}, all in each step": (size, size) for size in setting.sizes}
    screens = {name: measured(heads[:size], each) for name, (size, each) in cases.items()}
    proxies += [measured([head]) for head in alone[count // 2 :]]
    proxy = statistics.fmean(measured.seconds for measured in proxies)
    ratios = {name: measured.seconds / proxy for name, measured in screens.items()}
    if options.json:
        result = {
            "epochs": epochs,
            "threads": options.threads,
            "proxy_seconds": round(proxy, 1),
            "proxy_memory_mb": round(max(measured.memory for measured in proxies)),
            **{
                f"proxies_for_{size}": round(ratios[f"{size}, a sixth in each step"], 3)
                for size in setting.sizes
            },
            "screens": {
                name: {"proxies": round(ratios[name], 3), "memory_mb": round(measured.memory)}
                for name, measured in screens.items()
            },
        }
        print(json.dumps(result))
        return
    print(
        f"{setting.model} at {setting.image_size} pixels on digits, {epochs} epochs, {options.threads} threads; heads of the space paper\n"
    )
    print(f"{'joint run of':28} {'seconds':>8}  {'proxies':>8}  {'peak memory, MB':>16}")
    for name, measured in screens.items():
        print(f"{name:28} {measured.seconds:8.1f}  {ratios[name]:8.2f}  {measured.memory:16,.0f}")
    largest = max(measured.memory for measured in proxies)
    print(f"{f'mean of {len(proxies)} proxies':28} {proxy:8.1f}  {1.0:8.2f}  {largest:16,.0f}")


if __name__ == "__main__":
    main()
