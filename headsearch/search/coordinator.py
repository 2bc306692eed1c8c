"""The coordinator: hands out what the stages of a search ask for, and writes down what comes back. The only writer.

What comes next follows from the records alone (`stages.py`), so that a search that was killed goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headsearch.errors import RunError
from headsearch.experiment import Strategy
from headsearch.files import write_atomically
from headsearch.heads import Candidate
from headsearch.results.ranking import probe_score
from headsearch.results.records import State, TrialRecord
from headsearch.search.board import Board
from headsearch.search.executors import Failed, Job, Outcome, Stopped
from headsearch.search.funnel import Promotions, Screening
from headsearch.search.ledger import Ledger, finite_scores
from headsearch.search.observer import Observer, SearchStatus
from headsearch.search.proposer import Proposer
from headsearch.search.stages import Controls, Proposals, Replicates, Stage
from headsearch.search.stopping import Decision, Objectives, SuccessiveHalving
from headsearch.training.trial import CHECKPOINTS, MemberScores, RungScores, ScreenResult, TrialResult

FAILURES_BEFORE_GIVING_UP = 3
"""Trials that fail unexpectedly before any has succeeded, after which more of them would teach nothing."""


@dataclass(frozen=True)
class SearchPlan:
    """What a search does, apart from which heads it tries."""

    seed: int
    trials: int
    """Heads to train."""
    finalists: int
    replicates: int
    controls: Mapping[str, Candidate]
    """By name; run in this order."""
    labels: bool
    """Whether trials have a probe."""
    rungs: tuple[int, ...]
    """Epochs at which trials report; the last is the full budget."""
    reduction: int | None
    """At every rung the best one of so many goes on; None: trials are never stopped."""
    strategy: Strategy = "proxies"
    screened: Sequence[Candidate] = ()
    """Heads to screen, for `screen` and `funnel`."""
    anchors: Mapping[str, Candidate] = field(default_factory=dict)
    """Heads that tie several joint runs together, by the name of their control."""
    batch: int = 24
    """Most heads in a joint run."""
    audit: int = 0
    """Of the funnel's trials, heads that are taken by chance."""
    keep_checkpoints: bool = False
    """Whether a trial's checkpoint stays when the trial has ended."""


