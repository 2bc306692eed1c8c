"""How near a training step is to the least that it could take, on a CPU or an accelerator.

    python benchmarks/limit.py [--base vit_small_patch16_224 ...] [--device cuda] [--batch-size 256] [--compile] [--rounds 9] [--quick] [--json]

The least is what no pairing can do without: two forward and backward passes of the bare timm model (the student's views) and two forward passes (the
teacher's); with a head, the same of the head alone on a map that is there. Projectors, losses, the optimiser and the teacher's average are in the step and not in the
least. Both are timed in turns, each a given number of times; the ratio is the median over rounds. FLOPs are counted by torch for one forward pass, and a
backward pass counts as two. On a GPU that is known, their share of its dense bfloat16 peak is shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch

from headsearch.experiment import parse_experiment
from headsearch.heads.build import build_head
from headsearch.heads.cost import HeadCost
from headsearch.heads.registry import parse_head
from headsearch.scoring.cost import head_cost
from headsearch.testing.tiny import Context, training
from headsearch.training.proxy import ProxyEvaluator

BASES: dict[str, tuple[dict[str, Any], int]] = {
    "vit_tiny_patch16_224": ({"patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 4}, 16),
    "resnet10t": ({}, 32),
    "convnext_atto": ({}, 64),
}
"""Options and image size of the bases that are measured unless others are asked for."""
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 FLOPs a second, by the makers."""
HEAD = {"convnext": {"depth": 3}}


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of `work`, until the device has done it."""
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def measure(model: str, head: dict[str, Any] | None, options: argparse.Namespace) -> dict[str, Any]:
    """One base, with or without a head."""
    kwargs, size = BASES.get(model, ({}, 224))
    experiment = parse_experiment(
        {
            "base": {"model": model, "kwargs": kwargs},
            "data": {"dataset": "digits", "image_size": size, "labels": "none"},
            "method": {"name": "mocov3"},
            "proxy": {"epochs": 100, "batch_size": options.batch_size, "device": options.device},
        }
    )
    evaluate = ProxyEvaluator(experiment)
    config = parse_head(head)
    with tempfile.TemporaryDirectory() as folder:
        run = evaluate.start(training(Path(folder), config), Context())
    trainer, info = run.trainer, evaluate.inputs.info
    device, dtype = trainer.device, trainer.autocast_dtype
    if options.compile:
        for network in (trainer.hssl.student, trainer.hssl.teacher):
            for module in (network.base, *network.heads):
                module.compile()
    views = [torch.randn(options.batch_size, 3, size, size, device=device) for _ in range(2)]
    views = [view.to(memory_format=torch.channels_last) for view in views]
    sized = {**kwargs, "img_size": size} if "vit" in model else kwargs
    bare: list[torch.nn.Module] = [timm.create_model(model, num_classes=0, **sized)]
    inputs = [views[0]]
    cost = HeadCost(0, 0)
    if head is not None:
        bare.append(build_head(config, info))
        inputs.append(
            torch.randn(options.batch_size, info.width, *info.grid, device=device, requires_grad=True)
        )
        cost = head_cost(config, info)
    for part in bare:
        part.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        if options.compile:
            part.compile()

    def least() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            for part, x in zip(bare, inputs, strict=True):
                for _ in range(2):
                    part(x).float().square().mean().backward()
                    part.zero_grad(set_to_none=True)
                with torch.no_grad():
                    part(x), part(x)

    steps = iter(range(10**9))
    contenders: dict[str, Callable[[], object]] = {
        "least": least,
        "step": lambda: trainer.step(views, next(steps)),
    }
    for work in contenders.values():
        for _ in range(2):
            seconds(work, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(options.rounds):
        for name in sorted(contenders, reverse=bool(turn % 2)):
            taken[name].append(seconds(contenders[name], device))
    step = statistics.median(taken["step"])
    flops = 8 * (info.flops + cost.flops) * options.batch_size
    peak = next(
        (PEAK[name] for name in PEAK if device.type == "cuda" and name in torch.cuda.get_device_name(device)),
        None,
    )
    return {
        "base": model,
        "image_size": size,
        "head": None if head is None else config.family,
        "compiled": options.compile,
        "precision": "float32" if dtype is None else "bfloat16",
        "of_the_least": round(
            statistics.median(
                least / whole for least, whole in zip(taken["least"], taken["step"], strict=True)
            ),
            3,
        ),
        "images_per_second": round(options.batch_size / step, 1),
        "teraflops": round(flops / step / 1e12, 3),
        "of_peak": None if peak is None else round(flops / step / peak, 3),
        "peak_memory_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
        if device.type == "cuda"
        else None,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", nargs="+", default=list(BASES), metavar="MODEL", help="timm models")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument(
        "--compile", action="store_true", help="compile the step's networks and the bare ones"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    options.rounds = 2 if options.quick else options.rounds
    torch.set_num_threads(options.threads)
    rows = [measure(model, head, options) for model in options.base for head in (None, HEAD)]
    if options.json:
        print(json.dumps({"torch": torch.__version__, "device": options.device, "rows": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
