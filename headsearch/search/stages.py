"""The stages of a search: each says what is trained next. What comes next follows from the board alone, so that a search that was
killed goes on as if it had not been.

A stage is asked for a training until it has none now. It `holds` while the stages after it have to wait.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from headsearch.errors import RunError
from headsearch.experiment import SearchSpec
from headsearch.experiment.search import ANCHORS_WITHOUT_A_HEAD
from headsearch.heads import Candidate, HeadConfig
from headsearch.results.allocation import Seed, Seeds, further_seeds
from headsearch.results.ranking import rank
from headsearch.results.records import TrialRecord
from headsearch.results.row import RankRow
from headsearch.search.board import Board
from headsearch.search.observer import StageName
from headsearch.search.proposer import Proposer
from headsearch.search.selection import spread
from headsearch.training.trial import BRANCHES, EQUAL_TIME, Training, TrialStage


class SearchStage(abc.ABC):
    """Part of a search."""

    name: StageName

    @property
    def holds(self) -> bool:
        """Whether later stages wait for this one: until it is finished, unless it says otherwise."""
        return not self.finished

    @property
    @abc.abstractmethod
    def finished(self) -> bool:
        """Whether it has nothing left to start."""

    @property
    @abc.abstractmethod
    def expected(self) -> int:
        """Trainings of this stage in all, as far as can be told now."""

    @abc.abstractmethod
    def next_training(self) -> Training | None:
        """The next training, written down as running; None when there is none now. Duplicates are answered on the way."""

    def remember(self, record: TrialRecord) -> None:
        """Take over a trial of a former session, in the order in which they were made."""
        return

    def ended(self, record: TrialRecord) -> None:
        """A trial has ended, and that is written down."""
        return


class Trunk(SearchStage):
    """The base without a head, from which everything else branches. Trunks of further replicates are trained when these are wanted."""

    name: StageName = "trunk"

    def __init__(self, board: Board, *, replicates: int) -> None:
        """At most `replicates` trunks are wanted in all."""
        self._board = board
        self._replicates = replicates

    @property
    def holds(self) -> bool:
        return not self._board.can_branch(0)

    @property
    def finished(self) -> bool:
        return 0 in self._board.trunks and self._board.trunks[0].state != "failed"

    @property
    def expected(self) -> int:
        return max(self._replicates, len(self._board.trunks))

    def next_training(self) -> Training | None:
        return self._board.start_trunk(0) if self.holds else None

    def remember(self, record: TrialRecord) -> None:
        if record.stage == "trunk":
            self._board.remember_trunk(record)

    def ended(self, record: TrialRecord) -> None:
        self.remember(record)
        if record.stage == "trunk" and record.state == "failed":
            # Unlike a head it is not left out: nothing can be trained without it.
            raise RunError(
                f"the trunk (trial {record.number}) failed: {record.reason}; fix that and continue with --resume"
            )


class Controls(SearchStage):
    """The heads that a searched one must beat, one training each."""

    name: StageName = "controls"
    holds = False

    def __init__(self, board: Board, controls: Mapping[str, Candidate]) -> None:
        """`controls` by name; run in this order."""
        self._board = board
        self._controls = controls
        self._begun: set[str] = set()

    @property
    def finished(self) -> bool:
        return all(name in self._begun for name in self._controls)

    @property
    def expected(self) -> int:
        return len(self._controls)

    def next_training(self) -> Training | None:
        board = self._board
        for name, candidate in self._controls.items():
            if name in self._begun or candidate.head_id in board.heads_at_work:
                continue
            self._begun.add(name)
            twin = board.first.get(candidate.head_id)
            if twin is None:
                return board.start(candidate, control=name)
            board.duplicate(candidate, twin, control=name)
        return None

    def remember(self, record: TrialRecord) -> None:
        # Whatever went wrong with a control may have been mended since: one that failed is run again.
        if record.control is not None and record.state != "failed" and record.stage == "proxy":
            self._begun.add(record.control)


class Proposals(SearchStage):
    """Heads that a sampler proposes, one after the other, until enough have been trained or none is left."""

    name: StageName = "heads"

    def __init__(self, board: Board, proposer: Proposer, trials: int) -> None:
        self._board = board
        self._proposer = proposer
        self._trials = trials
        self._heads = 0
        """Searched heads that were or are trained."""
        self._exhausted = False
        self._positions: dict[int, int] = {}
        """Places of heads that run in the proposer's study, by trial number."""

    @property
    def finished(self) -> bool:
        return self._heads >= self._trials or self._exhausted

    @property
    def expected(self) -> int:
        return self._heads if self._exhausted else max(self._trials, self._heads)

    def next_training(self) -> Training | None:
        board = self._board
        while not self.finished:
            repeated = self._proposer.repeats_itself
            proposal = self._proposer.propose(board.first, board.heads_at_work)
            if self._proposer.repeats_itself and not repeated:
                board.observer.note(
                    "the sampler proposes heads that were tried before; untried ones take turns with its own"
                )
            if proposal is None:
                if not board.running:
                    self._exhausted = True
                    board.observer.note(
                        f"every head of the space has been tried; {self._heads} trained, {self._trials} were asked for"
                    )
                return None
            twin = board.first.get(proposal.candidate.head_id)
            if twin is None:
                training = board.start(proposal.candidate, draw=proposal.draw)
                self._heads += 1
                self._positions[training.number] = proposal.position
                return training
            record = board.duplicate(proposal.candidate, twin, draw=proposal.draw)
            values = board.ledger.values(record)
            self._proposer.tell(proposal.position, values, stopped=twin.state == "stopped")
        return None

    def remember(self, record: TrialRecord) -> None:
        if record.stage != "proxy":
            return
        ledger, running = self._board.ledger, record.state == "running"
        draw = ledger.draw(record.number)
        if record.control is None and record.replicate == 0 and record.state != "duplicate":
            self._heads += 1
        if draw is None:
            return
        position = self._proposer.remember(
            draw,
            ledger.values(record),
            running=running,
            stopped=ledger.stopped(record),
            duplicate=record.state == "duplicate",
        )
        if running:
            self._positions[record.number] = position

    def ended(self, record: TrialRecord) -> None:
        if record.number in self._positions:
            ledger = self._board.ledger
            position = self._positions.pop(record.number)
            self._proposer.tell(position, ledger.values(record), stopped=ledger.stopped(record))


