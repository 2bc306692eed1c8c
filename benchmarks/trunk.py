"""Whether short proxies tell more when they branch from a trunk: the base, pretrained once without a head. On HeadBench's heads and bases.

    python benchmarks/trunk.py digits --variants trunk warm --replicates 1 [--set data.root=...] [--out runs/headbench]
    python benchmarks/trunk.py digits --collect

benchmarks/headbench/TRUNK.md says which variants there are, what is judged and by which rule, and was written before anything was trained.
Every training leaves its rows in a file, so that the same call takes up what was interrupted. On an accelerator: --set proxy.device=cuda --set
proxy.precision=float32 --workers 15. `--collect` writes
`benchmarks/headbench/trunk/NAME.csv.gz`, with the columns of HeadBench; `part` is the variant. `python benchmarks/evidence.py --only trunk` judges.

Seeds of proxies are those of the software, hash(study seed, head, replicate); each replicate has a trunk of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from headbench.making import COLUMNS, write_headbench
from headbench.table import read_headbench
from torch import Tensor

from headsearch.base.model import Base
from headsearch.errors import InfeasibleHead
from headsearch.experiment import Experiment, ProxySpec, ScheduleSpec, load_experiment
from headsearch.files import write_bytes_atomically
from headsearch.heads import Candidate
from headsearch.heads.config import HeadConfig
from headsearch.heads.registry import parse_head
from headsearch.methods.hssl import HSSL
from headsearch.scoring.cost import head_cost
from headsearch.search.seeds import search_seed, trial_seed
from headsearch.training.evaluator import Evaluator
from headsearch.training.trainer import Trainer
from headsearch.training.trial import RungScores, Training, Trial

HERE = Path(__file__).parent / "headbench"


@dataclass(frozen=True)
class Variant:
    """How a proxy begins."""

    trunk: float = 2.5
    """Epochs of the trunk, in those of a proxy."""
    branch: Literal["cold", "warm", "shared"] = "cold"
    """Projector and predictor of the base: new ones, or the trunk's; `shared`: the head's begin as a copy of these too."""
    frozen: float = 0.0
    """Share of the proxy's epochs at the start in which the base keeps still."""
    teacher: Literal["student", "own"] = "student"
    """The teacher's base begins as the trunk's student, or as its teacher."""
    moments: bool = False
    """Whether the optimiser's moments of the base are kept."""


VARIANTS = {
    "trunk": Variant(),
    "warm": Variant(branch="warm"),
    "frozen": Variant(frozen=0.25),
    "shared": Variant(branch="shared"),
    "short": Variant(trunk=1.0),
    "moments": Variant(moments=True),
    "teacher": Variant(teacher="own"),
}


@dataclass(frozen=True)
class Trunk:
    """What a trunk leaves: the pair's state, and the optimiser's moments by name of the student's parameter."""

    pair: Mapping[str, Tensor]
    moments: Mapping[str, Mapping[str, Tensor]]


class Branched(Trainer):
    """Trains a pair whose base came from a trunk."""

    frozen_steps = 0

    def _move(self, step: int, active: Sequence[int] | None = None) -> None:
        if step < self.frozen_steps:
            for weight in self.hssl.student.base.parameters():
                # Without a gradient AdamW leaves a weight alone.
                weight.grad = None
        super()._move(step, active)


class Branching(Evaluator):
    """Scores heads by proxies that begin at a trunk. It measures no time."""

    def __init__(self, experiment: Experiment, variant: Variant, trunk: Trunk) -> None:
        super().__init__(experiment, checkpoint_seconds=1e9)
        self._variant = variant
        self._trunk = trunk

    def _trainer(
        self,
        candidates: Sequence[Candidate],
        seed: int,
        schedule: ScheduleSpec,
        make_base: Callable[[], Base] | None = None,
    ) -> Trainer:
        start = super()._trainer(candidates, seed, schedule, make_base)
        begin(start.hssl, self._trunk, self._variant)
        trainer = Branched(
            start.hssl, start.recipe, steps_per_epoch=start.steps_per_epoch, device=start.device
        )
        trainer.frozen_steps = round(self._variant.frozen * trainer.steps)
        if self._variant.moments:
            for name, weight in trainer.hssl.student.named_parameters():
                if name in self._trunk.moments and name.startswith("base."):
                    moments = self._trunk.moments[name]
                    trainer.optimizer.state[weight] = {
                        key: value.to(weight.device, copy=True) for key, value in moments.items()
                    }
        return trainer


