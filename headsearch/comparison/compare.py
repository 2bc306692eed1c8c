"""Runs a comparison: trainings and evaluations one after the other, each kept on disk as soon as it is done.

compare.yaml                    the plan
<arm>/seed-<k>/                 the pretraining, as `headsearch pretrain` writes it
<arm>/seed-<k>.json             its evaluation: what is there is not done again
comparison.json, README.md      the table
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from headsearch.comparison.outcome import Comparison, summarised
from headsearch.comparison.plan import NONE, PLAN_FILE, ComparisonPlan
from headsearch.document import to_yaml
from headsearch.errors import UserError
from headsearch.evaluation.evaluate import check_images, evaluate
from headsearch.files import write_result
from headsearch.pretrain import PretrainObserver, PretrainSpec, pretrain
from headsearch.pretrain.prepare import prepare
from headsearch.results.text import epochs
from headsearch.runs.directory import RunDirectory
from headsearch.training.devices import generators_kept
from headsearch.training.overhead import step_overhead
from headsearch.training.ranks import ranks
from headsearch.training.seeds import derived_generator

Tell = Callable[[str], None]


def compare(
    plan: ComparisonPlan,
    out: Path,
    *,
    resume: bool = False,
    display: Callable[[], AbstractContextManager[PretrainObserver]],
    tell: Tell = lambda _: None,
) -> Comparison:
    """Train and evaluate what is not done yet, and write the table.

    Args:
        plan: what to do.
        out: the folder to write; it must not exist, unless `resume`.
        resume: go on with what is there.
        display: makes the observer of one pretraining.
        tell: is told, in one line, what begins and what came out.

    Raises:
        UserError: `out` cannot be used, or whatever `pretrain` and `evaluate` say.
        PretrainInterrupted: a signal came during a training; everything done is on disk.
        TrainingFailed: the loss of a training is not finite.
    """
    if resume:
        plan = plan.resumed(out)
    else:
        RunDirectory.refuse_existing(out)
    check_images(plan.evaluation, plan.arms[NONE], tell)
    if plan.unmeasured:
        plan = plan.settled(_overheads(plan, tell))
    write_result(out / PLAN_FILE, to_yaml(plan.to_dict()))
    records: dict[str, list[dict[str, Any]]] = {arm: [] for arm in plan.arms}
    trainings = plan.trainings()
    for number, (arm, spec) in enumerate(trainings, 1):
        named = f"{number} of {len(trainings)}: {arm}, seed {spec.seed}"
        folder = out / arm / f"seed-{spec.seed}"
        file = folder.with_suffix(".json")
        if not file.is_file():
            tell(f"{named}: {epochs(spec.recipe.epochs)}")
            try:
                trained = _trained(plan, spec, folder, display)
            except UserError:
                if list(out.iterdir()) == [out / PLAN_FILE]:
                    # What was asked for cannot be: nothing has begun, and nothing stays.
                    shutil.rmtree(out)
                raise
            write_result(file, json.dumps(trained, indent=2, allow_nan=False) + "\n")
        record = json.loads(file.read_text(encoding="utf-8"))
        records[arm].append(record)
        scores = ", ".join(f"{probe} {score:.1f}" for probe, score in record["scores"].items())
        tell(f"{named}: {scores}, {record['seconds']:.0f} s")
    comparison = summarised(plan, records)
    write_result(out / "comparison.json", comparison.to_json() + "\n")
    write_result(out / "README.md", comparison.to_markdown())
    return comparison


def _overheads(plan: ComparisonPlan, tell: Tell) -> dict[str, float]:
    """By arm, how much longer a step takes with its head than without, as a share of the latter; measured here, as in a search."""
    control, found = plan.arms[NONE], {}
    with ranks(control.recipe.device) as place, generators_kept(place.device):
        for arm in plan.unmeasured:
            with_head, without = prepare(plan.arms[arm], place), prepare(control, place)
            size = control.recipe.batch_size // control.recipe.accumulate
            images, _ = next(iter(without.images.batches(size, drop_last=True)))
            views = without.views(images, derived_generator(control.seed, "overhead"), place.device)
            found[arm] = step_overhead(with_head.trainer, without.trainer, views).median
            tell(f"{arm}: a step takes {found[arm]:+.0%} with the head, measured here")
    return found


def _trained(
    plan: ComparisonPlan,
    spec: PretrainSpec,
    folder: Path,
    display: Callable[[], AbstractContextManager[PretrainObserver]],
) -> Mapping[str, Any]:
    """One pretraining, resumed if it was begun, and its evaluation."""
    with display() as observer:
        result = pretrain(spec, folder, resume=(folder / "pretrain.yaml").is_file(), observer=observer)
    # The pretraining's own seed: where there is no test split, its cut is what was held out.
    evaluated = evaluate(plan.evaluation.model_copy(update={"seed": spec.seed}), [str(folder)])
    return {
        "scores": {row.probe: row.score for row in evaluated.rows},
        "detection": [check.to_dict() for check in evaluated.checks],
        "epochs": spec.recipe.epochs,
        "loss": result.loss,
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
    }
