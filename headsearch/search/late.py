"""The stages that come when all else is done: what is trained for longer than a proxy."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import ClassVar

from headsearch.experiment import SearchSpec
from headsearch.experiment.search import ANCHORS_WITHOUT_A_HEAD
from headsearch.heads import Candidate, HeadConfig
from headsearch.results.allocation import Seed
from headsearch.results.ranking import rank
from headsearch.results.records import TrialRecord
from headsearch.results.row import RankRow
from headsearch.search.observer import StageName
from headsearch.search.selection import spread
from headsearch.search.stages import Board, SearchStage, Wanted
from headsearch.training.trial import EQUAL_TIME, TrialStage


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
        self._all: list[Wanted] | None = None
        """None until they are chosen."""

    @property
    def finished(self) -> bool:
        return self._all is not None and self._next() is None

    @property
    def expected(self) -> int:
        return self._most if self._all is None else len(self._all)

    @property
    @abc.abstractmethod
    def _most(self) -> int:
        """Trainings before they are chosen."""

    @abc.abstractmethod
    def _chosen(self) -> list[Wanted]:
        """What is to be trained, in order; it may have been."""

    def wanted(self) -> Wanted | None:
        if self._all is None:
            at_work = any(training.stage != self.kind for training in self._board.running.values())
            if at_work or not all(stage.finished for stage in self._earlier):
                return None
            self._all = self._chosen()
        return self._next()

    def _next(self) -> Wanted | None:
        left = (
            wanted
            for wanted in self._all or ()
            if (wanted.candidates[0].head_id, wanted.replicate) not in self._begun
        )
        return next(left, None)

    def _training(self, head: Candidate, replicate: int, epochs: int) -> Wanted:
        control = None if head.config.heads else head.head_id
        return Wanted([head], {head.head_id: control}, stage=self.kind, replicate=replicate, epochs=epochs)

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
            self._board.note("no head has a measured step time that no head could be given")
            return []
        # Measured times differ: seeds that were begun decide for those to come.
        epochs = known[0] if known else math.ceil(self._epochs * (1.0 + max(0.0, overhead or 0.0)))
        none = Candidate(HeadConfig(), EQUAL_TIME)
        return [self._training(none, replicate, epochs) for replicate in range(self._search.replicates)]


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
            self._board.note(
                f"{len(chosen)} heads ran a whole proxy and are anchors; {self._search.anchors} were asked for"
            )
        none, epochs = Candidate.of(HeadConfig()), self._search.target_epochs
        heads = [self._board.first[head].candidate for head in chosen]
        return [
            *(self._training(none, replicate, epochs) for replicate in range(ANCHORS_WITHOUT_A_HEAD)),
            *(self._training(head, 0, epochs) for head in heads),
        ]