def begin(pair: HSSL, trunk: Trunk, variant: Variant) -> None:
    """Load into `pair`, which is new, what the variant takes over."""

    def load(module: torch.nn.Module, prefix: str) -> None:
        module.load_state_dict(
            {name[len(prefix) :]: value for name, value in trunk.pair.items() if name.startswith(prefix)}
        )

    load(pair.student.base, "student.base.")
    load(pair.teacher.base, "student.base." if variant.teacher == "student" else "teacher.base.")
    if variant.branch == "cold":
        return
    load(pair.student.base_branches[0], "student.base_branches.0.")
    if not pair.student.heads:
        load(pair.teacher.projectors[0], "student.base_branches.0.projector.")
    elif variant.branch == "shared":
        load(pair.student.head_branches[0], "student.base_branches.0.")
        load(pair.teacher.projectors[0], "student.base_branches.0.projector.")


class Alone:
    """The context of a training that nobody waits for."""

    def report(self, place: int, scores: RungScores) -> None:
        """Nothing."""

    def progress(self, epoch: float, epochs: int, loss: float, images_per_second: float) -> None:
        """Nothing."""


def trunk_of(experiment: Experiment, epochs: int, replicate: int, path: Path) -> None:
    """Train the base without a head, if that has not been done."""
    if not path.exists():
        fields = experiment.proxy.model_dump(exclude={"epochs", "rungs", "warmup_epochs"})
        schedule = ProxySpec.model_validate({**fields, "epochs": epochs, "warmup_epochs": epochs / 10})
        evaluate = Evaluator(experiment.model_copy(update={"proxy": schedule}), checkpoint_seconds=1e9)
        none = Candidate.of(HeadConfig())
        with tempfile.TemporaryDirectory() as folder:
            seed = search_seed("trunk", experiment.seed, replicate)
            training = Training((Trial(0, none, "none"),), seed, Path(folder), replicate)
            run = evaluate.start(training, Alone())
            run.run()
        trainer = run.trainer
        names = {weight: name for name, weight in trainer.hssl.student.named_parameters()}
        moments = {names[weight]: dict(state) for weight, state in trainer.optimizer.state.items()}
        print(f"trunk of {epochs} epochs: k-NN {run.rungs(0)[-1].knn:.1f} %", flush=True)
        content = io.BytesIO()
        torch.save({"pair": trainer.hssl.state_dict(), "moments": moments}, content)
        write_bytes_atomically(path, content.getbuffer())


def heads_of(name: str) -> list[tuple[Candidate, str | None]]:
    """The heads of a bench and its controls, as its long schedule has them."""
    table = read_headbench(HERE / f"{name}.csv.gz")
    rows = table[table["part"] == "long"].drop_duplicates("head_id")
    return [
        (
            Candidate.of(parse_head(json.loads(row["config"]))),
            None if pd.isna(row["control"]) else row["control"],
        )
        for row in rows.to_dict("records")
    ]


def rows_of(
    part: str,
    training: Training,
    scored: Sequence[RungScores],
    seconds: float,
    why: str | None,
    evaluate: Evaluator,
) -> list[dict[str, Any]]:
    """A row for each rung, with the columns of HeadBench."""
    (trial,) = training.trials
    cost = head_cost(trial.candidate.config, evaluate.inputs.info)
    shared = {
        "part": part,
        "head_id": trial.candidate.head_id,
        "family": trial.candidate.config.family,
        "control": trial.control,
        "config": json.dumps(trial.candidate.config.to_dict()),
        "state": "infeasible" if why else "complete",
        "replicate": training.replicate,
        "seed": training.seed,
        "params": cost.params,
        "flops": cost.flops,
        "seconds": seconds,
    }
    return [
        shared
        | {key: value for key, value in rung.to_dict().items() if key in COLUMNS}
        | dict(rung.measures)
        | dict(rung.quality)
        for rung in scored
    ] or [shared]


