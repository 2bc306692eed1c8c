"""What a comparison trains and evaluates: the arms, which differ in their head alone, and how each base is evaluated. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from headsearch.document import plain, read_mapping, shorten
from headsearch.errors import ExperimentError, RunError, did_you_mean
from headsearch.evaluation.spec import EvaluationSpec, evaluation_spec
from headsearch.experiment.sections import TOUCHES_NO_SCORE
from headsearch.export import ExportedHead, HeadSource
from headsearch.files import differences
from headsearch.pretrain import PretrainSpec
from headsearch.pretrain.chosen import chosen_heads
from headsearch.runs.directory import refuse_changes

VERSION = "headsearch/comparison@1"
NONE = "none"
"""The arm without a head."""
PLAN_FILE = "compare.yaml"

Budget = Literal["epochs", "time"]

_OF_THE_EVALUATION = "evaluate."
"""Overrides that start so are the evaluation's."""


@dataclass(frozen=True)
class ComparisonPlan:
    """A comparison before its first training."""

    arms: Mapping[str, PretrainSpec]
    """By `head_id`, the control `none` first; each with the seed of the first repetition."""
    evaluation: EvaluationSpec
    seeds: int
    """Repetitions of every arm. The k-th of all arms start from the same base and see the same batches and views."""
    budget: Budget
    """What the arms have in common: `epochs`, or the training `time`, as far as the overhead of a step tells."""
    unmeasured: tuple[str, ...] = ()
    """Arms that still have all epochs although the budget is `time`: no search has measured what their head takes. See `settled`."""

    def trainings(self) -> list[tuple[str, PretrainSpec]]:
        """Every arm with every seed; a seed at a time, so that an interrupted comparison holds whole pairs."""
        return [
            (arm, spec.model_copy(update={"seed": spec.seed + repetition}))
            for repetition in range(self.seeds)
            for arm, spec in self.arms.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML."""
        return {
            "compare": VERSION,
            "budget": self.budget,
            "seeds": self.seeds,
            "arms": {arm: spec.model_dump(mode="json") for arm, spec in self.arms.items()},
            "evaluation": self.evaluation.model_dump(mode="json"),
        }

    def settled(self, overheads: Mapping[str, float]) -> ComparisonPlan:
        """With fewer epochs for what was unmeasured, by its overhead: the time of a step beyond that of one without the head, over the latter."""
        arms = {
            arm: _shortened(spec, overheads[arm]) if arm in self.unmeasured else spec
            for arm, spec in self.arms.items()
        }
        return replace(self, arms=arms, unmeasured=())

    def resumed(self, out: Path) -> ComparisonPlan:
        """This plan, to go on with the comparison in `out`, whose measured overheads hold; more seeds may be asked for.

        Raises:
            RunError: there is none, or it differs, naming the key.
        """
        file = out / PLAN_FILE
        if not file.exists():
            raise RunError(f"{out}: nothing to resume, there is no {file.name}")
        former = plain(read_mapping(file, RunError, "as headsearch compare writes them"))
        arms = former.get("arms")
        # Of another comparison where it has no such arm: what differs is named below.
        begun = [arm for arm in self.unmeasured if isinstance(arms, dict) and arm in arms]
        settled = {arm: PretrainSpec.parse(arms[arm], str(file)) for arm in begun}
        plan = replace(self, arms={**self.arms, **settled}, unmeasured=())
        indifferent = ("seeds", *(f"data.{key}" for key in TOUCHES_NO_SCORE))
        changes = _changes(former, plan.to_dict())
        refuse_changes(out, [change for change in changes if not change[0].endswith(indifferent)])
        return plan


def make_plan(
    heads: Sequence[HeadSource],
    *,
    base: Mapping[str, Any] | None = None,
    data: str | None = None,
    seeds: int = 3,
    budget: Budget = "epochs",
    probes: str | Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> ComparisonPlan:
    """The comparison of some heads with no head.

    Args:
        heads: what `headsearch export` writes, or the files, chosen for one base and method; or descriptions.
        base: as `chosen_heads` takes it; likewise `plugins`.
        data: as `PretrainSpec.from_head` takes it.
        seeds: repetitions of every arm.
        budget: see `ComparisonPlan`. With `time` an arm gets the share 1 / (1 + overhead) of the epochs, rounded down; where no search has
            measured the head, not yet.
        probes: of `headsearch evaluate`; the first decides the verdict.
        overrides: `key=value` of the pretraining, or, below `evaluate.`, of the evaluation.
        plugins: see `base`.

    Raises:
        UserError: a file or an override cannot be used, or the heads were chosen for different bases or methods.
    """
    if seeds < 1:
        raise ExperimentError(f"seeds: expected at least 1, got {seeds}")
    if budget not in get_args(Budget):
        raise ExperimentError(f"budget: '{budget}' is not known{did_you_mean(budget, get_args(Budget))}")
    if not heads:
        raise ExperimentError(
            "compare: no head; expected a head.yaml, or a description such as {convnext: {depth: 3}}"
        )
    own = [override for override in overrides if not override.startswith(_OF_THE_EVALUATION)]
    others = [
        override.removeprefix(_OF_THE_EVALUATION)
        for override in overrides
        if override.startswith(_OF_THE_EVALUATION)
    ]
    chosen = chosen_heads(heads, base=base, data=data, overrides=own, plugins=plugins)
    exported = [
        (head.head_id if isinstance(given, ExportedHead) else shorten(str(given)), head)
        for given, head in zip(heads, chosen, strict=True)
    ]
    _check_alike(exported, same_root=data is None)
    _, first = exported[0]
    control = PretrainSpec.from_head(first, data=data, overrides=own, without_head=True)
    control.check_paths()
    arms = {NONE: control}
    unmeasured = []
    for _, head in exported:
        # Each from a search with a seed of its own, perhaps.
        spec = PretrainSpec.from_head(head, data=data, overrides=own).model_copy(
            update={"seed": control.seed}
        )
        if budget == "time":
            overhead = head.scores.get("overhead")
            if isinstance(overhead, int | float):
                spec = _shortened(spec, overhead)
            else:
                unmeasured.append(head.head_id)
        arms[head.head_id] = spec
    evaluation = evaluation_spec({} if probes is None else {"probes": probes}, others)
    if "label-free" in evaluation.probes:
        raise ExperimentError(
            "probes: label-free gives measures and no score to compare by; expected others (headsearch evaluate takes it)"
        )
    return ComparisonPlan(arms, evaluation, seeds, budget, tuple(unmeasured))


def _changes(former: Mapping[str, Any], plan: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys with old and new value, where two plans differ. Arms differ in their head alone: what is another in all of them is listed once."""
    old, new = former.get("arms"), plan["arms"]
    if not isinstance(old, dict) or old.keys() != new.keys():
        return [("arms", list(old) if isinstance(old, dict) else old, list(new))]
    # The control last, whose values then stand.
    of_arms = {change[0]: change for arm in reversed(new) for change in differences(old[arm], new[arm])}
    return [*of_arms.values(), *differences({**former, "arms": None}, {**plan, "arms": None})]


def _check_alike(exported: Sequence[tuple[str, ExportedHead]], *, same_root: bool) -> None:
    (path, first), *others = exported
    where = {} if same_root else {"root": first.data.root}
    seen = {first.head_id: path}
    for other_path, other in others:
        if other.head_id in seen:
            raise ExperimentError(f"{other_path}: the same head as in {seen[other.head_id]}")
        seen[other.head_id] = other_path
        other = other.model_copy(update={"data": other.data.model_copy(update=where)})
        for what in ("base", "method", "data"):
            if getattr(other, what) != getattr(first, what):
                raise ExperimentError(
                    f"{other_path}: chosen for another {what} than the head in {path}; heads are compared on one"
                )


def _shortened(spec: PretrainSpec, overhead: float) -> PretrainSpec:
    """With so many epochs as take the time that all of them take without the head."""
    epochs = max(1, int(spec.recipe.epochs / (1.0 + max(0.0, overhead))))
    content = spec.model_dump(mode="json")
    warmup = content["recipe"]["warmup_epochs"] * epochs / spec.recipe.epochs
    content["recipe"] |= {"epochs": epochs, "warmup_epochs": warmup}
    return PretrainSpec.parse(content, spec.head_id)
