"""A run as it is at one moment, with everything that follows from it: the one model that terminal, pages, report, audit and export look at.

It is read from a run directory, finished, running, half-written or damaged. What cannot be read is named in `Run.problems`, and the rest is
there. Nothing is ever written.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from headsearch.errors import RunError, did_you_mean
from headsearch.experiment import Experiment
from headsearch.experiment.sections import PRETRAINING_EPOCHS
from headsearch.results.allocation import further_seeds
from headsearch.results.departures import Passage, departures, passage
from headsearch.results.ranking import By, heads_tried, rank
from headsearch.results.records import Taken, TrialRecord, training_of
from headsearch.results.row import RankRow
from headsearch.results.spending import Spending, part_of, spending
from headsearch.results.standings import standings
from headsearch.results.verdict import SCREEN_VERDICT, verdict
from headsearch.runs.directory import RunDirectory, RunFacts
from headsearch.runs.epochs import EpochPoint, last_epoch, read_epochs
from headsearch.runs.study import NoStudy, StudyReader, Times
from headsearch.scoring.zero_cost_scores import FILE_NAME, ZeroCostScores, readable_scores
from headsearch.training.trial import TrialStage

if TYPE_CHECKING:
    from headsearch.results.audit import Audit

Condition = Literal["at work", "interrupted", "ended", "empty"]
"""`at work`: a coordinator holds the lock. `interrupted`: none does, and trials are waiting to be taken up. `ended`: nothing is left to
do. `empty`: no trial has begun."""


@dataclass(frozen=True)
class Running:
    """A trial that runs now, or would be resumed."""

    record: TrialRecord
    epoch: float | None
    """Complete epochs; None before the first, and where the trial does not log them."""


@dataclass(frozen=True)
class Run:
    """Everything known about a run at one moment. What is computed from it is computed once."""

    path: Path
    experiment: Experiment | None
    facts: RunFacts | None
    records: tuple[TrialRecord, ...] = ()
    """By number."""
    times: Mapping[int, Times] = field(default_factory=dict)
    epochs: Mapping[int, float] = field(default_factory=dict)
    """Complete epochs of running trials, by number, as far as they log them."""
    candidates: tuple[ZeroCostScores, ...] = ()
    """Heads that were scored before any training; none where the strategy has no such stage."""
    at_work: bool = False
    problems: tuple[str, ...] = ()
    """What could not be read, one line each."""
    failure: str | None = None
    """Why nothing of the study can be read, which is one of the problems; None where it can."""

    @property
    def name(self) -> str:
        """What people call it: the name of its folder, which differs where the experiment's name does not."""
        return self.path.resolve().name

    @cached_property
    def labels(self) -> bool:
        """Whether trials are probed."""
        if self.experiment is not None:
            return self.experiment.probes
        return any(rung.knn is not None for record in self.records for rung in record.rungs)

    @cached_property
    def screen_alone(self) -> bool:
        """Whether heads are screened and nothing else."""
        if self.experiment is not None:
            return self.experiment.search.strategy == "screen"
        return bool(self.records) and all(record.stage == "screen" for record in self.records)

    @property
    def ranked_stage(self) -> TrialStage:
        """Whose trials are ranked."""
        return "screen" if self.screen_alone else "proxy"

    @cached_property
    def budget(self) -> int:
        """Epochs of a full proxy; 0 where that is unknown."""
        if self.experiment is not None:
            return self.experiment.proxy.epochs
        return max((rung.epoch for record in self.records for rung in record.rungs), default=0)

    @property
    def target_epochs(self) -> int:
        """Of the real pretraining; the default where the experiment cannot be read."""
        return PRETRAINING_EPOCHS if self.experiment is None else self.experiment.search.target_epochs

    @cached_property
    def rows(self) -> tuple[RankRow, ...]:
        """The ranking in its default order, that of the score."""
        return tuple(self.ranking())

    def ranking(self, by: By | None = None) -> list[RankRow]:
        """The ranking in another order; None takes that of the score. Raises `RunError` where it cannot be ordered so."""
        if by is not None and by not in get_args(By):
            raise RunError(f"cannot rank by '{by}'{did_you_mean(by, get_args(By))}")
        if self.screen_alone and by in ("pareto", "probe"):
            raise RunError(
                f"cannot rank by {by}: a screen reads no labels; expected --by score or discrepancy"
            )
        stage, target = self.ranked_stage, self.target_epochs
        return rank(self.records, by=by or "score", labels=self.labels, stage=stage, target_epochs=target)

    @cached_property
    def passage(self) -> Passage | None:
        """How many heads came to each stage; None where every head gets a proxy."""
        found = passage(self.records, self.candidates)
        return found if found.candidates or found.screened else None

    @cached_property
    def departed(self) -> tuple[RankRow, ...]:
        """A row for every head that was let go before it could be ranked, with stage and reason."""
        return tuple(departures(self.records, self.candidates, self.rows))

    @cached_property
    def row_of(self) -> Mapping[str, RankRow]:
        """The row of every head that has one."""
        return {row.head_id: row for row in self.rows}

    @cached_property
    def ranked(self) -> tuple[RankRow, ...]:
        """The rows that have a rank, in its order."""
        return tuple(row for row in self.rows if row.rank is not None)

    @cached_property
    def controls(self) -> tuple[RankRow, ...]:
        """The rows of the controls, in the order in which they are run."""
        found = {row.control: row for row in self.rows if row.control is not None and row.feasible}
        return tuple(found[name] for name in ("none", "same", "mlp") if name in found)

    @cached_property
    def verdict(self) -> str:
        """Whether any head beats no head, in one sentence."""
        if self.screen_alone:
            return SCREEN_VERDICT
        return verdict(self.rows, tried=heads_tried(self.records), target_epochs=self.target_epochs)

    @cached_property
    def screen_order(self) -> tuple[str, ...]:
        """Ids of the searched heads that went through a screen, best first."""
        screened = [record for record in self.records if record.stage == "screen"]
        anchors = {record.head_id for record in screened if record.control is not None}
        order = (standing.candidate.head_id for standing in standings(screened, sorted(anchors)))
        return tuple(head_id for head_id in order if head_id not in anchors)

    @cached_property
    def taken(self) -> Mapping[str, Taken | None]:
        """How every head that went through a screen came to its proxy, by id; None where the run does not say."""
        screened = set(self.screen_order)
        return {
            r.head_id: r.taken
            for r in self.records
            if r.stage == "proxy" and r.control is None and r.replicate == 0 and r.head_id in screened
        }

    @cached_property
    def by_chance(self) -> frozenset[str]:
        """Ids of the heads that got a proxy by chance. Where the run does not say, those that the score would not choose today."""
        search = None if self.experiment is None else self.experiment.search
        others = self.screen_order[search.trials - search.audit :] if search is not None else ()
        return frozenset(
            head_id
            for head_id, taken in self.taken.items()
            if taken == "chance" or (taken is None and head_id in others)
        )

    @cached_property
    def audit(self) -> Audit:
        """What the run says about how far its ranking can be trusted. Takes seconds, and torch where embeddings of bases were kept.

        Raises:
            RunError: the experiment cannot be read, which says what is compared.
        """
        # Numpy, which a table does not need.
        from headsearch.runs.audited import audited

        return audited(self)

    @cached_property
    def by_head(self) -> Mapping[str, tuple[TrialRecord, ...]]:
        """The trials of every head, duplicates and trunks left out."""
        groups: dict[str, list[TrialRecord]] = {}
        for record in self.records:
            if record.state != "duplicate" and record.stage != "trunk":
                groups.setdefault(record.head_id, []).append(record)
        return {head: tuple(group) for head, group in groups.items()}

    @cached_property
    def states(self) -> Mapping[str, int]:
        """How many trials are in each state."""
        return Counter(record.state for record in self.records)

    @cached_property
    def running(self) -> tuple[Running, ...]:
        """Trials that run, or would be resumed."""
        running = (record for record in self.records if record.state == "running")
        return tuple(Running(record, self.epochs.get(record.number)) for record in running)

    @cached_property
    def settled(self) -> int:
        """Trainings that have ended; duplicates are not trainings, and a joint run of many heads is one."""
        return len({training_of(r) for r in self.records if r.state not in ("running", "duplicate")})

    @cached_property
    def expected(self) -> int | None:
        """Trainings in all, as far as can be told now; None where the experiment cannot be read."""
        if self.experiment is None:
            return None
        search = self.experiment.search
        trained = [record for record in self.records if record.state != "duplicate"]
        heads = sum(part_of(record) == "heads" for record in trained)
        if not any(part_of(record) == "replicates" for record in trained):
            # Once replicates have begun all heads have been tried, be it fewer than asked for, the space having no more.
            heads = max(heads, search.trials)
            again = search.most_further_seeds
        else:
            again = further_seeds(self.records, search, labels=self.experiment.probes).expected
        joint = len({record.seed for record in trained if record.stage == "screen"})
        planned = len(search.controls) + heads + again
        if search.strategy == "screen":
            planned = max(joint, search.replicates)
        elif search.strategy == "funnel":
            planned += max(joint, 1)
        planned += search.anchor_trainings + (search.replicates if search.equal_time else 0)
        if self.experiment.proxy.trunk_epochs:
            planned += search.replicates
        return max(planned, len({training_of(record) for record in trained}))

    @cached_property
    def condition(self) -> Condition:
        """Whether somebody is at work on it."""
        if self.at_work:
            return "at work"
        if not self.records:
            return "empty"
        unfinished = self.expected is not None and self.settled < self.expected
        return "interrupted" if self.running or unfinished else "ended"

    @cached_property
    def stage(self) -> str:
        """What is trained now, or was last: `controls`, `heads`, `replicates`, or another stage by its own name."""
        current = [running.record for running in self.running] or [
            record for record in self.records if record.state != "duplicate"
        ]
        return part_of(current[-1]) if current else "controls"

    @cached_property
    def seconds_left(self) -> float | None:
        """Wall time until the search ends, at the mean time of a training and as many side by side as now; None while unknown."""
        if self.expected is None or not self.at_work:
            return None
        times = [
            time for record in self.records if record.state != "running" for time in self._seconds(record)
        ]
        if not times:
            return None
        left = max(0, self.expected - self.settled)
        return left * statistics.fmean(times) / max(1, len(self.running))

    @cached_property
    def spending(self) -> Spending:
        """What the search has cost."""
        return spending(self.records, budget=self.budget, clock=self.clock)

    @cached_property
    def clock(self) -> Mapping[int, float]:
        """Seconds from start to end of every trial that has ended, by number; a pause between two sessions counts."""
        return {
            number: (end - start).total_seconds()
            for number, (start, end) in self.times.items()
            # A clock that was turned back meanwhile tells nothing.
            if start is not None and end is not None and start <= end
        }

    def curve(self, number: int) -> tuple[EpochPoint, ...]:
        """The epochs of a trial; none where it did not log them, or they cannot be read."""
        try:
            return read_epochs(RunDirectory(self.path).metrics_path(number))
        except OSError:
            return ()

    def _seconds(self, record: TrialRecord) -> list[float]:
        time = record.seconds if record.seconds is not None else self.clock.get(record.number)
        return [time] if time is not None and math.isfinite(time) and record.state != "duplicate" else []