@dataclass(frozen=True)
class Job:
    """One head's proxy of a variant with one seed."""

    name: str
    overrides: tuple[str, ...]
    part: str
    replicate: int
    head: Candidate
    control: str | None
    folder: Path


@cache
def experiment_of(name: str, overrides: tuple[str, ...]) -> Experiment:
    """A bench's experiment, with one rung in the middle."""
    described = load_experiment(str(HERE / f"{name}.yaml"), overrides)
    epochs = described.proxy.epochs
    return described.model_copy(
        update={"proxy": described.proxy.model_copy(update={"rungs": [epochs // 2, epochs]})}
    )


def trunk_path(job: Job) -> tuple[int, Path]:
    """The epochs of the trunk that a proxy begins at, and where it lies."""
    epochs = round(VARIANTS[job.part].trunk * experiment_of(job.name, job.overrides).proxy.epochs)
    return epochs, job.folder / f"trunk-{epochs}-{job.replicate}.pt"


def make_trunk(job: Job) -> None:
    """Train the trunk that a proxy begins at."""
    epochs, path = trunk_path(job)
    trunk_of(experiment_of(job.name, job.overrides), epochs, job.replicate, path)


@cache
def inputs_of(name: str, overrides: tuple[str, ...]) -> Any:
    """Images and base, read once in a process."""
    return Evaluator(experiment_of(name, overrides)).inputs


@cache
def evaluator(name: str, overrides: tuple[str, ...], part: str, epochs: int, path: Path) -> Branching:
    """What trains and scores the proxies of a variant and a seed."""
    trunk = Trunk(**torch.load(path, weights_only=True, map_location="cpu"))
    branching = Branching(experiment_of(name, overrides), VARIANTS[part], trunk)
    branching.inputs = inputs_of(name, overrides)
    return branching


def train(job: Job) -> tuple[Job, list[dict[str, Any]]]:
    """The rows of one proxy."""
    evaluate = evaluator(job.name, job.overrides, job.part, *trunk_path(job))
    seed = trial_seed(evaluate.experiment.seed, job.head.head_id, job.replicate)
    with tempfile.TemporaryDirectory() as workdir:
        training = Training((Trial(0, job.head, job.control),), seed, Path(workdir), job.replicate)
        run = evaluate.start(training, Alone())
        why = None
        try:
            run.run()
        except InfeasibleHead as error:
            why = str(error)
    return job, rows_of(job.part, training, run.rungs(0), run.seconds, why, evaluate)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows that trainings left."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Train what has not been, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of a HeadBench")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["trunk"])
    parser.add_argument("--replicates", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/headbench"))
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")
    parser.add_argument("--collect", action="store_true", help="train nothing, only write the table")
    options = parser.parse_args()
    folder = options.out / options.name / "trunk"
    folder.mkdir(parents=True, exist_ok=True)
    if not options.collect:
        jobs = [
            Job(options.name, tuple(options.overrides), part, replicate, head, control, folder)
            for part in options.variants
            for replicate in options.replicates
            for head, control in heads_of(options.name)
        ]
        done = {
            (row["part"], row["replicate"], row["head_id"])
            for part in options.variants
            for row in read_rows(folder / f"{part}.jsonl")
        }
        jobs = [job for job in jobs if (job.part, job.replicate, job.head.head_id) not in done]
        with multiprocessing.get_context("spawn").Pool(options.workers, torch.set_num_threads, (1,)) as pool:
            pool.map(make_trunk, {trunk_path(job): job for job in jobs}.values(), chunksize=1)
            for job, rows in pool.imap_unordered(train, jobs):
                with (folder / f"{job.part}.jsonl").open("a", encoding="utf-8") as file:
                    file.write("".join(json.dumps(row) + "\n" for row in rows))
                last = rows[-1]
                print(job.part, job.replicate, job.head.head_id, last.get("knn"), last["seconds"], flush=True)
        return
    rows = [row for part in VARIANTS for row in read_rows(folder / f"{part}.jsonl")]
    path = HERE / "trunk" / f"{options.name}.csv.gz"
    path.parent.mkdir(exist_ok=True)
    write_headbench(path, pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64"}))
    print(f"{path}: {len(rows)} rows")


if __name__ == "__main__":
    main()
