"""How fast a pretraining is, against its ceiling, and what the head costs, against what its FLOPs predict.

    python benchmarks/pretrain_step.py [--head convnext] [--method mocov3] [--rounds 7] [--quick] [--json]

On a CPU a ViT of 4 x 64 on the embedded digits at 16 pixels; where there is an accelerator ViT-S/16 on random images at 224 pixels, in
bfloat16. All take turns in one process:

- pretraining: the real loop, with data, augmentation, progress, metrics and the checkpoint at the end of an epoch; probes left out;
- ceiling: the same training steps on one ready batch;
- no head: the ceiling of the control.

Ratios are medians over rounds of ratios within a round. `predicted_overhead` is the head's FLOPs over the base's, projectors left out: what
a step would cost more if all FLOPs took equally long. Memory is the accelerator's peak over a step, weights and optimiser included;
on a CPU it is not measured. benchmarks/proxy_step.py compares the same training step with lightly's loop.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from headsearch.base.model import check_base
from headsearch.data.sets import MemoryImages
from headsearch.experiment import DataSpec, MethodSpec
from headsearch.export import BaseFacts, ExportedBase, ExportedHead, Provenance
from headsearch.heads import parse_head
from headsearch.heads.canonical import canonical, head_id
from headsearch.pretrain import PretrainObserver, PretrainSpec
from headsearch.pretrain.prepare import open_folder, prepare
from headsearch.pretrain.run import PretrainRun
from headsearch.scoring.cost import head_cost
from headsearch.training.ranks import Place

STEPS = 5
"""Steps of a round: an epoch over as many batches."""


def make_spec(options: argparse.Namespace, device: torch.device) -> PretrainSpec:
    """The pretraining that is measured, with a head."""
    if device.type == "cuda":
        model, kwargs, image_size, batch_size = "vit_small_patch16_224", {}, 224, 256
    else:
        model, image_size, batch_size = "vit_tiny_patch16_224", 16, 256
        kwargs = {"patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 4}
    info = check_base(model, image_size=image_size, kwargs=kwargs)
    head = canonical(parse_head({options.head: {"depth": 3}}), info)
    content = head.to_dict()
    assert content is not None
    exported = ExportedHead(
        head_id=head_id(head),
        config=content,
        base=ExportedBase(
            model=model,
            kwargs=kwargs,
            weights=None,
            info=BaseFacts.of(info),
        ),
        data=DataSpec(dataset="digits", image_size=image_size),
        method=MethodSpec(name=options.method, kwargs={}),
        scores={},
        provenance=Provenance(experiment="bench", seed=0, space="-", space_hash="-", versions={}, trials=[]),
    )
    overrides = [f"recipe.batch_size={batch_size}", "recipe.epochs=100000", "data.labels=none"]
    return PretrainSpec.from_head(exported, overrides=overrides)


def make_run(spec: PretrainSpec, out: Path, device: torch.device) -> PretrainRun:
    """A run whose epoch is a round."""
    setup = prepare(spec, Place(device, 1))
    size = spec.data.image_size * 8 // 7 if device.type == "cuda" else spec.data.image_size
    count = STEPS * spec.recipe.batch_size
    images = setup.images
    assert isinstance(images, MemoryImages)
    pixels = (
        torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
        if device.type == "cuda"
        else images.images[:count]
    )
    object.__setattr__(setup, "images", MemoryImages(pixels))
    open_folder(out, spec)
    return PretrainRun(spec, out, setup, Place(device, 1), PretrainObserver())


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Any, device: torch.device) -> float:
    wait(device)
    begun = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--head", default="convnext", metavar="FAMILY")
    parser.add_argument("--method", default="mocov3")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = make_spec(options, device)
    control = spec.model_copy(update={"head": None, "head_id": "none"})
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(spec, Path(folder) / "head", device)
        plain = make_run(control, Path(folder) / "none", device)
        batch = run.setup.images.read([torch.arange(spec.recipe.batch_size)])
        views = run.setup.views(next(iter(batch)), None, device)

        def epoch() -> None:
            run.train_epoch()
            run._save()

        def ceiling(of: PretrainRun) -> None:
            for step in range(STEPS):
                of.trainer.step(views, step)

        work = {
            "pretraining": epoch,
            "ceiling": lambda: ceiling(run),
            "no head": lambda: ceiling(plain),
        }
        seconds: dict[str, list[float]] = {name: [] for name in work}
        memory: dict[str, int | None] = dict.fromkeys(work)
        for turn in range(1 + rounds):
            for name, function in work.items():
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                taken = timed(function, device)
                if device.type == "cuda":
                    memory[name] = torch.cuda.max_memory_allocated(device) // 2**20
                if turn > 0:
                    seconds[name].append(taken)

    def ratio(first: str, second: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[first], seconds[second], strict=True))

    assert spec.chosen_for is not None
    info = check_base(spec.base.model, image_size=spec.data.image_size, kwargs=spec.base.kwargs)
    images = STEPS * spec.recipe.batch_size
    result = {
        "setting": f"{spec.base.model} at {spec.data.image_size} pixels, {options.method}, {options.head} head, {device.type}",
        "ratio_to_ceiling": round(ratio("ceiling", "pretraining"), 3),
        "overhead": round(ratio("ceiling", "no head") - 1, 3),
        "predicted_overhead": round(head_cost(parse_head(spec.head), info).flops / info.flops, 3),
        "images_per_second": {
            name: round(images / statistics.median(taken)) for name, taken in seconds.items()
        },
        "peak_memory_mb": memory,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
    }
    if options.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:20} {value}")


if __name__ == "__main__":
    main()