def run_of(directory: RunDirectory, study: StudyReader) -> Run:
    """The run in a directory as it is now, also where nothing of it can be read. `study` reads there, and then knows which study is its."""
    problems: list[str] = []
    experiment: Experiment | None = None
    facts: RunFacts | None = None
    try:
        experiment = directory.experiment()
    except RunError as error:
        problems.append(str(error))
    try:
        facts = directory.facts()
    except RunError as error:
        problems.append(str(error))
    study.follow(
        None if experiment is None else experiment.search.storage, None if facts is None else facts.study
    )
    failure = None
    try:
        contents = study.read()
    except RunError as error:
        contents = study.remembered()
        if directory.begun or not isinstance(error, NoStudy):
            failure = str(error)
            problems.append(failure)
    candidates, unreadable = readable_scores(directory.path / FILE_NAME)
    running = [record.number for record in contents.records if record.state == "running"]
    epochs = {number: last_epoch(directory.metrics_path(number)) for number in running}
    return Run(
        path=directory.path,
        experiment=experiment,
        facts=facts,
        records=contents.records,
        times=contents.times,
        candidates=tuple(candidates),
        epochs={number: epoch for number, epoch in epochs.items() if epoch is not None},
        at_work=directory.at_work,
        problems=(*problems, *contents.problems, *unreadable),
        failure=failure,
    )


def look_at(path: str | Path) -> Run:
    """A run as it is now, also where nothing of it can be read. Raises `RunError` where there is no run directory."""
    directory = RunDirectory.open(path)
    with contextlib.closing(StudyReader(directory.study_path)) as study:
        return run_of(directory, study)


def read_run(path: str | Path) -> Run:
    """A run as it is now, whose study can be read, if not every trial of it. Raises `RunError` where there is none."""
    run = look_at(path)
    if run.failure is not None:
        raise RunError(run.failure)
    return run


def read_records(path: str | Path) -> list[TrialRecord]:
    """Every trial of a run directory that can be read, by number, as it is now; also while a search writes it. Raises `RunError` as `read_run`."""
    return list(read_run(path).records)
