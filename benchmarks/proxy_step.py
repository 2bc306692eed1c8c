"""How fast a proxy trains, against its ceiling and against the loop a user would write.

    python benchmarks/proxy_step.py [--head convnext] [--images FOLDER] [--photographs] [--threads 2] [--rounds 7] [--quick] [--json]

All train the same model by the same method (MoCo v3, the pairing of docs/method.md) on the same images; each in a process of its own,
so that its peak memory is its own, and in turns, so that all see the same machine. The model is the base alone, since that is
what lightly trains, or with --head the base with three blocks of that family, for lightly too.

- proxy: headsearch's trainer as trials run it, with data, augmentation, progress, metrics and checkpoints; without scoring, which is
  timed apart, as seconds per rung;
- ceiling: the same training step, fed again and again from one ready batch;
- lightly: PIL images, lightly's MoCo transform, a DataLoader without and with worker processes (the faster counts), lightly's
  projection heads and momentum update, torch's AdamW as it comes.

A ratio is the median over rounds of the ratio of speeds within a round. Trained on are the embedded digits at 16 pixels; with
--images also that folder at 32 pixels; with --photographs also JPEG files of ImageNet's size at 224 pixels, by the same ViT and by
ViT-Ti, in patches of 16 pixels. The ratios at the top of the JSON object are those of the digits.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

STEPS = 5
"""Steps of a round: an epoch over as many batches."""
TEMPERATURE = 0.2
VIT = {"patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 4}
VITS = {"ViT 4 x 64": VIT | {"patch_size": 16}, "ViT-Ti": {}}
"""Those that are trained on photographs."""


@dataclass(frozen=True)
class Setting:
    """What is trained on, and with how many threads."""

    name: str
    images: str | None
    image_size: int
    threads: int
    head: str | None
    """Family of the head."""
    vit: dict[str, int] = field(default_factory=lambda: VIT)
    """Options of timm's `vit_tiny_patch16_224`."""
    batch_size: int = 256
    workers: int = 0
    """Of the DataLoader."""

    @property
    def head_config(self) -> Any:
        """The head, as `parse_head` takes it."""
        return None if self.head is None else {self.head: {"depth": 3}}


def make_run(setting: Setting, workdir: Path) -> Any:
    """A proxy on the first images of the data set, as many as a round takes."""
    from headsearch.data.sets import MemoryImages
    from headsearch.experiment import parse_experiment
    from headsearch.heads.registry import parse_head
    from headsearch.testing.tiny import Context, training
    from headsearch.training.evaluator import Evaluator

    source = (
        {"dataset": "digits"} if setting.images is None else {"dataset": "folder", "root": setting.images}
    )
    experiment = parse_experiment(
        {
            "base": {"model": "vit_tiny_patch16_224", "kwargs": setting.vit},
            "data": {**source, "image_size": setting.image_size},
            "method": {"name": "mocov3", "kwargs": {"temperature": TEMPERATURE}},
            "proxy": {"epochs": 1000, "batch_size": setting.batch_size},
        }
    )
    run = Evaluator(experiment).start(training(workdir, parse_head(setting.head_config)), Context())
    run.images = MemoryImages(run.images.images[: STEPS * setting.batch_size])
    return run


def proxy(setting: Setting, workdir: Path) -> Iterator[None]:
    """An epoch of a real run."""
    run = make_run(setting, workdir)
    while True:
        run.train_epoch()
        yield


def ceiling(setting: Setting, workdir: Path) -> Iterator[None]:
    """The steps of an epoch on one ready batch."""
    run = make_run(setting, workdir)
    images, _ = next(run.images.batches(setting.batch_size))
    views = run.views(images, None, run.trainer.device)
    while True:
        for step in range(STEPS):
            run.trainer.step(views, step)
        yield


