"""The ledger: a persistent Optuna study, the only truth about the trials of a run. It has one writer.

One Optuna trial per training. What the trial *is* (head, seed, replicate, control, and the decisions of the sampler) is written in the
transaction that creates it; how it *ended* is written as one attribute, then its state. A trial that has the former and not the latter was
interrupted, and is resumed.

    complete → COMPLETE (a screened head: PRUNED, where proxies are the study's values)    stopped → PRUNED    infeasible, failed → FAIL    duplicate → as the trial that answers it

Values are [discrepancy, probe], or [discrepancy] without labels. Optuna wants a number where the control `none` has no discrepancy: it is
given 0.0, since the empty head is the identity; the scores themselves keep null.

While a trial runs, the attribute `rungs` holds its scores, each with what the stopping policy compared and said (`objectives`, `go_on`) where it
was asked. That stays when the trial has ended, and is all that the policy is rebuilt from.

What the ledger reads back are system attributes. The few user attributes (`head_id`, `control`, `replicate`, `stage`, `reason`) are for people who look at
the study with Optuna's tools; so are the constraints of an infeasible trial.

All records are kept in memory too, so that nothing is ever read back: the cost of a trial does not grow with their number.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

from headsearch.errors import RunError
from headsearch.heads import Candidate
from headsearch.results.ranking import probe_score
from headsearch.results.records import Taken, TrialRecord, finite
from headsearch.runs.attributes import attributes, decode, for_people, identity, known_at_the_end, outcome
from headsearch.runs.failures import NumberTaken, in_one_line
from headsearch.search.draws import Draw
from headsearch.search.lease import Lease, StudyLost
from headsearch.search.patience import Patience
from headsearch.search.stopping import Decision
from headsearch.training.trial import RungScores, TrialResult, TrialStage

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

METRICS = ("discrepancy", "probe")
"""Names of the objectives, in order; without labels only the first."""


INFEASIBLE = [1.0]
"""Optuna's constraints of an infeasible trial: one above 0 is violated."""

Result = TypeVar("Result")


