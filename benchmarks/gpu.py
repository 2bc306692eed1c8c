"""What `gpu.sh` runs: tests and measurements on an accelerator, part by part, into one JSON object.

    python benchmarks/gpu.py [--device cuda] [--images FOLDER] [--parts tests steps ...] [--minutes 4] [--out gpu.json] [--quick]

Each part has a process and a time limit of its own; one that fails is written down as an error, and the others go on. The file is written after
every part. docs/benchmarks.md is made from it.

- tests: those marked `gpu`;
- steps: images/s and share of the dense bfloat16 peak of a ViT-S/16 at 224 pixels, with and without a head, beside the least (`limit.py`) and a
  step as lightly's examples write it, on ready batches; `compiled`, the last part: by torch.compile;
- screen: a joint run of 24 heads, in proxies of the same schedule, and where both spend their time; its peak memory beside the estimate;
- sharing: several proxies at once on one accelerator, over one alone;
- streaming: decoded photographs of 500 x 375 pixels, alone and feeding the ViT-S;
- search: trainings of docs/protocol.md on the photographs in --images, as many as --minutes allow.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FORKS = multiprocessing.get_context("forkserver")
"""Processes come from one that has imported torch, and has not looked for an accelerator."""
FORKS.set_forkserver_preload(["headsearch.training.evaluator", "pandas", "sklearn.linear_model", "timm"])
SECONDS = {
    "tests": 150,
    "steps": 60,
    "screen": 100,
    "sharing": 100,
    "streaming": 100,
    "search": 600,
    "compiled": 200,
}
"""Most time of each part on an accelerator."""


def steps(options: argparse.Namespace) -> dict[str, Any]:
    """Training steps on ready batches."""
    import limit
    import torch

    model, size = ("vit_tiny_patch16_224", 16) if options.quick else ("vit_small_patch16_224", 224)
    settings = argparse.Namespace(
        device=options.device, batch_size=16 if options.quick else 256, rounds=2 if options.quick else 7
    )
    rows = measured(model, settings, compiled=False)
    hidden = 256 if options.quick else 4096
    loop = lightly_step(model, limit.BASES.get(model, ({}, size))[0], size, hidden, settings)
    taken = []
    for turn in range(1 + settings.rounds):
        seconds = limit.seconds(loop, torch.device(options.device))
        if turn:
            taken.append(seconds)
    speed = settings.batch_size / statistics.median(taken)
    return {
        "rows": rows,
        "lightly_images_per_second": round(speed, 1),
        "ratio_to_lightly": round(rows[0]["images_per_second"] / speed, 3),
    }


def compiled(options: argparse.Namespace) -> dict[str, Any]:
    """The same steps, compiled."""
    settings = argparse.Namespace(device=options.device, batch_size=256, rounds=7)
    return {"rows": measured("vit_small_patch16_224", settings, compiled=True)}


def measured(model: str, settings: argparse.Namespace, *, compiled: bool) -> list[dict[str, Any]]:
    """A row without a head, unless compiled, and one with three ConvNeXt blocks."""
    import limit
    import torch

    settings.compile, settings.precision = compiled, "auto"
    rows = []
    for head in (limit.HEAD,) if compiled else (None, limit.HEAD):
        rows.append(limit.measure(model, head, settings))
        if settings.device == "cuda":
            torch.cuda.empty_cache()
    return rows


def lightly_step(
    model: str, kwargs: dict[str, Any], size: int, hidden: int, settings: argparse.Namespace
) -> Callable[[], None]:
    """A step of MoCo v3 as lightly's examples write it, in bfloat16 on an accelerator, on a ready batch."""
    import copy

    import timm
    import torch
    from lightly.models.modules.heads import MoCoProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from torch import nn
    from torch.nn import functional as F

    device = torch.device(settings.device)
    base = timm.create_model(model, num_classes=0, img_size=size, **kwargs)
    width = base.num_features
    followed = nn.Sequential(base, MoCoProjectionHead(width, hidden, 256, num_layers=3, batch_norm=True)).to(
        device
    )
    predictor = MoCoProjectionHead(256, hidden, 256, num_layers=2, batch_norm=True).to(device)
    momentum = copy.deepcopy(followed)
    deactivate_requires_grad(momentum)
    optimizer = torch.optim.AdamW(
        [*followed.parameters(), *predictor.parameters()], lr=1e-4, weight_decay=0.05
    )
    views = [torch.randn(settings.batch_size, 3, size, size, device=device) for _ in range(2)]
    labels = torch.arange(settings.batch_size, device=device)

    def step() -> None:
        update_momentum(followed, momentum, m=0.99)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            with torch.no_grad():
                keys = [F.normalize(momentum(view), dim=1) for view in reversed(views)]
            queries = [F.normalize(predictor(followed(view)), dim=1) for view in views]
            loss = sum(
                F.cross_entropy(query @ key.T / 0.2, labels) for query, key in zip(queries, keys, strict=True)
            )
        loss.backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(followed.parameters(), 3.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def screen(options: argparse.Namespace) -> dict[str, Any]:
    """A joint run of 24 heads and some of the proxies, in one process."""
    import screening
    import torch

    from headsearch.base.model import check_base
    from headsearch.scoring.cost import head_cost
    from headsearch.space import load_space
    from headsearch.space.drawing import distinct_heads
    from headsearch.testing.tiny import Context, training
    from headsearch.training import evaluator
    from headsearch.training.candidates import CandidatesRun

    count, epochs = (2, 1) if options.quick else (24, 3)
    described = screening.experiment(epochs, None, options.device, quick=options.quick)
    evaluate = evaluator.Evaluator(described)
    info = check_base(described.base.source, image_size=16, kwargs=described.base.kwargs)
    drawn = distinct_heads(load_space("paper"), count, seed=0, base=info, cost_function=head_cost)
    on_gpu = options.device == "cuda"
    trained: list[float] = []
    scored: list[float] = []

    class Timed(CandidatesRun):
        """Notes the seconds of every epoch, and of what ends it: scores and a checkpoint."""

        def train_epoch(self) -> float:
            began = time.perf_counter()
            loss = super().train_epoch()
            trained.append(time.perf_counter() - began)
            return loss

        def _epoch_ended(self, loss: float) -> None:
            began = time.perf_counter()
            super()._epoch_ended(loss)
            scored.append(time.perf_counter() - began)

    def measured(*candidates: Any) -> tuple[float, float, float, float]:
        """Seconds in all, in training, in scoring, and of the last epoch."""
        configs = [candidate.config for candidate in candidates]
        trained.clear()
        scored.clear()
        with tempfile.TemporaryDirectory() as folder:
            stage = "proxy" if len(configs) == 1 else "screen"
            began = time.perf_counter()
            evaluate(training(Path(folder), *configs, stage=stage), Context())
            return time.perf_counter() - began, sum(trained), sum(scored), trained[-1]

    evaluator.CandidatesRun = Timed  # type: ignore[misc]
    estimate = evaluate.check_screen(drawn)
    measured(drawn[0])
    means = [
        statistics.fmean(part)
        for part in zip(*(measured(head) for head in drawn[:: max(1, count // 4)]), strict=True)
    ]
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    joint = measured(*drawn)
    parts = ("seconds", "training_seconds", "scoring_seconds", "last_epoch_seconds")
    return {
        "heads": count,
        "proxies": round(joint[0] / means[0], 3),
        "steps_in_proxies": round(joint[3] / means[3], 3),
        "screen": {name: round(value, 3) for name, value in zip(parts, joint, strict=True)},
        "proxy": {name: round(value, 3) for name, value in zip(parts, means, strict=True)},
        "estimated_gib": round(estimate / 2**30, 2),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
    }


def sharing(options: argparse.Namespace) -> dict[str, Any]:
    """Epochs a second of several proxies at once, over those of one alone; with NVIDIA's Multi-Process Service and without."""
    epochs = 1 if options.quick else 8

    def rate(count: int) -> float:
        barrier, ended = FORKS.Barrier(count), FORKS.Queue()
        setting = (options.device, options.quick, epochs, dict(os.environ), barrier, ended)
        workers = [FORKS.Process(target=train_epochs, args=setting) for _ in range(count)]
        for worker in workers:
            worker.start()
        seconds = max(ended.get(timeout=60 if options.device == "cuda" else 300) for _ in workers)
        for worker in workers:
            worker.join()
        return count * epochs / seconds

    alone = rate(1)
    result = {"epochs_per_second_alone": round(alone, 2), "two": round(rate(2) / alone, 3)}
    if not options.quick:
        result["eight"] = round(rate(8) / alone, 3)
    with multi_process_service(options.device) as served:
        if served:
            result |= {"eight_served": round(rate(8) / alone, 3)}
    return result


@contextmanager
def multi_process_service(device: str) -> Iterator[bool]:
    """Processes that are started within share the accelerator by NVIDIA's Multi-Process Service, where it is there and works."""
    control = shutil.which("nvidia-cuda-mps-control")
    if device != "cuda" or control is None:
        yield False
        return
    with tempfile.TemporaryDirectory() as folder:
        names = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        os.environ |= names
        subprocess.run([control, "-d"], check=False)
        try:
            check = [sys.executable, "-c", "import torch; torch.zeros(1, device='cuda')"]
            try:
                works = (
                    subprocess.run(check, check=False, timeout=60, stderr=subprocess.DEVNULL).returncode == 0
                )
            except subprocess.TimeoutExpired:
                works = False
            if not works:
                for name in names:
                    del os.environ[name]
            yield works
        finally:
            subprocess.run(
                [control], input="quit\n", text=True, check=False, env={**os.environ, **names}, timeout=30
            )
            for name in names:
                os.environ.pop(name, None)


def train_epochs(
    device: str, quick: bool, epochs: int, environment: dict[str, str], barrier: Any, ended: Any
) -> None:
    """A proxy's epochs on digits, begun together with others'; their seconds go into `ended`."""
    os.environ |= environment
    import screening
    import torch

    from headsearch.heads.registry import parse_head
    from headsearch.testing.tiny import Context, training
    from headsearch.training.evaluator import Evaluator

    torch.set_num_threads(1)
    evaluate = Evaluator(screening.experiment(1000, None, device, quick=quick))
    with tempfile.TemporaryDirectory() as folder:
        run = evaluate.start(training(Path(folder), parse_head({"convnext": {"depth": 3}})), Context())
        if not quick:
            run.train_epoch()
        barrier.wait()
        began = time.perf_counter()
        for _ in range(epochs):
            run.train_epoch()
        ended.put(time.perf_counter() - began)


def streaming(options: argparse.Namespace) -> dict[str, Any]:
    """Photographs decoded by worker processes, alone, and while a ViT-S trains on them."""
    import torch

    from headsearch.cores import cores
    from headsearch.data.load import load_data
    from headsearch.experiment import parse_experiment
    from headsearch.heads.registry import parse_head
    from headsearch.testing.tiny import Context, training
    from headsearch.training.evaluator import Evaluator

    number, batch = (64, 16) if options.quick else (6144, 256)
    model: dict[str, Any] = {"model": "vit_small_patch16_224"}
    if options.quick:
        model |= {"kwargs": {"embed_dim": 32, "depth": 1, "num_heads": 2}}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photographs(root / "images", number)
        data = {"dataset": "folder", "root": str(root / "images"), "image_size": 224, "labels": "none"}
        proxy = {"epochs": 100, "batch_size": batch, "device": options.device}
        described = parse_experiment({"base": model, "data": data, "proxy": proxy})
        run = Evaluator(described).start(training(root / "trial", parse_head(None)), Context())
        # Allowed so little memory that every image is decoded when it is needed.
        streamed = load_data(**data, seed=0, memory_limit=1).train
        trainer, steps = run.trainer, number // batch
        warm = max(1, steps // 4)

        def speed(work: Callable[[Any], object], batches: Iterator[Any]) -> float:
            for place, images in enumerate(batches):
                work(images)
                if place + 1 in (warm, steps):
                    if trainer.device.type == "cuda":
                        torch.cuda.synchronize()
                    ended = time.perf_counter()
                    if place + 1 == warm:
                        began = ended
            return (steps - warm) * batch / (ended - began)

        def order() -> Iterator[Any]:
            return streamed.read(list(torch.randperm(number)[: steps * batch].split(batch)))

        def step(images: Any) -> None:
            trainer.step(run.views(images, None, trainer.device), 0)

        ready = next(order())
        alone = speed(lambda images: None, order())
        fed = speed(step, order())
        at_most = speed(step, iter([ready] * steps))
    return {
        "decoders": cores() - 1,
        "decoded_per_second": round(alone, 1),
        "trained_per_second": round(fed, 1),
        "ready_batches_per_second": round(at_most, 1),
        "of_ready": round(fed / at_most, 3),
    }


def write_photographs(root: Path, number: int) -> None:
    """JPEG files of 500 x 375 pixels: scikit-learn's two sample photographs, cut, turned and shaded at random."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [np.asarray(image) for image in load_sample_images().images]
    random = np.random.default_rng(0)
    first = []
    for place in range(min(number, 64)):
        top, left = random.integers(0, 427 - 375), random.integers(0, 640 - 500)
        cut = photographs[place % 2][top : top + 375, left : left + 500, :: random.choice([-1, 1])]
        first.append(root / "train" / f"class{place % 2}" / f"{place:05}.jpg")
        first[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((cut * random.uniform(0.5, 1.0)).astype(np.uint8)).save(first[-1], quality=90)
    for place in range(len(first), number):
        file = first[place % len(first)]
        (file.parent / f"{place:05}.jpg").hardlink_to(file)


def search(options: argparse.Namespace) -> dict[str, Any]:
    """Trainings on photographs."""
    folder = options.out.parent if options.keep else Path(tempfile.mkdtemp())
    table = folder / "vit-mocov3.csv"
    source = (
        ["data.dataset=digits", "data.image_size=32"]
        if options.images is None
        else [f"data.root={options.images}"]
    )
    command = [
        sys.executable,
        str(HERE / "photographs.py"),
        "vit",
        "--device",
        options.device,
        "--table",
        str(table),
    ]
    command += ["--out", str(Path(tempfile.mkdtemp())), "--workers", str(options.workers)]
    command += [f"--set={key}" for key in source]
    if options.quick:
        command += ["--quick", "--most", "1", "--set=proxy.batch_size=64", "--set=data.subset=256"]
    else:
        command += ["--minutes", str(options.minutes), "--grace", "150"]
    began = time.perf_counter()
    with multi_process_service(options.device):
        subprocess.run(command, check=True, stdout=sys.stderr)
    import pandas as pd

    rows = pd.read_csv(table)
    ends = rows[(rows["epoch"] == rows["epochs"]) & (rows["arm"] != "screen")]
    arms = ends.groupby("arm")[["knn", "linear"]].agg(["mean", "count"])
    return {
        "images": "digits" if options.images is None else "photographs",
        "seconds": round(time.perf_counter() - began, 1),
        "trainings": len(rows[["arm", "replicate"]].drop_duplicates()),
        "arms": {
            arm: {
                "knn": round(row["knn"]["mean"], 2),
                "linear": round(row["linear"]["mean"], 2),
                "trainings": int(row["knn"]["count"]),
            }
            for arm, row in arms.iterrows()
        },
    }


def tests(options: argparse.Namespace) -> dict[str, Any]:
    """The tests that need an accelerator."""
    named = subprocess.run(
        ["grep", "-rlE", r"pytest\.mark\.gpu|marks=.*gpu", "tests"],
        capture_output=True,
        text=True,
        check=True,
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        *sorted(named.stdout.split()),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    print(ended.stdout[-3000:], file=sys.stderr)
    return {"exit_code": ended.returncode, "summary": ended.stdout.strip().splitlines()[-1]}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "tests": tests,
    "steps": steps,
    "screen": screen,
    "sharing": sharing,
    "streaming": streaming,
    "search": search,
    "compiled": compiled,
}


def main() -> int:
    """Run the parts, one after the other. 1 where one has failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--images", metavar="FOLDER", help="photographs in class folders, for the search; the digits without"
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument(
        "--minutes",
        type=float,
        default=0.5,
        help="of the search; no training is begun after so many, and those begun end",
    )
    parser.add_argument("--workers", type=int, default=8, help="of the search")
    parser.add_argument(
        "--keep", action="store_true", help="write the search's table and predictions beside --out"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: whether it works; the figures say nothing"
    )
    options = parser.parse_args()
    written: dict[str, Any] = {"about": about(options), "parts": {}}
    for part in options.parts:
        if part in ("tests", "compiled") and options.device == "cpu":
            continue
        written["parts"][part] = alone(part, options)
        options.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        print(part, json.dumps(written["parts"][part]), flush=True)
    failed = [name for name, part in written["parts"].items() if "error" in part or part.get("exit_code")]
    return 1 if failed else 0


def about(options: argparse.Namespace) -> dict[str, Any]:
    """The machine."""
    name = "cpu"
    if options.device == "cuda":
        import torch

        name = torch.cuda.get_device_name()
    torch_version = importlib.metadata.version("torch")
    return {"device": name, "cores": os.cpu_count(), "torch": torch_version, "quick": options.quick}


def alone(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """A part in a process of its own."""
    began = time.perf_counter()
    ours, theirs = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=tell, args=(part, options, theirs))
    process.start()
    theirs.close()
    most = SECONDS[part] * (1 if options.device == "cuda" else 5)
    try:
        if not ours.poll(most):
            return {"error": f"not done after {most} s"}
        result: dict[str, Any] = ours.recv()
    except EOFError:
        process.join()
        return {"error": f"exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()
    return {**result, "wall_seconds": round(time.perf_counter() - began, 1)}


def tell(part: str, options: argparse.Namespace, pipe: Connection) -> None:
    """Do a part, and send what it found."""
    pipe.send(PARTS[part](options))


if __name__ == "__main__":
    sys.exit(main())
