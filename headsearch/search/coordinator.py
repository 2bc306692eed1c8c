"""The coordinator: decides what is trained next, hands it to an executor, and writes down what comes back. The only writer.

Three stages, each complete before the next begins: the controls; the searched heads; the replicates of the best heads and of the controls.
What comes next follows from the records alone, so that a search that was killed goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from headsearch.errors import RunError
from headsearch.heads.canonical import head_id
from headsearch.heads.config import HeadConfig
from headsearch.results.ranking import probe_score, rank
from headsearch.results.trials import State, TrialRecord
from headsearch.run_directory import write_atomically
from headsearch.search.executors import Failed, Job, Outcome, Stopped
from headsearch.search.ledger import Ledger, finite_scores
from headsearch.search.observer import Observer, SearchStatus, StageName
from headsearch.search.proposer import Proposal, Proposer
from headsearch.search.seeds import trial_seed
from headsearch.search.stopping import Decision, Objectives, SuccessiveHalving
from headsearch.trial import CHECKPOINTS, RungScores, TrialResult

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
    controls: Mapping[str, HeadConfig]
    """By name, canonical for the base; run in this order."""
    labels: bool
    """Whether trials have a probe."""
    rungs: tuple[int, ...]
    """Epochs at which trials report; the last is the full budget."""
    reduction: int | None
    """At every rung the best one of so many goes on; None: trials are never stopped."""
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
        self._proposer = proposer
        self._folder = folder
        self._observer = observer

        self._stopping = None if plan.reduction is None else SuccessiveHalving(plan.rungs, plan.reduction)
        self._running: dict[int, TrialRecord] = {}
        self._interrupted: deque[TrialRecord] = deque()
        self._positions: dict[int, int] = {}
        """Places of searched heads in the proposer's study, by trial number."""
        self._first: dict[str, TrialRecord] = {}
        """The settled first trial of every head, by its id."""
        self._covered: set[tuple[str, int]] = set()
        """(head id, replicate) that need not be run again."""
        self._controls: set[str] = set()
        self._heads = 0
        """Searched heads that were or are trained."""
        self._exhausted = False
        self._finalists: list[str] | None = None
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
        return not self._running and not self._interrupted and self._stage() == "replicates"

    def next_job(self) -> Job | None:
        """The next training. Duplicates are answered on the way."""
        while self._interrupted:
            record = self._interrupted.popleft()
            if all(said.go_on for said in self._ledger.decisions(record.number).values()):
                return self._hand_out(record)
            # Killed between the decision to stop it and its end.
            self._conclude(self._stopped(record.number))
        for name, config in self._plan.controls.items():
            if name not in self._controls and (job := self._next_control(name, config)) is not None:
                return job
        if self._heads < self._plan.trials and not self._exhausted and (job := self._next_head()) is not None:
            return job
        if self._stage() != "replicates" or (self._finalists is None and self._running):
            # The finalists are chosen when every head has been heard of.
            return None
        return next(self._replicates(), None)

    def report(self, job: Job, scores: RungScores) -> bool:
        """Record a rung, and whether the trial goes on to the next. Both are written before the answer is given."""
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

    def status(self) -> SearchStatus:
        """How far the search is."""
        plan = self._plan
        replicated = min(plan.finalists, plan.trials) + len(plan.controls) if plan.finalists else 0
        heads = self._heads if self._exhausted else max(plan.trials, self._heads)
        return SearchStatus(
            stage=self._stage(),
            settled=self._settled,
            expected=max(
                self._settled + len(self._running),
                len(plan.controls) + heads + replicated * (plan.replicates - 1),
            ),
            seconds_per_trial=self._seconds_per_trial(),
            at_work=len(self._running),
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
        del self._running[record.number]
        self._absorb(record)
        if record.state == "infeasible" and self._stopping is not None:
            self._stopping.withdraw(record.number)
        if record.number in self._positions:
            position = self._positions.pop(record.number)
            self._proposer.tell(position, self._ledger.values(record), stopped=self._ledger.stopped(record))
        self._discard_checkpoint(record)
        self._observer.trial_ended(record, self.status())

    def _discard_checkpoint(self, record: TrialRecord) -> None:
        """Remove what the trial would have been resumed from. Only now: until its end was written down it could have been needed."""
        if self._plan.keep_checkpoints or record.state == "duplicate":
            return
        for file in self._folder(record.number).glob(CHECKPOINTS):
            file.unlink(missing_ok=True)

    def _load(self) -> None:
        """Take over the records of former sessions, in the order in which they were made."""
        for record in self._ledger.records:
            draw = self._ledger.draw(record.number)
            running = record.state == "running"
            if self._stopping is not None and record.state != "infeasible":
                self._stopping.remember(self._ledger.decisions(record.number).values())
            if not running:
                # A session that was killed may have left it.
                self._discard_checkpoint(record)
            if draw is not None:
                position = self._proposer.remember(
                    draw,
                    self._ledger.values(record),
                    running=running,
                    stopped=self._ledger.stopped(record),
                    duplicate=record.state == "duplicate",
                )
                if running:
                    self._positions[record.number] = position
            if running:
                self._interrupted.append(record)
                self._begin(record)
                self._running[record.number] = record
            elif record.state == "failed" and draw is None:
                # Whatever went wrong with a control or a replicate may have been mended since: it is run again.
                self._settled += 1
            else:
                self._begin(record)
                self._absorb(record)

    def _begin(self, record: TrialRecord) -> None:
        """Count a trial that exists."""
        if record.control is not None:
            self._controls.add(record.control)
        elif record.replicate == 0 and record.state != "duplicate":
            self._heads += 1
        self._covered.add((record.head_id, record.replicate))

    def _absorb(self, record: TrialRecord) -> None:
        """Count a trial that has ended."""
        if record.state == "duplicate":
            return
        self._settled += 1
        if record.replicate == 0:
            self._first[record.head_id] = record
        if record.state == "complete" and record.seconds is not None:
            self._seconds.append(record.seconds)
            self._shares.append(1.0)
        elif record.state == "stopped":
            self._shares.append(record.rungs[-1].epoch / self._plan.rungs[-1])

    def _stage(self) -> StageName:
        if any(name not in self._controls for name in self._plan.controls):
            return "controls"
        return "heads" if self._heads < self._plan.trials and not self._exhausted else "replicates"

    def _next_control(self, name: str, config: HeadConfig) -> Job | None:
        identity = head_id(config)
        twin = self._first.get(identity)
        if twin is not None:
            record = self._ledger.duplicate(config, twin, control=name)
            self._begin(record)
            self._observer.trial_ended(record, self.status())
            return None
        if any(record.head_id == identity for record in self._running.values()):
            return None
        return self._start(config, identity, replicate=0, control=name)

    def _next_head(self) -> Job | None:
        while True:
            running = {record.head_id for record in self._running.values() if record.replicate == 0}
            proposal = self._proposer.propose(self._first, running)
            if proposal is None:
                if not self._running:
                    self._exhausted = True
                    self._observer.note(
                        f"every head of the space has been tried; {self._heads} trained, {self._plan.trials} were asked for"
                    )
                return None
            twin = self._first.get(proposal.head_id)
            if twin is None:
                return self._start(proposal.config, proposal.head_id, replicate=0, proposal=proposal)
            record = self._ledger.duplicate(proposal.config, twin, draw=proposal.draw)
            self._begin(record)
            self._proposer.tell(
                proposal.position, self._ledger.values(record), stopped=twin.state == "stopped"
            )
            self._observer.trial_ended(record, self.status())

    def _replicates(self) -> Iterator[Job]:
        """The trainings that are missing until every finalist and control has its replicates."""
        if self._plan.finalists == 0:
            return
        if self._finalists is None:
            self._finalists = self._choose_finalists()
        for replicate in range(1, self._plan.replicates):
            for identity in self._finalists:
                if (identity, replicate) not in self._covered:
                    first = self._first[identity]
                    yield self._start(first.config, identity, replicate=replicate, control=first.control)

    def _choose_finalists(self) -> list[str]:
        """Ids of the controls and of the best heads. Decided by first trials alone, so that replicates cannot change the choice."""
        firsts = [record for record in self._ledger.records if record.replicate == 0]
        ranked = [row for row in rank(firsts, by="pareto", labels=self._plan.labels) if row.rank is not None]
        best = [row.head_id for row in ranked[: self._plan.finalists]]
        controls = [head_id(config) for config in self._plan.controls.values()]
        complete = {identity for identity, record in self._first.items() if record.state == "complete"}
        return [identity for identity in dict.fromkeys((*controls, *best)) if identity in complete]

    def _start(
        self,
        config: HeadConfig,
        identity: str,
        *,
        replicate: int,
        control: str | None = None,
        proposal: Proposal | None = None,
    ) -> Job:
        seed = trial_seed(self._plan.seed, identity, replicate)
        draw = proposal.draw if proposal else None
        record = self._ledger.start(
            config, identity, seed=seed, replicate=replicate, control=control, draw=draw
        )
        if proposal is not None:
            self._positions[record.number] = proposal.position
        self._begin(record)
        self._running[record.number] = record
        return self._hand_out(record)

    def _hand_out(self, record: TrialRecord) -> Job:
        folder = self._folder(record.number)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{folder}: cannot be made: {error.strerror}; mend that and go on with --resume"
            ) from None
        job = Job(
            number=record.number,
            config=record.config,
            head_id=record.head_id,
            seed=record.seed,
            replicate=record.replicate,
            control=record.control,
            workdir=folder,
        )
        self._observer.trial_started(job, self.status())
        return job

    def _checked(self, result: TrialResult) -> Outcome:
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
                f"see {self._folder(record.number) / 'error.txt'}"
            )