class Ledger:
    """The study of one run, open for writing."""

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        labels: bool,
        valued: TrialStage = "proxy",
        patience: Patience | None = None,
        lease: Lease | None = None,
    ) -> None:
        """Open the study `name`, which exists. `labels` tells whether its trials have a probe, `valued` which stage's scores are values of
        the study: those of another do not compare with them; `patience` is for a database that goes away; `lease` is held, and
        is looked at before every write.

        Raises:
            RunError: the storage fails.
        """
        self._storage = storage
        self._labels = labels
        self._valued = valued
        self._patience = patience or Patience()
        self._lease = lease
        self._records: dict[int, TrialRecord] = {}
        self._draws: dict[int, Draw] = {}
        self._decisions: dict[int, dict[int, Decision]] = {}
        self._ids: dict[int, int] = {}
        self._next_number = 0
        with in_one_line("the study cannot be read"):
            self._study = storage.get_study_id_from_name(name)
            trials = storage.get_all_trials(self._study, deepcopy=False)
        for trial in trials:
            self._next_number = trial.number + 1
            noted = attributes(trial)
            record = decode(trial.number, noted)
            if record is None:
                continue
            self._records[trial.number] = record
            self._ids[trial.number] = trial._trial_id
            self._decisions[trial.number] = _decisions(trial.number, noted)
            if trial.params or "sampler" in noted:
                self._draws[trial.number] = Draw(trial.params, trial.distributions, noted.get("sampler", {}))
            if record.state != "running" and not trial.state.is_finished():
                # Killed between the writes that end a trial: the first says it all.
                self._close(record)

    @classmethod
    def create(
        cls,
        storage: BaseStorage,
        name: str,
        *,
        labels: bool,
        facts: Mapping[str, Any],
        valued: TrialStage = "proxy",
    ) -> Ledger:
        """A study that is made, by `make_study`, and opened."""
        make_study(storage, name, labels=labels, facts=facts)
        return cls(storage, name, labels=labels, valued=valued)

    @staticmethod
    def exists(storage: BaseStorage, name: str) -> bool:
        """Whether the storage has a study of this name."""
        with in_one_line("the study cannot be read"):
            return any(study.study_name == name for study in storage.get_all_studies())

    @property
    def records(self) -> Sequence[TrialRecord]:
        """Every trial, by number."""
        return list(self._records.values())

    def record(self, number: int) -> TrialRecord:
        """One trial."""
        return self._records[number]

    def draw(self, number: int) -> Draw | None:
        """The decisions behind a trial that the search drew; None for controls and replicates."""
        return self._draws.get(number)

    def decisions(self, number: int) -> Mapping[int, Decision]:
        """What the stopping policy said about a trial, by epoch."""
        return self._decisions.get(number, {})

    def stopped(self, record: TrialRecord) -> bool:
        """Whether a trial, or the one that answers it, was stopped."""
        return self._answer(record).state == "stopped"

    def _answer(self, record: TrialRecord) -> TrialRecord:
        return record if record.duplicate_of is None else self._records[record.duplicate_of]

    def values(self, record: TrialRecord) -> list[float] | None:
        """What Optuna is told of a trial; None where it has no result."""
        record = self._answer(record)
        if record.state != "complete" or record.stage != self._valued:
            return None
        final = record.rungs[-1]
        values = [0.0 if final.discrepancy is None else final.discrepancy]
        if self._labels:
            probe = probe_score(final)
            assert probe is not None, "a trial with labels has a probe; the coordinator checks"
            values.append(probe)
        return values

    def start(
        self,
        candidate: Candidate,
        *,
        seed: int,
        replicate: int,
        control: str | None = None,
        draw: Draw | None = None,
        stage: TrialStage = "proxy",
        taken: Taken | None = None,
    ) -> TrialRecord:
        """Record a trial as running. The record has its number."""
        record = TrialRecord(
            number=self._next_number,
            state="running",
            head_id=candidate.head_id,
            config=candidate.config,
            control=control,
            seed=seed,
            replicate=replicate,
            rungs=(),
            cost=None,
            seconds=None,
            images_per_second=None,
            reason=None,
            duplicate_of=None,
            stage=stage,
            taken=taken,
        )
        self._create(record, draw)
        return record

    def duplicate(
        self,
        candidate: Candidate,
        of: TrialRecord,
        *,
        control: str | None = None,
        draw: Draw | None = None,
        taken: Taken | None = None,
    ) -> TrialRecord:
        """Record a head that an earlier trial answers."""
        record = replace(
            of,
            number=self._next_number,
            state="duplicate",
            config=candidate.config,
            control=control,
            seconds=0.0,
            images_per_second=None,
            duplicate_of=of.number,
            taken=taken,
        )
        self._create(record, draw)
        return record

    def report(self, number: int, scores: RungScores, decision: Decision | None = None) -> None:
        """Record the scores of a rung, and what the stopping policy said to them where it was asked.

        A resumed trial may report a rung again: the last scores count, and the first decision.
        """
        record = self._records[number]
        decided = self._decisions.setdefault(number, {})
        if scores in record.rungs and (decision is None or decision.epoch in decided):
            return
        if decision is not None:
            decided.setdefault(decision.epoch, decision)
        earlier = tuple(rung for rung in record.rungs if rung.epoch < scores.epoch)
        self._records[number] = record = replace(record, rungs=(*earlier, scores))
        self._note(number, "rungs", self._rungs(record))

    def end(
        self,
        number: int,
        result: TrialResult,
        *,
        seconds: float | None = None,
        images_per_second: float | None = None,
    ) -> TrialRecord:
        """Record how a trial ended, and how long it took: its share of the training's wall time."""
        return self._end(
            replace(
                self._records[number],
                state=result.state,
                rungs=result.rungs,
                cost=result.cost,
                seconds=seconds,
                images_per_second=images_per_second,
                reason=result.reason,
            )
        )

    def confirm(self) -> None:
        """Check that the study is still there and ours. Raises `StudyLost`."""
        if self._lease is not None:
            self._patience(self._lease.confirm)

    def copy_to(self, storage: BaseStorage, name: str, facts: Mapping[str, Any]) -> None:
        """Write everything that is known, anew, into an empty storage. Raises `RunError`."""
        make_study(storage, name, labels=self._labels, facts=facts)
        with in_one_line("the study cannot be written"):
            study = storage.get_study_id_from_name(name)
            for number in range(self._next_number):
                # Somebody else's trial is not known; its number is kept.
                known = self._records.get(number)
                trial = self._frozen(known, self._draws.get(number)) if known else _foreign(number)
                storage.create_new_trial(study, template_trial=trial)

    def _create(self, record: TrialRecord, draw: Draw | None) -> None:
        self.confirm()
        trial = self._frozen(record, draw)
        self._ids[record.number] = self._patiently(
            lambda: self._append(trial), lambda: self._append_again(trial)
        )
        self._records[record.number] = record
        if draw is not None:
            self._draws[record.number] = draw
        self._next_number += 1

    def _frozen(self, record: TrialRecord, draw: Draw | None) -> FrozenTrial:
        """A trial as Optuna has it."""
        from optuna.trial import FrozenTrial

        state, now = self._optuna_state(record), datetime.now()
        noted = identity(record)
        if draw and draw.sampler_state:
            noted["sampler"] = dict(draw.sampler_state)
        if record.rungs and record.duplicate_of is None:
            noted["rungs"] = self._rungs(record)
        if record.state != "running":
            noted["outcome"] = outcome(record)
        if record.state == "infeasible":
            noted["constraints"] = INFEASIBLE
        return FrozenTrial(
            number=record.number,
            state=state,
            value=None,
            values=self.values(record),
            datetime_start=now,
            datetime_complete=now if state.is_finished() else None,
            params=dict(draw.params) if draw else {},
            distributions=dict(draw.distributions) if draw else {},
            user_attrs=for_people(record) | known_at_the_end(record, self._probe_of_none()),
            system_attrs=noted,
            intermediate_values={},
            trial_id=-1,
        )

    def _rungs(self, record: TrialRecord) -> list[dict[str, Any]]:
        decided = self._decisions.get(record.number, {})
        return [finite(rung.to_dict()) | _said(decided.get(rung.epoch)) for rung in record.rungs]

    def _patiently(self, write: Callable[[], Result], again: Callable[[], Result] | None = None) -> Result:
        """Write to the study as `Patience` does, where it is still ours. Raises `StudyLost` where it is not."""
        if self._lease is not None:
            self._patience(self._lease.check)
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            return self._patience(write, again)
        except (KeyError, UpdateFinishedTrialError):
            raise StudyLost("the study no longer holds the trials of this search") from None

    def _append(self, trial: FrozenTrial) -> int:
        """Create a trial under its number; its id. Nothing is done where that is there already."""
        try:
            return self._storage.create_new_trial(self._study, template_trial=trial)
        except NumberTaken:
            return self._written(trial)

    def _append_again(self, trial: FrozenTrial) -> int:
        """The same after an attempt that may have come through."""
        try:
            return self._written(trial)
        except KeyError:
            return self._append(trial)

    def _written(self, trial: FrozenTrial) -> int:
        """The id of a trial that has been written. Raises `KeyError` where it has not."""
        there = self._storage.get_trial_id_from_study_id_trial_number(self._study, trial.number)
        if self._storage.get_trial(there).system_attrs.get("trial") != trial.system_attrs["trial"]:
            raise RunError(
                f"trial {trial.number} of the study was written by somebody else; a study has one writer"
            )
        return there

    def _end(self, record: TrialRecord) -> TrialRecord:
        self._note(record.number, "outcome", outcome(record))
        self._records[record.number] = record
        self._close(record)
        return record

    def _note(self, number: int, key: str, value: Any) -> None:
        trial = self._ids[number]
        self._patiently(lambda: self._storage.set_trial_system_attr(trial, key, value))

    def _close(self, record: TrialRecord) -> None:
        """All of a trial's end that follows from its outcome."""
        from optuna.exceptions import UpdateFinishedTrialError

        trial, state, values = self._ids[record.number], self._optuna_state(record), self.values(record)
        if record.state == "infeasible":
            self._note(record.number, "constraints", INFEASIBLE)
        for key, noted in known_at_the_end(record, self._probe_of_none()).items():
            self._patiently(partial(self._storage.set_trial_user_attr, trial, key, noted))

        def close() -> None:
            self._storage.set_trial_state_values(trial, state, values)

        def close_again() -> None:
            with contextlib.suppress(UpdateFinishedTrialError):
                close()

        self._patiently(close, close_again)

    def _probe_of_none(self) -> float | None:
        """The mean probe of the controls without a head that have ended."""
        probes = [
            probe
            for record in self._records.values()
            if record.control == "none" and record.state == "complete" and record.stage == "proxy"
            if (probe := probe_score(record.rungs[-1])) is not None
        ]
        return fmean(probes) if probes else None

    def _optuna_state(self, record: TrialRecord) -> TrialState:
        from optuna.trial import TrialState

        answer = self._answer(record)
        if answer.state == "complete" and answer.stage != self._valued:
            return TrialState.PRUNED
        return {
            "running": TrialState.RUNNING,
            "complete": TrialState.COMPLETE,
            "stopped": TrialState.PRUNED,
            "infeasible": TrialState.FAIL,
            "failed": TrialState.FAIL,
        }[answer.state]


