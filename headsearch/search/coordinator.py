"""The coordinator: hands out what the stages of a search ask for, and writes down what comes back. The only writer.

What comes next follows from the records alone (`stages.py`), so that a search that was killed goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from headsearch.errors import RunError
from headsearch.experiment import Experiment
from headsearch.files import write_atomically, write_bytes_atomically
from headsearch.heads import Candidate
from headsearch.results.ranking import probe_score
from headsearch.results.records import TrialRecord, training_of
from headsearch.search.executors import Failed, Outcome, Stopped
from headsearch.search.funnel import Promotions, Screening
from headsearch.search.late import Anchors, EqualTime
from headsearch.search.ledger import Ledger, finite_scores
from headsearch.search.materials import Materials
from headsearch.search.observer import Observer, SearchStatus, StageName
from headsearch.search.proposer import Proposer
from headsearch.search.seeds import trial_seed
from headsearch.search.stages import Board, Controls, Proposals, Replicates, SearchStage, Trunk, Wanted
from headsearch.search.stopping import Decision, Objectives, SuccessiveHalving
from headsearch.training.trial import (
    BEGINNING,
    CHECKPOINTS,
    TRUNK,
    RungScores,
    Training,
    TrainingResult,
    Trial,
    TrialResult,
)

FAILURES_BEFORE_GIVING_UP = 3
"""Trials that fail unexpectedly before any has succeeded, after which more of them would teach nothing."""


class Coordinator:
    """One search, from the records so far to its end. Implements `TrainingSource`."""

    def __init__(
        self,
        experiment: Experiment,
        materials: Materials,
        screened: Sequence[Candidate],
        ledger: Ledger,
        proposer: Proposer,
        folder: Callable[[int], Path],
        observer: Observer,
    ) -> None:
        """`screened` heads are screened where the strategy is to; `folder` gives a training's folder by its number. Trials that the ledger has
        as running are taken up first."""
        self._labels = experiment.probes
        self._rungs = experiment.proxy.rungs
        self._keep_checkpoints = experiment.proxy.keep_checkpoints
        self._ledger = ledger
        self._folder = folder
        self._observer = observer
        self._board = Board(ledger, observer.note, experiment.seed)
        self._trunk = Trunk(self._board, experiment.search.replicates if experiment.proxy.trunk_epochs else 0)
        self._stages = [self._trunk, *_stages(experiment, materials, screened, self._board, proposer)]
        stopping = experiment.search.stopping
        self._stopping = (
            SuccessiveHalving(self._rungs, stopping.reduction) if stopping.kind == "asha" else None
        )
        self._interrupted: deque[Training] = deque()
        """Trainings that a former session left running, to be taken up first."""
        self._settled: set[tuple[str, int]] = set()
        """Trainings that have ended."""
        self._latest: StageName | None = None
        """The stage that was begun last; None as long as only what was at work before is trained."""
        self._told: set[str] = set()
        """Notes of trainings that have been passed on."""
        self._succeeded = False
        self._failed_in_a_row = 0
        self._seconds: list[float] = []
        """Of trials that ran their full budget."""
        self._shares: list[float] = []
        """Of the full budget, that trials used until they finished or were stopped."""
        self._load()

    @property
    def done(self) -> bool:
        """Whether nothing runs and nothing is left to start. Valid after `next_training` has returned None."""
        return not self._board.running and all(stage.finished for stage in self._stages)

    def next_training(self) -> Training | None:
        """The next training. Heads that an earlier trial answers are written down on the way."""
        while self._interrupted:
            training = self._interrupted.popleft()
            if all(said.go_on for said in self._ledger.decisions(training.number).values()):
                return self._hand_out(training)
            # Killed between the decision to stop it and its end.
            self.settle(training, Stopped())
        for stage in self._stages:
            wanted = stage.wanted()
            while wanted is not None and self._is_answered(wanted, stage):
                wanted = stage.wanted()
            begun = None if wanted is None else self._begin(wanted, stage)
            if begun is not None or stage.holds:
                return begun
        return None

    def _is_answered(self, wanted: Wanted, stage: SearchStage) -> bool:
        """Whether an earlier trial answers what a stage wants; that is then written down."""
        head = wanted.candidates[0]
        twin = self._board.first.get(head.head_id)
        if twin is None or wanted.stage != "proxy" or wanted.replicate > 0:
            return False
        control = wanted.controls.get(head.head_id)
        record = self._ledger.duplicate(head, twin, control=control, draw=wanted.draw, taken=wanted.taken)
        stage.began(record)
        self._observer.training_ended([record], self.status())
        return True

    def _begin(self, wanted: Wanted, stage: SearchStage) -> Training | None:
        """Write down what a stage wants, or else the trunk that it lacks, and hand it out; None where its trunk is at work."""
        if self._trunk.serves(wanted.stage) and not self._trunk.is_trained(wanted.replicate):
            trunk = self._trunk.of(wanted.replicate)
            return None if trunk is None else self._begin(trunk, self._trunk)
        records = []
        for head in wanted.candidates:
            record = wanted.written.get(head.head_id)
            if record is None:
                seed = wanted.seed
                if seed is None:
                    seed = trial_seed(self._board.seed, head.head_id, wanted.replicate, wanted.stage)
                record = self._ledger.start(
                    head,
                    seed=seed,
                    replicate=wanted.replicate,
                    control=wanted.controls.get(head.head_id),
                    draw=wanted.draw,
                    stage=wanted.stage,
                    taken=wanted.taken,
                    epochs=wanted.epochs,
                )
                stage.began(record)
            records.append(record)
        self._latest = stage.name
        return self._hand_out(self._take_up(records))

    def _take_up(self, records: Sequence[TrialRecord]) -> Training:
        """The training whose trials are written down in `records`, by place; it counts as running from now on."""
        first = records[0]
        training = Training(
            trials=tuple(Trial(record.number, record.candidate, record.control) for record in records),
            seed=first.seed,
            workdir=self._folder(first.number),
            replicate=first.replicate,
            stage=first.stage,
            epochs=first.epochs,
        )
        self._board.running[training.number] = training
        if training.stage == "proxy":
            self._board.covered.add((first.head_id, first.replicate))
        return training

    def _hand_out(self, training: Training) -> Training:
        """Make the folder of a training and tell that it begins. Raises `RunError` where the folder cannot be made."""
        try:
            training.workdir.mkdir(parents=True, exist_ok=True)
            if self._trunk.serves(training.stage):
                trunk = self._folder(self._trunk.records[training.replicate].number) / TRUNK
                write_bytes_atomically(training.workdir / BEGINNING, trunk.read_bytes())
        except OSError as error:
            raise RunError(
                f"{error.filename or training.workdir}: {error.strerror}; fix that and continue with --resume"
            ) from None
        self._observer.training_started(training, self.status())
        return training

    def report(self, training: Training, place: int, scores: RungScores) -> bool:
        """Record a rung, and whether the training goes on to the next. Both are written before the answer is given."""
        decision = self._decide(training, scores)
        # The last rung of a proxy comes with the result.
        if training.stage == "screen" or (training.stage == "proxy" and scores.epoch < self._rungs[-1]):
            self._ledger.report(training.trials[place].number, scores, decision)
        self._observer.rung_reached(training, place, scores)
        return decision is None or decision.go_on

    def progress(
        self, training: Training, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        """Pass on to the observer."""
        self._observer.training_progress(training, epoch, epochs, loss, images_per_second)

    def waits(self, training: Training, why: str) -> None:
        """Pass on to the observer, once."""
        if why:
            self.note(f"trial {training.number} {why}")

    def note(self, text: str) -> None:
        """Pass on to the observer."""
        self._observer.note(text)

    def settle(self, training: Training, outcome: Outcome) -> None:
        """Record how a training ended, trial by trial, and tell the stages.

        Raises:
            RunError: the search cannot go on. What is finished is safe; a training that was halted resumes.
        """
        seconds = speed = None
        if isinstance(outcome, TrainingResult):
            for line in outcome.left_out:
                self.note(f"data: while trial {training.number} was trained: {line}")
            for line in outcome.notes:
                if line not in self._told:
                    self._told.add(line)
                    self.note(f"trial {training.number}: {line}")
            results = [
                self._checked(training, trial.number, result)
                for trial, result in zip(training.trials, outcome.trials, strict=True)
            ]
            seconds, speed = outcome.seconds / len(results), outcome.images_per_second
        else:
            results = [self._without_result(training, outcome)]
        for trial, result in zip(training.trials, results, strict=True):
            # A session that was killed while it wrote this may have written part of it.
            if self._ledger.record(trial.number).state == "running":
                self._ledger.end(trial.number, result, seconds=seconds, images_per_second=speed)
        del self._board.running[training.number]
        records = [self._ledger.record(trial.number) for trial in training.trials]
        for record in records:
            self._absorb(record)
            if record.state == "infeasible" and self._stopping is not None:
                self._stopping.withdraw(record.number)
            for stage in self._stages:
                stage.ended(record)
        self._discard_checkpoint(training.number)
        self._observer.training_ended(records, self.status())
        self._give_up_if_nothing_works(records)

    def status(self) -> SearchStatus:
        """How far the search is."""
        running, settled = len(self._board.running), len(self._settled)
        stage = self._latest if running else None
        if stage is None:
            stage = next((stage for stage in self._stages if not stage.finished), self._stages[-1]).name
        expected = max(settled + running, sum(stage.expected for stage in self._stages))
        return SearchStatus(stage, settled, expected, self._seconds_per_trial(), running)

    def _seconds_per_trial(self) -> float | None:
        if not self._seconds:
            return None
        return sum(self._seconds) / len(self._seconds) * sum(self._shares) / len(self._shares)

    def _decide(self, training: Training, scores: RungScores) -> Decision | None:
        """What the policy says; None where it is not asked: a screen drops heads by itself, and controls and replicates are wanted in full,
        and compared with nobody."""
        trial, objectives = training.trials[0], self._objectives(scores)
        searched = training.stage == "proxy" and training.replicate == 0 and trial.control is None
        if self._stopping is None or not searched or scores.epoch >= self._rungs[-1] or objectives is None:
            return None
        go_on = self._stopping.decide(trial.number, scores.epoch, objectives)
        return Decision(trial.number, scores.epoch, objectives, go_on)

    def _objectives(self, scores: RungScores) -> Objectives | None:
        """What trials are compared by before their full budget; None where that is not measured or not a number."""
        # An empty head has no discrepancy, being the identity.
        known = (scores.discrepancy or 0.0, *((probe_score(scores),) if self._labels else ()))
        objectives = tuple(value for value in known if value is not None and math.isfinite(value))
        return objectives if len(objectives) == len(known) else None

    def _without_result(self, training: Training, outcome: Stopped | Failed) -> TrialResult:
        """How the only trial of a training ended that was told to stop or gave no result."""
        rungs = self._ledger.record(training.number).rungs
        if isinstance(outcome, Stopped):
            assert self._stopping is not None, "nobody else stops a training"
            reason = f"not among the best 1/{self._stopping.reduction} so far at epoch {rungs[-1].epoch}"
            return TrialResult("stopped", rungs, reason=reason)
        if len(training.trials) > 1:
            self._keep_details(training, outcome)
            raise RunError(
                f"the screen of {len(training.trials)} heads (trial {training.number} and on) gave no result: {outcome.reason}; fix that, "
                f"or screen fewer heads at once (search.screen.batch), and continue with --resume"
            )
        if outcome.kind == "halt":
            raise RunError(
                f"stopped at trial {training.number}: {outcome.reason}; fix that and continue with --resume"
            )
        self._keep_details(training, outcome)
        return TrialResult(outcome.kind, rungs, reason=outcome.reason)

    def _checked(self, training: Training, number: int, result: TrialResult) -> TrialResult:
        """The result, unless it is worthless: an objective that is missing or not finite must not reach the study."""
        if result.state != "complete":
            return result
        reported = self._ledger.record(number).rungs
        if not all(finite_scores(scores) for scores in result.rungs):
            return TrialResult("infeasible", reported, reason="scores are not finite")
        probed = self._labels and training.stage in ("proxy", "equal-time", "anchor")
        if probed and probe_score(result.rungs[-1]) is None:
            reason = "the trial gave no probe, though the experiment has labels"
            return TrialResult("failed", reported, reason=reason)
        return result

    def _discard_checkpoint(self, number: int) -> None:
        """Remove what a training would have been resumed from. Only now: until its end was written down it could have been needed."""
        if not self._keep_checkpoints:
            for file in self._folder(number).glob(CHECKPOINTS):
                file.unlink(missing_ok=True)

    def _load(self) -> None:
        """Take over the records of former sessions, in the order in which they were made."""
        records = self._ledger.records
        unfinished = {training_of(record) for record in records if record.state == "running"}
        for record in records:
            if self._stopping is not None and record.state != "infeasible":
                self._stopping.remember(self._ledger.decisions(record.number).values())
            for stage in self._stages:
                stage.remember(record)
            if record.state == "running":
                # A screen is taken up by its stage, which knows of heads that were not written down.
                if record.stage != "screen":
                    self._interrupted.append(self._take_up([record]))
                continue
            if record.state != "duplicate" and training_of(record) not in unfinished:
                # A session that was killed may have left it.
                self._discard_checkpoint(record.number)
            if record.state == "failed" and self._ledger.draw(record.number) is None:
                # Whatever went wrong with a control or a replicate may have been mended since: it is run again.
                self._settled.add(training_of(record))
            else:
                self._absorb(record)

    def _absorb(self, record: TrialRecord) -> None:
        """Count a trial that has ended."""
        if record.state == "duplicate":
            return
        self._settled.add(training_of(record))
        if record.stage != "proxy":
            return
        self._board.covered.add((record.head_id, record.replicate))
        if record.replicate == 0:
            self._board.first[record.head_id] = record
        if record.state == "complete" and record.seconds is not None:
            self._seconds.append(record.seconds)
            self._shares.append(1.0)
        elif record.state == "stopped":
            self._shares.append(record.rungs[-1].epoch / self._rungs[-1])

    def _keep_details(self, training: Training, outcome: Failed) -> None:
        if not outcome.details:
            return
        try:
            write_atomically(training.workdir / "error.txt", outcome.details)
        except OSError as error:
            raise RunError(
                f"{training.workdir}: cannot be written: {error.strerror}; fix that and continue with --resume"
            ) from None

    def _give_up_if_nothing_works(self, records: Sequence[TrialRecord]) -> None:
        states = {record.state for record in records}
        self._succeeded = self._succeeded or not states <= {"failed", "infeasible"}
        self._failed_in_a_row += states == {"failed"}
        if self._failed_in_a_row >= FAILURES_BEFORE_GIVING_UP and not self._succeeded:
            raise RunError(
                f"the first {self._failed_in_a_row} trials failed, the last with: {records[-1].reason}; "
                f"see {self._folder(records[0].number) / 'error.txt'}"
            )


def _stages(
    experiment: Experiment,
    materials: Materials,
    screened: Sequence[Candidate],
    board: Board,
    proposer: Proposer,
) -> list[SearchStage]:
    """The stages of the experiment's strategy, in order."""
    search = experiment.search
    # In a funnel it is the finalists that have several seeds.
    seeds = search.replicates if search.strategy == "screen" else 1
    screening = Screening(board, screened, materials.anchors, batch=search.screen.batch, replicates=seeds)
    stages: list[SearchStage] = []
    if search.strategy == "screen":
        stages.append(screening)
    else:
        stages.append(Controls(board, materials.controls))
        if search.strategy == "funnel":
            best = Promotions(board, lambda: screening.standings, trials=search.trials, audit=search.audit)
            stages += [screening, best]
        else:
            stages.append(Proposals(board, proposer, search.trials))
        stages.append(Replicates(board, search, labels=experiment.probes))
    if search.equal_time:
        stages.append(EqualTime(board, search, stages, epochs=experiment.proxy.epochs))
    if search.anchors:
        stages.append(Anchors(board, search, stages))
    return stages
