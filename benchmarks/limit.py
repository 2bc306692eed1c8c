"""How near a training step is to the least that it could take, on a CPU or an accelerator.

    python benchmarks/limit.py [--base vit_small_patch16_224 ...] [--device cuda] [--batch-size 256] [--precision bfloat16] [--compile]
        [--rounds 9] [--quick] [--json]

The least is what no pairing can do without: two forward and backward passes of the bare timm model (the student's views) and two forward passes (the
teacher's); with a head, the same of the head alone on a map that is there. Projectors with their losses, the optimiser and the teacher's average are in
the step and not in the least: any trainer of this method has them. Each is timed by itself too, and shown as a share of the step; `accounted` adds them
to the least, and what it lacks of 1 is what the step could save without doing less. All are timed in turns, on a CPU by the processor's time; shares are
medians over rounds. FLOPs are counted by torch for one forward pass, and a backward pass counts as two. On a GPU that is known, their share of its dense
bfloat16 peak is shown.
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
from headsearch.methods.hssl import paired_loss, split
from headsearch.scoring.cost import head_cost
from headsearch.testing.tiny import Context, training
from headsearch.training.evaluator import Evaluator
from headsearch.training.trainer import Trainer

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
    """Time of `work`: on a CPU the processor's, for what else a machine does must not count; on a GPU until it has done it."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    begun = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - begun


def on_top(trainer: Trainer, batch_size: int) -> dict[str, Callable[[], object]]:
    """What a step does beside its networks. The optimiser comes first: it takes the gradients of the last step, which the projectors' replace."""
    hssl, branches = trainer.hssl, [*trainer.hssl.student.base_branches, *trainer.hssl.student.head_branches]
    widths = [next(branch.parameters()).shape[1] for branch in branches]
    embeddings = [
        torch.randn(2 * batch_size, width, device=trainer.device, requires_grad=True) for width in widths
    ]

    def projectors() -> None:
        trainer.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(
            trainer.device.type, dtype=trainer.autocast_dtype, enabled=trainer.autocast_dtype is not None
        ):
            outputs = [branch(x) for branch, x in zip(branches, embeddings, strict=True)]
            with torch.no_grad():
                target = hssl.teacher.projectors[0](embeddings[-1])
            (method,) = hssl.methods
            targets = method.targets([half.float() for half in target.chunk(2)])
            paired_loss(split(outputs, 2), targets, method.loss).backward()

    return {
        "optimiser": trainer.optimizer.step,
        "average": lambda: hssl.update_teacher(0.99),
        "projectors": projectors,
    }


def measure(model: str, head: dict[str, Any] | None, options: argparse.Namespace) -> dict[str, Any]:
    """One base, with or without a head."""
    kwargs, size = BASES.get(model, ({}, 224))
    experiment = parse_experiment(
        {
            "base": {"model": model, "kwargs": kwargs},
            "data": {"dataset": "digits", "image_size": size, "labels": "none"},
            "method": {"name": "mocov3"},
            "proxy": {
                "epochs": 100,
                "batch_size": options.batch_size,
                "device": options.device,
                "precision": options.precision,
                "compile": options.compile,
            },
        }
    )
    evaluate = Evaluator(experiment)
    config = parse_head(head)
    with tempfile.TemporaryDirectory() as folder:
        run = evaluate.start(training(Path(folder), config), Context())
    trainer, info = run.trainer, evaluate.inputs.info
    device, dtype = trainer.device, trainer.autocast_dtype
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
            part.compile(isolate_recompiles=True)

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
    beside = on_top(trainer, options.batch_size)
    for work in (*contenders.values(), *beside.values()):
        for _ in range(2):
            seconds(work, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    rounds: list[dict[str, float]] = []
    for turn in range(options.rounds):
        order = [*sorted(contenders, reverse=bool(turn % 2)), *beside]
        rounds.append({name: seconds((contenders | beside)[name], device) for name in order})
    step = statistics.median(taken["step"] for taken in rounds)

    def of_the_step(*parts: str) -> float:
        return round(
            statistics.median(sum(taken[part] for part in parts) / taken["step"] for taken in rounds), 3
        )

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
        "of_the_least": of_the_step("least"),
        **{part: of_the_step(part) for part in beside},
        "accounted": of_the_step("least", *beside),
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
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
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

    shown = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    table = Table(*shown, box=None)
    for row in rows:
        table.add_row(*("-" if row[name] is None else str(row[name]) for name in shown))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