class Replicates(SearchStage):
    """Further seeds for the best heads and for the controls. Who is among the best is decided by first trials alone, so that a replicate
    cannot change the choice."""

    name: StageName = "replicates"
    holds = False

    def __init__(self, board: Board, search: SearchSpec, *, labels: bool) -> None:
        """`search` says how many heads may get how many seeds (`headsearch.results.allocation`); `labels` tells whether trials have a probe."""
        self._board = board
        self._search = search
        self._labels = labels
        self._begun = False
        self._seeds: Seeds | None = None
        """As decided by what has ended; None where that has to be looked at again."""

    @property
    def finished(self) -> bool:
        if self._search.finalists == 0:
            return True
        return self._begun and self._decided().complete and not self._missing()

    @property
    def expected(self) -> int:
        if not self._begun:
            return self._search.most_further_seeds
        return self._decided().expected

    def next_training(self) -> Training | None:
        if self._search.finalists == 0 or self._board.heads_at_work:
            # The best are known when every head has been heard of.
            return None
        self._begun = True
        for identity, replicate in self._missing():
            if not self._board.can_branch(replicate):
                return self._board.start_trunk(replicate)
            first = self._board.first[identity]
            return self._board.start(first.candidate, replicate=replicate, control=first.control)
        return None

    def remember(self, record: TrialRecord) -> None:
        self._begun = self._begun or (record.stage == "proxy" and record.replicate > 0)

    def ended(self, record: TrialRecord) -> None:
        self._seeds = None

    def _decided(self) -> Seeds:
        if self._seeds is None:
            self._seeds = further_seeds(self._board.ledger.records, self._search, labels=self._labels)
        return self._seeds

    def _missing(self) -> list[Seed]:
        return [seed for seed in self._decided().wanted if seed not in self._board.covered]


Wanted = tuple[Candidate, int, int]
"""A head, the replicate, and for how many epochs it is to be trained."""