def lightly(setting: Setting, workdir: Path) -> Iterator[None]:
    """An epoch of the loop that lightly's examples show, with a head."""
    import copy
    from functools import partial

    import torch
    from lightly.data import LightlyDataset
    from lightly.models.modules.heads import MoCoProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms import MoCoV2Transform
    from lightly.utils.scheduler import cosine_schedule
    from torch import nn
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, Subset

    from headsearch.base.model import load_base
    from headsearch.heads.build import build_head
    from headsearch.heads.registry import parse_head

    plain = {"hf_prob": 0.0, "cj_sat": 0.0, "cj_hue": 0.0, "random_gray_scale": 0.0, "min_scale": 0.3}
    transform = MoCoV2Transform(
        input_size=setting.image_size,
        gaussian_blur=0.5 if setting.image_size > 64 else 0.0,
        **(plain if setting.images is None else {}),
    )
    folder = setting.images
    if folder is None:
        folder = str(workdir / "digits")
        save_digits(Path(folder))
    elif (Path(folder) / "train").is_dir():
        folder = str(Path(folder) / "train")
    loader = DataLoader(
        Subset(LightlyDataset(folder, transform=transform), range(STEPS * setting.batch_size)),
        batch_size=setting.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=setting.workers,
        persistent_workers=setting.workers > 0,
    )

    base = load_base("vit_tiny_patch16_224", image_size=setting.image_size, kwargs=setting.vit)
    head = None if setting.head is None else build_head(parse_head(setting.head_config), base.info)
    branches = 1 if head is None else 2
    width, sized = base.info.width, partial(MoCoProjectionHead, batch_norm=True)
    projectors = [sized(width, 4 * width, 256, num_layers=3) for _ in range(branches)]
    predictors = [sized(256, 4 * width, 256, num_layers=2) for _ in range(branches)]
    followed = nn.ModuleList([base, projectors[-1], *([] if head is None else [head])])
    momentum_base, momentum_projector, *momentum_head = momentum_parts = copy.deepcopy(followed)
    deactivate_requires_grad(momentum_parts)
    student = nn.ModuleList([followed, *projectors[:-1], *predictors])
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.05)

    def student_outputs(view: Any) -> list[Any]:
        output = base(view)
        embeddings = [output.embedding, *([] if head is None else [head.embed(head(output.map))])]
        return [
            predictor(projector(embedding))
            for predictor, projector, embedding in zip(predictors, projectors, embeddings, strict=True)
        ]

    def target(view: Any) -> Any:
        with torch.no_grad():
            output = momentum_base(view)
            embeddings = [output.embedding, *(part.embed(part(output.map)) for part in momentum_head)]
            return momentum_projector(embeddings[-1])

    def contrast(query: Any, key: Any) -> Any:
        logits = F.normalize(query, dim=1) @ F.normalize(key, dim=1).T / TEMPERATURE
        return 2 * TEMPERATURE * F.cross_entropy(logits, torch.arange(len(logits)))

    epoch = 0
    while True:
        momentum = cosine_schedule(epoch, 1000, 0.99, 1)
        for batch in loader:
            first, second = batch[0]
            update_momentum(followed, momentum_parts, m=momentum)
            keys = [target(second), target(first)]
            losses = [
                contrast(query, key)
                for view, key in zip((first, second), keys, strict=True)
                for query in student_outputs(view)
            ]
            loss = sum(losses) / len(losses)
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 3.0)
            optimizer.step()
            optimizer.zero_grad()
        epoch += 1
        yield


def save_digits(folder: Path) -> None:
    """The embedded digits as image files, which is how a user of lightly would have them."""
    from PIL import Image

    from headsearch.data.load import load_data

    train: Any = load_data("digits", root=None, image_size=16, labels="none", seed=0).train
    folder.mkdir()
    for index, pixels in enumerate(train.images):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{index:04}.png")


CONTENDERS: dict[str, tuple[Callable[[Setting, Path], Iterator[None]], int]] = {
    "proxy": (proxy, 0),
    "ceiling": (ceiling, 0),
    "lightly": (lightly, 0),
    "lightly, 2 workers": (lightly, 2),
}
"""What runs, and the DataLoader's workers."""


