"""Long trainings on photographs, by the protocol of docs/protocol.md: what is trained, in which order, and what is kept.

    python benchmarks/photographs.py vit --set data.root=path/to/cifar10 [--method dino] [--workers 2] [--minutes 60] [--device cuda] [--out runs/photographs]
    python benchmarks/photographs.py vit --judge
    python benchmarks/photographs.py vit --headbench --set data.root=path/to/cifar10
    python benchmarks/photographs.py vit --choose --set data.root=path/to/cifar10

The first trains what is not in the table yet, arm by arm in the protocol's order, until all is done or no minutes are left; the next call takes
up what was interrupted. Every training goes into `photographs/vit-mocov3.csv`, a row per rung, and its predictions for every held-out image, with their labels, into the `.npz` beside it. `--judge`
prints the protocol's outcomes from the table. `--headbench` writes screens and long trainings into `headbench/photographs-vit.csv.gz`, with what the heads score untrained. `--choose` draws the heads anew: their list, `photographs/heads.json`, was made so before anything was trained.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import queue
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).parent / "photographs"
HEADS = HERE / "heads.json"
BENCHES = ("vit", "small-vit", "small-convnext")
DRAWN, STRATA, OF_EACH = 60, 5, 3
"""Heads drawn from the space `paper`; strata of their untrained scores; heads taken from each."""
MOSAICS = {"train": 2000, "held_out": 1000}
"""How many are made of either part's images, to segment them."""
COLUMNS = (
    "arm",
    "head_id",
    "replicate",
    "epochs",
    "epoch",
    "loss",
    "knn",
    "linear",
    "miou",
    "score",
    "seconds",
)


@dataclass(frozen=True)
class Task:
    """One training: an arm and a replicate."""

    arm: str
    replicate: int
    heads: tuple[dict[str, Any], ...]
    """Descriptions; several in a screen, none without a head."""
    epochs: int

    @property
    def name(self) -> str:
        """Of its folder and its predictions."""
        return f"{self.arm}-{self.replicate}"


def tasks(bench: str, epochs: int, equal_time: int) -> Iterator[Task]:
    """Every training in the protocol's order. `equal_time` is how many epochs `none` has in the time of the head `paper`."""
    described = json.loads(HEADS.read_text(encoding="utf-8"))[bench]
    drawn = {f"head-{place:02}": head["config"] for place, head in enumerate(described["heads"])}
    alone = {"none": None, "paper": {"paper": {}}, "mlp": described["mlp"], **drawn}

    def arm(name: str, replicate: int) -> Task:
        length = equal_time if name == "none-equal-time" else epochs
        head = alone.get(name)
        return Task(name, replicate, () if head is None else (head,), length)

    for replicate in range(3):
        yield from (arm(name, replicate) for name in ("none", "paper", "mlp", "none-equal-time"))
    for replicate in range(3):
        yield Task("screen", replicate, tuple(drawn.values()), epochs)
        yield from (arm(name, replicate) for name in drawn)
        yield arm("none", 3 + replicate)


