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

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any

from headsearch.heads import Candidate
from headsearch.results.ranking import probe_score
from headsearch.results.records import Taken, TrialRecord, finite
from headsearch.runs.attributes import attributes, decode, for_people, identity, known_at_the_end, outcome
from headsearch.runs.failures import in_one_line
from headsearch.search.lease import Lease
from headsearch.search.patience import Patience
from headsearch.search.proposer import Draw
from headsearch.search.stopping import Decision
from headsearch.search.study_writer import StudyWriter, foreign_trial, make_study
from headsearch.training.trial import RungScores, TrialResult, TrialStage

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

INFEASIBLE = [1.0]
"""Optuna's constraints of an infeasible trial: one above 0 is violated."""


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
        self._labels = labels
        self._valued = valued
        self._records: dict[int, TrialRecord] = {}
        self._draws: dict[int, Draw] = {}
        self._decisions: dict[int, dict[int, Decision]] = {}
        self._ids: dict[int, int] = {}
        self._none: set[int] = set()
        """Numbers of the proxies without a head."""
        self._next_number = 0
        with in_one_line("the study cannot be read"):
            study = storage.get_study_id_from_name(name)
            trials = storage.get_all_trials(study, deepcopy=False)
        self._writer = StudyWriter(storage, study, patience or Patience(), lease)
        for trial in trials:
            self._next_number = trial.number + 1
            noted = attributes(trial)
            record = decode(trial.number, noted)
            if record is None:
                continue
            self._take(record, trial._trial_id)
            self._decisions[trial.number] = _decisions(trial.number, noted)
            if trial.params or "sampler" in noted:
                self._draws[trial.number] = Draw(trial.params, trial.distributions, noted.get("sampler", {}))
            if record.state != "running" and not trial.state.is_finished():
                # Killed between the writes that end a trial: the first says it all.
                self._end(record)

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
        epochs: int | None = None,
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
            epochs=epochs,
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
        self._writer.note(self._ids[number], "rungs", self._rungs(record))

    def end(
        self,
        number: int,
        result: TrialResult,
        *,
        seconds: float | None = None,
        images_per_second: float | None = None,
    ) -> TrialRecord:
        """Record how a trial ended, and how long it took: its share of the training's wall time."""
        record = replace(
            self._records[number],
            state=result.state,
            rungs=result.rungs,
            cost=result.cost,
            seconds=seconds,
            images_per_second=images_per_second,
            reason=result.reason,
        )
        self._end(record)
        self._records[number] = record
        return record

    def confirm(self) -> None:
        """Check that the study is still there and ours. Raises `StudyLost`."""
        self._writer.confirm()

    def copy_to(self, storage: BaseStorage, name: str, facts: Mapping[str, Any]) -> None:
        """Write everything that is known, anew, into an empty storage. Raises `RunError`."""
        make_study(storage, name, labels=self._labels, facts=facts)
        with in_one_line("the study cannot be written"):
            study = storage.get_study_id_from_name(name)
            for number in range(self._next_number):
                # Somebody else's trial is not known; its number is kept.
                known = self._records.get(number)
                trial = self._frozen(known, self._draws.get(number)) if known else foreign_trial(number)
                storage.create_new_trial(study, template_trial=trial)

    def _create(self, record: TrialRecord, draw: Draw | None) -> None:
        self._take(record, self._writer.create(self._frozen(record, draw)))
        if draw is not None:
            self._draws[record.number] = draw
        self._next_number += 1

    def _take(self, record: TrialRecord, trial: int) -> None:
        """Know a trial, which is `trial` to the storage."""
        self._records[record.number] = record
        self._ids[record.number] = trial
        if record.control == "none" and record.stage == "proxy":
            self._none.add(record.number)

    def _frozen(self, record: TrialRecord, draw: Draw | None) -> FrozenTrial:
        """A trial as Optuna has it."""
        from optuna.trial import FrozenTrial

        state, now = self._optuna_state(record), datetime.now()
        noted = identity(record)
        if draw and draw.sampler_state:
            noted["sampler"] = dict(draw.sampler_state)
        if record.duplicate_of is None:
            # Also where there are none yet: to change an attribute costs less than to add it.
            noted["rungs"] = self._rungs(record)
        if record.state != "running":
            noted |= _end_of(record)
        draw = draw or Draw()
        return FrozenTrial(
            number=record.number,
            state=state,
            value=None,
            values=self.values(record),
            datetime_start=now,
            datetime_complete=now if state.is_finished() else None,
            params=dict(draw.params),
            distributions=dict(draw.distributions),
            user_attrs=for_people(record) | known_at_the_end(record, self._probe_of_none()),
            system_attrs=noted,
            intermediate_values={},
            trial_id=-1,
        )

    def _rungs(self, record: TrialRecord) -> list[dict[str, Any]]:
        decided = self._decisions.get(record.number, {})
        return [finite(rung.to_dict()) | _said(decided.get(rung.epoch)) for rung in record.rungs]

    def _end(self, record: TrialRecord) -> None:
        """Write the end of a trial."""
        told, state = known_at_the_end(record, self._probe_of_none()), self._optuna_state(record)
        self._writer.end(self._ids[record.number], _end_of(record), told, state, self.values(record))

    def _probe_of_none(self) -> float | None:
        """The mean probe of the controls without a head that have ended."""
        probes = [
            probe
            for record in map(self.record, sorted(self._none))
            if record.state == "complete" and (probe := probe_score(record.rungs[-1])) is not None
        ]
        return fmean(probes) if probes else None

    def _optuna_state(self, record: TrialRecord) -> TrialState:
        from optuna.trial import TrialState

        answer = self._answer(record)
        if answer.state == "complete" and answer.stage != self._valued:
            return TrialState.PRUNED
        names = {"running": "RUNNING", "complete": "COMPLETE", "stopped": "PRUNED"}
        return TrialState[names.get(answer.state, "FAIL")]


def finite_scores(scores: RungScores) -> bool:
    """Whether the loss and everything known of the objectives is a number."""
    known = (scores.loss, scores.discrepancy, scores.knn, scores.linear)
    return all(math.isfinite(value) for value in known if value is not None)


def _end_of(record: TrialRecord) -> dict[str, Any]:
    """What is kept of how a trial ended."""
    infeasible = {"constraints": INFEASIBLE} if record.state == "infeasible" else {}
    return {"outcome": outcome(record), **infeasible}


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