def make_study(storage: BaseStorage, name: str, *, labels: bool, facts: Mapping[str, Any]) -> None:
    """Make the study. `facts` about the run are kept with it. Raises `RunError` where the name is taken, or the storage fails."""
    import optuna

    metrics = METRICS if labels else METRICS[:1]
    with in_one_line("the study cannot be written"):
        try:
            study = optuna.create_study(
                storage=storage, study_name=name, directions=["maximize"] * len(metrics)
            )
        except optuna.exceptions.DuplicatedStudyError:
            raise RunError(
                f"search.storage: it has a study '{name}' already; expected another name"
            ) from None
        study.set_user_attr("headsearch", dict(facts))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(metrics))


def _foreign(number: int) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    trial = create_trial(state=TrialState.FAIL)
    trial.number = number
    return trial


def finite_scores(scores: RungScores) -> bool:
    """Whether the loss and everything known of the objectives is a number."""
    known = (scores.loss, scores.discrepancy, scores.knn, scores.linear)
    return all(math.isfinite(value) for value in known if value is not None)


def _said(decision: Decision | None) -> dict[str, Any]:
    """What the stopping policy said at a rung, as it is kept beside the rung's scores."""
    return {} if decision is None else {"objectives": list(decision.objectives), "go_on": decision.go_on}


def _decisions(number: int, noted: Mapping[str, Any]) -> dict[int, Decision]:
    """The inverse of `_said` for all rungs of a trial, by epoch."""
    return {
        rung["epoch"]: Decision(number, rung["epoch"], tuple(rung["objectives"]), rung["go_on"])
        for rung in noted.get("rungs", [])
        if "go_on" in rung
    }