def experiment(bench: str, epochs: int | None, options: argparse.Namespace) -> Any:
    """The bench's experiment; other epochs than its own keep the shares of its rungs."""
    from headsearch.experiment import load_experiment

    source = str(HERE / f"{bench}.yaml")
    overrides = [f"method.name={options.method}", f"proxy.device={options.device}", *options.overrides]
    own = load_experiment(source, overrides).proxy
    length = epochs or (2 if options.quick else own.epochs)
    rungs = sorted({max(1, round(length * rung / own.epochs)) for rung in own.rungs})
    screen = max(1, length // 5)
    changes = [
        f"proxy.epochs={length}",
        f"proxy.rungs={rungs}",
        f"search.screen={{heads: {STRATA * OF_EACH}, reduction: 1, epochs: {screen}, rungs: [{screen}]}}",
    ]
    return load_experiment(source, [*overrides, *changes])


def choose(bench: str, options: argparse.Namespace) -> dict[str, Any]:
    """Heads drawn from the space and taken at random from strata of their untrained scores; and the control `mlp`."""
    from headsearch.heads.controls import mlp_head
    from headsearch.scoring.cost import head_cost
    from headsearch.search.materials import read_space
    from headsearch.search.zero_cost import ZeroCostScorer
    from headsearch.space.drawing import distinct_heads

    described = experiment(bench, None, options)
    space, _ = read_space(described.search.space)
    scorer = ZeroCostScorer(described)
    drawn = distinct_heads(space, DRAWN, seed=0, base=scorer.base, cost_function=head_cost)
    rows = [row for row in map(scorer.score, drawn) if row.score is not None]
    rows.sort(key=lambda row: (-(row.score or 0.0), row.head_id))
    picked = random.Random(1)
    heads = []
    for stratum in np.array_split(np.arange(len(rows)), STRATA):
        for place in sorted(picked.sample(stratum.tolist(), OF_EACH)):
            row = rows[place]
            heads.append({"head_id": row.head_id, "untrained": row.score, "config": row.config.to_dict()})
    return {"mlp": mlp_head(scorer.base).config.to_dict(), "heads": heads}


def raw_pixels(bench: str, options: argparse.Namespace) -> dict[str, float]:
    """Accuracy of both probes on the pixels themselves."""
    import torch

    from headsearch.scoring.probes import knn_accuracy, linear_accuracy
    from headsearch.training.evaluator import Evaluator

    dataset, views = Evaluator(experiment(bench, None, options)).inputs.images
    splits: list[Any] = []
    for images in (dataset.train, dataset.held_out):
        batches = [views.prepare(batch).flatten(1) for batch, _ in images.batches(256, drop_last=False)]
        splits += [torch.cat(batches), images.labels]
    return {"knn": knn_accuracy(*splits), "linear": linear_accuracy(*splits, seed=0)}


def mosaics(images: Any, count: int, seed: int) -> Any:
    """Pictures of four images that meet at a random point, each in its own corner and its own place; a pixel's class is its image's."""
    import torch

    from headsearch.data.segmentation import MaskedImages

    random = np.random.default_rng(seed)
    drawn = torch.from_numpy(random.integers(len(images), size=(4, count)))
    corners = list(images.read(drawn))
    pixels, size = corners[0].clone(), corners[0].shape[-1]
    masks = images.labels[drawn[0]][:, None, None].repeat(1, size, size)
    for row, (y, x) in enumerate(random.integers(size // 4, 3 * size // 4 + 1, size=(count, 2))):
        for corner, place in enumerate(
            ((slice(y), slice(x, size)), (slice(y, size), slice(x)), (slice(y, size), slice(x, size))), 1
        ):
            pixels[row, :, *place] = corners[corner][row, :, *place]
            masks[row, *place] = images.labels[drawn[corner, row]]
    return MaskedImages(pixels, masks)


def segmented(base: Any, evaluate: Any) -> float:
    """Mean IoU, in percent, of a linear layer on the base's last map that tells the classes of a mosaic's pixels."""
    from headsearch.data.segmentation import MaskedDataset
    from headsearch.evaluation.segmentation import segmentation
    from headsearch.evaluation.spec import evaluation_spec
    from headsearch.evaluation.subject import Loaded

    dataset, views = evaluate.inputs.images
    parts = [
        mosaics(getattr(dataset, part), count, seed) for seed, (part, count) in enumerate(MOSAICS.items())
    ]
    device = next(base.parameters()).device
    masked = MaskedDataset(*parts, classes=list(range(len(dataset.classes))))
    spec = evaluation_spec({"segmentation": {"batch_size": 128}})
    subject = Loaded("trained", base, masked, views, spec.batch_size, device)
    return segmentation(subject, spec)["segmentation mIoU"].score


def train(task: Task, evaluate: Any, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of the table and predictions, by the kind of probe, of one training; resumed where there is a checkpoint."""
    from headsearch.errors import InfeasibleHead
    from headsearch.heads.registry import parse_head
    from headsearch.scoring.features import extract_embeddings
    from headsearch.scoring.probes import knn_predictions, linear_predictions
    from headsearch.scoring.score import head_score
    from headsearch.testing.tiny import Context, training
    from headsearch.training.seeds import derived_seed

    heads = [parse_head(head) for head in task.heads] or [parse_head(None)]
    wanted = training(
        folder / task.name,
        *heads,
        seed=derived_seed(0, "photographs", task.arm, task.replicate),
        stage="screen" if task.arm == "screen" else "proxy",
    )
    context = Context()
    run = evaluate.start(wanted, context)
    common = {"arm": task.arm, "replicate": task.replicate, "epochs": task.epochs}
    try:
        run.run()
    except InfeasibleHead as error:
        return [{**common, "head_id": wanted.candidates[0].head_id, "score": None, "reason": str(error)}], {}
    rows = [
        {
            **common,
            "head_id": wanted.candidates[place].head_id,
            "epoch": scores.epoch,
            "loss": scores.loss,
            "knn": scores.knn,
            "score": head_score(scores.measures, scores.quality),
            "seconds": round(run.seconds, 1),
            **{
                name: getattr(scores, name) for name in ("rankme_base", "rankme_head", "std_base", "std_head")
            },
            **scores.measures,
            **scores.quality,
        }
        for place, scores in zip(context.places, context.reported, strict=True)
    ]
    if task.arm == "screen":
        return rows, {}
    dataset, views = evaluate.inputs.images
    splits = []
    for images in (dataset.train, dataset.held_out):
        batches = (batch for batch, _ in images.batches(256, drop_last=False))
        splits += [
            extract_embeddings(run.trainer.hssl.student.base, batches, prepare=views.prepare),
            images.labels,
        ]
    train_x, train_y, test_x, test_y = splits
    predicted = {
        "knn": knn_predictions(train_x, train_y, test_x),
        "linear": linear_predictions(train_x, train_y, test_x, seed=0),
    }
    kept = {probe: labels.cpu().numpy().astype(np.uint8) for probe, labels in predicted.items()}
    kept["labels"] = test_y.numpy().astype(np.uint8)
    rows[-1]["linear"] = 100.0 * float((kept["linear"] == kept["labels"]).mean())
    rows[-1]["miou"] = segmented(run.trainer.hssl.student.base, evaluate)
    return rows, kept


def work(bench: str, options: argparse.Namespace, todo: Any, done: Any) -> None:
    """A worker: takes tasks until there are none, or no time."""
    import torch

    from headsearch.training.evaluator import Evaluator

    torch.set_num_threads(1)
    evaluators: dict[int, Any] = {}
    while True:
        try:
            task = todo.get(timeout=5)
        except queue.Empty:
            return
        if task is None or time.time() > options.until:
            return
        if task.epochs not in evaluators:
            evaluators[task.epochs] = Evaluator(experiment(bench, task.epochs, options))
            # Images are read once, whatever the number of epochs.
            evaluators[task.epochs].inputs = next(iter(evaluators.values())).inputs
        done.put((task, *train(task, evaluators[task.epochs], options.out / f"{bench}-{options.method}")))


def epochs_in_the_time_of(head: dict[str, Any], described: Any) -> int:
    """How many epochs the base has without a head while it has the experiment's with this one."""
    from headsearch.heads import Candidate
    from headsearch.heads.registry import parse_head
    from headsearch.training.evaluator import Evaluator

    overhead = Evaluator(described).overhead([Candidate.of(parse_head(head))])
    return math.ceil(described.proxy.epochs * (1.0 + overhead))


def conduct(bench: str, options: argparse.Namespace) -> None:
    """Train what is not in the table, with several workers, and write the table after each training."""
    table, predictions = options.table, options.table.with_name(f"{options.table.stem}-predictions.npz")
    rows = pd.read_csv(table).to_dict("records") if table.exists() else []
    kept = dict(np.load(predictions)) if predictions.exists() else {}
    before = {(row["arm"], row["replicate"]) for row in rows}
    described = experiment(bench, None, options)
    own = described.proxy.epochs
    known = [row["epochs"] for row in rows if row["arm"] == "none-equal-time"]
    equal_time = known[0] if known else epochs_in_the_time_of({"paper": {}}, described)
    wanted = [task for task in tasks(bench, own, equal_time) if (task.arm, task.replicate) not in before]
    wanted = wanted[: options.most]
    spawn = multiprocessing.get_context("spawn")
    todo, done = spawn.Queue(), spawn.Queue()
    for task in wanted:
        todo.put(task)
    workers = [
        spawn.Process(target=work, args=(bench, options, todo, done))
        for _ in range(min(options.workers, len(wanted)))
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers) or not done.empty():
        if time.time() > options.until + options.grace:
            for worker in workers:
                worker.terminate()
            break
        try:
            task, new, predicted = done.get(timeout=1)
        except queue.Empty:
            continue
        rows += new
        if predicted:
            kept["labels"] = predicted.pop("labels")
        kept |= {f"{task.name}/{probe}": labels for probe, labels in predicted.items()}
        every = pd.DataFrame(rows)
        every = every.reindex(columns=dict.fromkeys([*COLUMNS, "reason", *every.columns]))
        every.to_csv(table, index=False, float_format="%.6g")
        np.savez_compressed(predictions, **kept)
        print(json.dumps({key: new[-1].get(key) for key in COLUMNS}), flush=True)
    ended = {(row["arm"], row["replicate"]) for row in rows}
    left = [task.name for task in wanted if (task.arm, task.replicate) not in ended]
    print(f"{table.name}: {len(ended)} trainings; not reached: {', '.join(left) or 'none'}")


def main() -> None:
    """Choose, train or judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bench", choices=BENCHES)
    parser.add_argument("--method", choices=["mocov3", "dino"], default="mocov3")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="as of headsearch run, e.g. data.root=...",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no training is begun after so many")
    parser.add_argument(
        "--grace",
        type=float,
        default=math.inf,
        help="seconds after that at which what is still training is ended; the next call resumes it",
    )
    parser.add_argument("--most", type=int, default=None, help="train at most so many")
    parser.add_argument("--out", type=Path, default=Path("runs/photographs"), help="checkpoints")
    parser.add_argument(
        "--table", type=Path, default=None, help="the table, if not the one in benchmarks/photographs"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two epochs: a smoke test, says nothing; give another --table"
    )
    parser.add_argument("--choose", action="store_true", help="draw the heads anew")
    parser.add_argument("--headbench", action="store_true", help="write the table of HeadBench")
    parser.add_argument("--judge", action="store_true", help="print the outcomes")
    options = parser.parse_args()
    options.until = time.time() + 60 * options.minutes
    options.table = options.table or HERE / f"{options.bench}-{options.method}.csv"
    if options.choose:
        chosen = json.loads(HEADS.read_text(encoding="utf-8")) if HEADS.exists() else {}
        chosen[options.bench] = {
            "raw_pixels": raw_pixels(options.bench, options),
            **choose(options.bench, options),
        }
        HEADS.write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")
    elif options.headbench:
        from photographs_headbench import headbench

        headbench(options)
    elif options.judge:
        from photographs_outcomes import judged

        print(judged(options.table))
    else:
        conduct(options.bench, options)


if __name__ == "__main__":
    main()
