"""Trains HeadBench's proxies anew and takes three label-free measures of each at its end, which HeadBench does not have.

    python benchmarks/label_free_candidates.py digits --replicates 0 [--set data.root=...] [--out runs/headbench]
    python benchmarks/label_free_candidates.py digits --collect

benchmarks/headbench/LABEL_FREE.md says which measures, what is judged and by which rule, and was written before anything was trained. Heads, seeds,
epochs and images are those of the part `proxies`; controls are left out. Every training leaves its row in a file, so that the same call takes up what was
interrupted. One process, one thread. `--collect` writes `benchmarks/headbench/label_free/NAME.csv.gz`, with the columns of HeadBench and three more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from headbench.making import COLUMNS, write_headbench
from make_headbench import HERE, part_experiment
from trunk import Alone, heads_of, read_rows, rows_of

from headsearch.base.model import Base
from headsearch.methods.hssl import Student
from headsearch.scoring.dense import dse
from headsearch.scoring.features import extract_embeddings, extract_tokens, extract_view_embeddings
from headsearch.scoring.label_free import alpha_req, lidar
from headsearch.search.seeds import trial_seed
from headsearch.training.evaluator import Evaluator
from headsearch.training.scorer import Scorer
from headsearch.training.seeds import derived_generator
from headsearch.training.trial import Training, Trial

MEASURED = ("lidar.head", "alpha_req.base", "dse.base")
"""Columns beside those of HeadBench; `lidar.head` is not yet over the width."""
VIEWED, PAIRS, LOOKED_INTO = 500, 5, 64
"""Held-out images for LiDAR, its pairs of views, and held-out images for DSE."""


def measure(student: Student[Base], scorer: Scorer) -> dict[str, float]:
    """The three measures of a student with one head; images and views are the same for all trainings of a bench."""
    held_out, views = scorer.dataset.held_out, scorer.views
    every = [images for images, _ in held_out.batches(256)]
    order = derived_generator(scorer.seed, "label-free images")
    some = [images for images, _ in islice(held_out.batches(VIEWED, generator=order), 1)]
    pairs = []
    for pair in range(PAIRS):
        generator = derived_generator(scorer.seed, "label-free views", pair)
        seen = extract_view_embeddings(
            student.base,
            list(student.heads),
            some,
            views=lambda images, generator=generator: views(images, generator, images.device),
        )
        pairs += seen.heads[0]
    tokens = extract_tokens(student.base, some, prepare=views.prepare, most=LOOKED_INTO)
    of_base = alpha_req(extract_embeddings(student.base, every, prepare=views.prepare))
    return dict(
        zip(MEASURED, (lidar(torch.stack(pairs)), of_base, dse(tokens, seed=scorer.seed)), strict=True)
    )


def train(name: str, replicate: int, path: Path, overrides: list[str]) -> None:
    """The proxies of one bench with one seed: what of it is not done yet."""
    done = {(row["head_id"], row["replicate"]) for row in read_rows(path)}
    wanted = [head for head, control in heads_of(name) if control is None]
    described = part_experiment(name, "proxies", workers=1, overrides=overrides)
    last = described.proxy.model_copy(update={"rungs": [described.proxy.epochs]})
    experiment = described.model_copy(update={"proxy": last})
    evaluate = Evaluator(experiment, checkpoint_seconds=1e9)
    for head in wanted:
        if (head.head_id, replicate) in done:
            continue
        seed = trial_seed(experiment.seed, head.head_id, replicate)
        with tempfile.TemporaryDirectory() as folder:
            training = Training((Trial(0, head),), seed, Path(folder), replicate)
            run = evaluate.start(training, Alone())
            run.run()
        (row,) = rows_of("proxies", training, run.rungs(0), run.seconds, None, evaluate)
        row |= measure(run.trainer.hssl.student, run.scorer)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        shown = ", ".join(f"{key} {row[key]:.3f}" for key in ("knn", *MEASURED))
        print(f"{name} {replicate} {head.head_id}: {shown} ({run.seconds:.0f} s)", flush=True)


def main() -> None:
    """Train what has not been, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of a HeadBench")
    parser.add_argument("--replicates", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/headbench"))
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--collect", action="store_true", help="train nothing, only write the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out / options.name / "label_free.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not options.collect:
        for replicate in options.replicates:
            train(options.name, replicate, path, options.overrides)
        return
    rows: list[dict[str, Any]] = read_rows(path)
    columns = (*COLUMNS, *MEASURED)
    table = pd.DataFrame(rows, columns=list(columns)).astype({"seed": "Int64"})
    file = HERE / "label_free" / f"{options.name}.csv.gz"
    file.parent.mkdir(exist_ok=True)
    write_headbench(file, table, columns)
    print(f"{file}: {len(table)} rows")


if __name__ == "__main__":
    main()