class LateStage(SearchStage):
    """Trainings of a length of their own, chosen once all else is done."""

    holds = False
    kind: ClassVar[TrialStage]
    """Of its trainings."""

    def __init__(self, board: Board, search: SearchSpec, earlier: Sequence[SearchStage]) -> None:
        """`search` says how many; they are chosen when the `earlier` stages are through."""
        self._board = board
        self._search = search
        self._earlier = tuple(earlier)
        self._begun: dict[Seed, TrialRecord] = {}
        self._wanted: list[Wanted] | None = None
        """None until they are chosen."""

    @property
    def finished(self) -> bool:
        return self._wanted is not None and all(
            (head.head_id, replicate) in self._begun for head, replicate, _ in self._wanted
        )

    @property
    def expected(self) -> int:
        return self._most if self._wanted is None else len(self._wanted)

    @property
    @abc.abstractmethod
    def _most(self) -> int:
        """Trainings before they are chosen."""

    @abc.abstractmethod
    def _chosen(self) -> list[Wanted]:
        """What is to be trained, in order; it may have been."""

    def next_training(self) -> Training | None:
        board = self._board
        if self._wanted is None:
            at_work = any(training.stage != self.kind for training in board.running.values())
            if at_work or not all(stage.finished for stage in self._earlier):
                return None
            self._wanted = self._chosen()
        for head, replicate, epochs in self._wanted:
            if (head.head_id, replicate) not in self._begun:
                if self.kind in BRANCHES and not board.can_branch(replicate):
                    return board.start_trunk(replicate)
                control = None if head.config.heads else head.head_id
                training = board.start(
                    head, control=control, stage=self.kind, replicate=replicate, epochs=epochs
                )
                self.remember(board.ledger.record(training.number))
                return training
        return None

    def remember(self, record: TrialRecord) -> None:
        # Whatever went wrong may have been mended since.
        if record.stage == self.kind and record.state != "failed":
            self._begun[record.head_id, record.replicate] = record

    def _ranked(self) -> list[RankRow]:
        rows = rank(self._board.ledger.records, labels=True, target_epochs=self._search.target_epochs)
        return [row for row in rows if row.rank is not None]


class EqualTime(LateStage):
    """The control that is given the time of the best head: no head, for as many epochs more as a step with that head takes longer."""

    name: StageName = "equal-time"
    kind = "equal-time"

    def __init__(
        self, board: Board, search: SearchSpec, earlier: Sequence[SearchStage], *, epochs: int
    ) -> None:
        """`epochs` of a proxy."""
        super().__init__(board, search, earlier)
        self._epochs = epochs

    @property
    def _most(self) -> int:
        return self._search.replicates

    def _chosen(self) -> list[Wanted]:
        known = [record.epochs for record in self._begun.values() if record.epochs is not None]
        overhead = next((row.overhead for row in self._ranked()), None)
        if not known and overhead is None:
            self._board.observer.note("no head has a measured step time that no head could be given")
            return []
        # Measured times differ: seeds that were begun decide for those to come.
        epochs = known[0] if known else math.ceil(self._epochs * (1.0 + max(0.0, overhead or 0.0)))
        none = Candidate(HeadConfig(), EQUAL_TIME)
        return [(none, replicate, epochs) for replicate in range(self._search.replicates)]


class Anchors(LateStage):
    """Heads spread over the order by score, and twice no head, trained as long as the real pretraining."""

    name: StageName = "anchors"
    kind = "anchor"

    @property
    def _most(self) -> int:
        return self._search.anchor_trainings

    def remember(self, record: TrialRecord) -> None:
        # With another target they are trained anew.
        if record.epochs == self._search.target_epochs:
            super().remember(record)

    def _chosen(self) -> list[Wanted]:
        scored = [(row.score, row.head_id) for row in self._ranked() if row.score is not None]
        order = [head for _, head in sorted(scored, key=lambda each: (-each[0], each[1]))]
        chosen = spread(order, self._search.anchors, [head for head, _ in self._begun])
        if len(chosen) < self._search.anchors:
            self._board.observer.note(
                f"{len(chosen)} heads ran a whole proxy and are anchors; {self._search.anchors} were asked for"
            )
        none, epochs = Candidate.of(HeadConfig()), self._search.target_epochs
        trainings = [(none, replicate, epochs) for replicate in range(ANCHORS_WITHOUT_A_HEAD)]
        return [*trainings, *((self._board.first[head].candidate, 0, epochs) for head in chosen)]