def serve(name: str, setting: Setting, pipe: Connection) -> None:
    """A contender's process: train a round whenever told, answer with its seconds; at the end, with the peak memory in MB."""
    import torch

    torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        rounds = CONTENDERS[name][0](setting, Path(folder))
        next(rounds)
        pipe.send(None)
        while pipe.recv():
            begun = time.perf_counter()
            next(rounds)
            pipe.send(time.perf_counter() - begun)
    # A worker's memory is largely shared with its parent; what counts is the largest process.
    own, largest_worker = (
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    pipe.send(max(own, largest_worker) / 1024)


def seconds_per_rung(setting: Setting) -> float:
    """What scoring takes at a rung before the last, with all measures and k-NN."""
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(setting, Path(folder))
        student = run.trainer.hssl.student
        begun = time.perf_counter()
        run.scorer.score(student, epoch=1, loss=1.0, full_budget=False)
        return time.perf_counter() - begun


def compare(setting: Setting, rounds: int) -> dict[str, Any]:
    """Run all contenders in turns."""
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name, (_, workers) in CONTENDERS.items():
        pipes[name], theirs = spawn.Pipe()
        own = replace(setting, workers=workers)
        processes.append(spawn.Process(target=serve, args=(name, own, theirs)))
        processes[-1].start()
    for pipe in pipes.values():
        pipe.recv()
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    names = list(CONTENDERS)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            pipes[name].send(True)
            seconds[name].append(pipes[name].recv())
    memory = {}
    for name, pipe in pipes.items():
        pipe.send(False)
        memory[name] = pipe.recv()
    for process in processes:
        process.join()
    best_lightly = min(
        (name for name in names if name.startswith("lightly")),
        key=lambda name: statistics.median(seconds[name]),
    )

    def ratio_to(other: str) -> float:
        pairs = zip(seconds[other], seconds["proxy"], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    return {
        "setting": setting.name,
        "ratio_to_ceiling": round(ratio_to("ceiling"), 3),
        "ratio_to_lightly": round(ratio_to(best_lightly), 3),
        "images_per_second": {
            name: round(STEPS * setting.batch_size / statistics.median(taken))
            for name, taken in seconds.items()
        },
        "peak_memory_mb": {name: round(size) for name, size in memory.items()},
        "seconds_per_rung": round(seconds_per_rung(setting), 2),
        "rounds": rounds,
        "threads": setting.threads,
    }


def show(result: dict[str, Any]) -> None:
    """Print one setting's table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "contender", "images/s", "peak memory, MB", "of the proxy's speed", title=result["setting"], box=None
    )
    speeds = result["images_per_second"]
    for name, speed in speeds.items():
        table.add_row(
            name, f"{speed:,}", f"{result['peak_memory_mb'][name]:,}", f"{speed / speeds['proxy']:.2f}"
        )
    console = Console()
    console.print(table)
    console.print(
        f"proxy / ceiling {result['ratio_to_ceiling']:.2f}, proxy / lightly {result['ratio_to_lightly']:.2f} "
        f"(medians of {result['rounds']} rounds of {STEPS} steps, {result['threads']} threads); "
        f"a rung's scoring takes {result['seconds_per_rung']:.1f} s\n"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", metavar="FOLDER", help="images to compare on, besides the digits")
    parser.add_argument(
        "--photographs", action="store_true", help="compare on photographs too, at 224 pixels; minutes"
    )
    parser.add_argument("--head", metavar="FAMILY", help="train a head too, e.g. convnext")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    head = f" with a {options.head} head" if options.head else ""
    alike = {"threads": options.threads, "head": options.head}
    model = f"ViT 4 x 64{head}"
    settings = [Setting(f"digits, 16 pixels, {model}", None, 16, **alike)]
    if options.images is not None:
        name = f"{Path(options.images).name}, 32 pixels, {model}"
        settings.append(Setting(name, options.images, 32, **alike))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        if options.photographs:
            # Not in the contenders' processes, whose memory is compared.
            from decode import photographs

            photographs(Path(folder), 400)
            settings += [
                Setting(
                    f"photographs, 224 pixels, {vit}{head}", folder, 224, vit=kwargs, batch_size=32, **alike
                )
                for vit, kwargs in VITS.items()
            ]
        for setting in settings:
            results.append(compare(setting, rounds))
            if not options.json:
                show(results[-1])
    if options.json:
        top = {key: results[0][key] for key in ("ratio_to_ceiling", "ratio_to_lightly")}
        print(json.dumps({**top, "settings": results}))


if __name__ == "__main__":
    main()