class Coordinator:
    """One search, from the records so far to its end. Implements `JobSource`."""

    def __init__(
        self,
        plan: SearchPlan,
        ledger: Ledger,
        proposer: Proposer,
        folder: Callable[[int], Path],
        observer: Observer,
    ) -> None:
        """`folder` gives a trial's folder by its number. Trials that the ledger has as running are taken up first."""
        self._plan = plan
        self._ledger = ledger
        self._observer = observer
        self._board = board = Board(ledger, folder, observer, self.status, seed=plan.seed)
        self._stages = tuple(_stages(plan, board, proposer))
        self._stopping = None if plan.reduction is None else SuccessiveHalving(plan.rungs, plan.reduction)
        self._settled = 0
        self._succeeded = False
        self._failed_in_a_row = 0
        self._seconds: list[float] = []
        """Of trials that ran their full budget."""
        self._shares: list[float] = []
        """Of the full budget, that trials used until they finished or were stopped."""
        self._load()

    @property
    def done(self) -> bool:
        """Whether nothing runs and nothing is left to start. Valid after `next_job` has returned None."""
        return (
            self._board.at_rest
            and not self._board.interrupted
            and all(stage.finished for stage in self._stages)
        )

    def next_job(self) -> Job | None:
        """The next training. Duplicates are answered on the way."""
        while self._board.interrupted:
            record = self._board.interrupted.popleft()
            if all(said.go_on for said in self._ledger.decisions(record.number).values()):
                return self._board.hand_out(record)
            # Killed between the decision to stop it and its end.
            self._conclude(self._stopped(record.number))
        for stage in self._stages:
            job = stage.next_job()
            if job is not None or stage.holds:
                return job
        return None

    def report(self, job: Job, scores: RungScores) -> bool:
        """Record a rung, and whether the trial goes on to the next. Both are written before the answer is given.

        A joint run drops heads by itself: its rungs are recorded, no more.
        """
        if isinstance(scores, MemberScores):
            self._ledger.report(self._board.joint(job.seed)[scores.member], scores.alone())
            return True
        decision = None
        if scores.epoch < self._plan.rungs[-1]:
            decision = self._decide(job, scores)
            # The last rung comes with the result.
            self._ledger.report(job.number, scores, decision)
        self._observer.rung_reached(job, scores)
        return decision is None or decision.go_on

    def progress(self, job: Job, epoch: float, epochs: int, loss: float, images_per_second: float) -> None:
        """Pass on to the observer."""
        self._observer.trial_progress(job, epoch, epochs, loss, images_per_second)

    def note(self, text: str) -> None:
        """Pass on to the observer."""
        self._observer.note(text)

    def settle(self, job: Job, outcome: Outcome) -> None:
        """Record how a job ended, and tell the proposer.

        Raises:
            RunError: the search cannot go on. What is finished is safe; a trial that was halted resumes.
        """
        if isinstance(outcome, TrialResult | ScreenResult):
            for line in outcome.left_out:
                self.note(f"data: while trial {job.number} was trained: {line}")
        if job.stage == "screen":
            self._settle_joint(job, outcome)
            return
        assert not isinstance(outcome, ScreenResult), "only a joint run gives one"
        if isinstance(outcome, TrialResult):
            outcome = self._checked(outcome)
        if isinstance(outcome, Failed) and outcome.kind == "halt":
            raise RunError(
                f"stopped at trial {job.number}: {outcome.reason}; mend that and go on with --resume"
            )
        if isinstance(outcome, TrialResult):
            record = self._ledger.complete(job.number, outcome)
        elif isinstance(outcome, Stopped):
            record = self._stopped(job.number)
        else:
            self._keep_details(job, outcome)
            kind: State = "infeasible" if outcome.kind == "infeasible" else "failed"
            record = self._ledger.end(job.number, kind, outcome.reason, None)
        self._conclude(record)
        self._give_up_if_nothing_works(record)

    def _settle_joint(self, job: Job, outcome: Outcome) -> None:
        numbers = self._board.joint(job.seed)
        if not isinstance(outcome, ScreenResult):
            reason = outcome.reason if isinstance(outcome, Failed) else "it was stopped"
            if isinstance(outcome, Failed):
                self._keep_details(job, outcome)
            raise RunError(
                f"the screen of {len(numbers)} heads (trial {job.number} and on) gave no result: {reason}; mend that, or screen fewer heads "
                f"at once (search.screen.batch), and go on with --resume"
            )
        self._board.end_joint(job.seed)
        for number, head in zip(numbers, outcome.heads, strict=True):
            # A session that was killed while it wrote this may have written part of it.
            if self._ledger.record(number).state == "running":
                record = self._ledger.screened(number, head, outcome.seconds / len(numbers))
                for stage in self._stages:
                    stage.ended(record)
        self._settled += 1
        self._succeeded = True
        self._discard_checkpoint(self._ledger.record(numbers[0]))
        self._observer.screen_ended([self._ledger.record(number) for number in numbers], self.status())

    def status(self) -> SearchStatus:
        """How far the search is."""
        stage = next((stage for stage in self._stages if not stage.finished), self._stages[-1])
        running = self._board.trainings
        return SearchStatus(
            stage=stage.name,
            settled=self._settled,
            expected=max(self._settled + running, sum(stage.expected for stage in self._stages)),
            seconds_per_trial=self._seconds_per_trial(),
            at_work=running,
        )

    def _seconds_per_trial(self) -> float | None:
        if not self._seconds:
            return None
        return sum(self._seconds) / len(self._seconds) * sum(self._shares) / len(self._shares)

    def _decide(self, job: Job, scores: RungScores) -> Decision | None:
        """What the policy says; None where it is not asked: controls and replicates are wanted in full, and compared with nobody."""
        objectives = self._objectives(scores)
        if self._stopping is None or job.control is not None or job.replicate > 0 or objectives is None:
            return None
        go_on = self._stopping.decide(job.number, scores.epoch, objectives)
        return Decision(job.number, scores.epoch, objectives, go_on)

    def _objectives(self, scores: RungScores) -> Objectives | None:
        """What trials are compared by before their full budget; None where that is not measured or not a number."""
        # An empty head has no discrepancy, being the identity.
        known = (scores.discrepancy or 0.0, *((probe_score(scores),) if self._plan.labels else ()))
        objectives = tuple(value for value in known if value is not None and math.isfinite(value))
        return objectives if len(objectives) == len(known) else None

    def _stopped(self, number: int) -> TrialRecord:
        """Record that a trial was told to stop."""
        epoch = self._ledger.record(number).rungs[-1].epoch
        reason = f"not among the best 1/{self._plan.reduction} so far at epoch {epoch}"
        return self._ledger.end(number, "stopped", reason, None)

    def _conclude(self, record: TrialRecord) -> None:
        """All that follows from the end of a trial, once it is written down."""
        del self._board.running[record.number]
        self._absorb(record)
        if record.state == "infeasible" and self._stopping is not None:
            self._stopping.withdraw(record.number)
        for stage in self._stages:
            stage.ended(record)
        self._discard_checkpoint(record)
        self._observer.trial_ended(record, self.status())

    def _discard_checkpoint(self, record: TrialRecord) -> None:
        """Remove what the trial would have been resumed from. Only now: until its end was written down it could have been needed."""
        if self._plan.keep_checkpoints or record.state == "duplicate":
            return
        for file in self._board.folder(record.number).glob(CHECKPOINTS):
            file.unlink(missing_ok=True)

    def _load(self) -> None:
        """Take over the records of former sessions, in the order in which they were made."""
        board = self._board
        screened: set[int] = set()
        for record in self._ledger.records:
            if self._stopping is not None and record.state != "infeasible":
                self._stopping.remember(self._ledger.decisions(record.number).values())
            for stage in self._stages:
                stage.remember(record)
            if record.stage == "screen":
                self._settled += record.state != "running" and record.seed not in screened
                screened.add(record.seed)
                continue
            if record.state == "running":
                board.interrupted.append(record)
                board.begin(record)
                board.running[record.number] = record
                continue
            # A session that was killed may have left it.
            self._discard_checkpoint(record)
            if record.state == "failed" and self._ledger.draw(record.number) is None:
                # Whatever went wrong with a control or a replicate may have been mended since: it is run again.
                self._settled += 1
            else:
                board.begin(record)
                self._absorb(record)

    def _absorb(self, record: TrialRecord) -> None:
        """Count a trial that has ended."""
        if record.state == "duplicate":
            return
        self._settled += 1
        if record.replicate == 0:
            self._board.first[record.head_id] = record
        if record.state == "complete" and record.seconds is not None:
            self._seconds.append(record.seconds)
            self._shares.append(1.0)
        elif record.state == "stopped":
            self._shares.append(record.rungs[-1].epoch / self._plan.rungs[-1])

    def _checked(self, result: TrialResult) -> TrialResult | Failed:
        """The result, unless it is worthless: an objective that is missing or not finite must not reach the study."""
        final = result.final
        if not all(finite_scores(scores) for scores in result.rungs):
            return Failed("scores are not finite", "infeasible")
        if self._plan.labels and probe_score(final) is None:
            return Failed("the trial gave no probe, though the experiment has labels", "failed")
        return result

    def _keep_details(self, job: Job, outcome: Failed) -> None:
        if not outcome.details:
            return
        try:
            write_atomically(job.workdir / "error.txt", outcome.details)
        except OSError as error:
            raise RunError(
                f"{job.workdir}: cannot be written: {error.strerror}; mend that and go on with --resume"
            ) from None

    def _give_up_if_nothing_works(self, record: TrialRecord) -> None:
        if record.state == "failed" and not self._succeeded:
            self._failed_in_a_row += 1
        elif record.state != "infeasible":
            self._succeeded = True
        if self._failed_in_a_row >= FAILURES_BEFORE_GIVING_UP and not self._succeeded:
            raise RunError(
                f"the first {self._failed_in_a_row} trials failed, the last with: {record.reason}; "
                f"see {self._board.folder(record.number) / 'error.txt'}"
            )


def _stages(plan: SearchPlan, board: Board, proposer: Proposer) -> Iterator[Stage]:
    """The stages of the plan's strategy, in order."""
    if plan.strategy == "screen":
        yield Screening(board, plan.screened, plan.anchors, batch=plan.batch, replicates=plan.replicates)
        return
    yield Controls(board, plan.controls)
    if plan.strategy == "funnel":
        screening = Screening(board, plan.screened, plan.anchors, batch=plan.batch)
        yield screening
        yield Promotions(board, lambda: screening.standings, trials=plan.trials, audit=plan.audit)
    else:
        yield Proposals(board, proposer, plan.trials)
    controls = list(plan.controls.values())
    yield Replicates(
        board, controls, finalists=plan.finalists, replicates=plan.replicates, labels=plan.labels
    )
