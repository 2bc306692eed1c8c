"""The stages of a search: each says what is to be trained next. What comes next follows from the board alone, so that a search that was
killed goes on as if it had not been.

A stage is asked until it wants nothing now. It `holds` while the stages after it have to wait. It starts nothing: the coordinator does.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headsearch.errors import RunError
from headsearch.experiment import SearchSpec
from headsearch.heads import Candidate, HeadConfig
from headsearch.results.allocation import Seed, Seeds, further_seeds
from headsearch.results.records import Taken, TrialRecord
from headsearch.search.ledger import Ledger
from headsearch.search.observer import StageName
from headsearch.search.proposer import Draw, Proposal, Proposer
from headsearch.search.seeds import search_seed
from headsearch.training.trial import BRANCHES, Training, TrialStage


@dataclass
class Board:
    """What the stages of a search know of its trainings. The coordinator keeps it."""

    ledger: Ledger
    note: Callable[[str], None]
    """Tells people."""
    seed: int
    """Of the study."""
    running: dict[int, Training] = field(default_factory=dict)
    """At work, by number."""
    first: dict[str, TrialRecord] = field(default_factory=dict)
    """The settled first proxy of every head, by its id: it answers for the head."""
    covered: set[tuple[str, int]] = field(default_factory=set)
    """(head id, replicate) of proxies that need not be run again."""

    @property
    def heads_at_work(self) -> set[str]:
        """Ids of the heads whose first proxy runs now."""
        proxies = (t for t in self.running.values() if t.stage == "proxy" and t.replicate == 0)
        return {candidate.head_id for training in proxies for candidate in training.candidates}


@dataclass(frozen=True)
class Wanted:
    """A training that a stage asks for. A first proxy of a head that has had one is not run: that one answers for it."""

    candidates: Sequence[Candidate]
    controls: Mapping[str, str | None] = field(default_factory=dict)
    """Which control a candidate is, by head id; none for a searched head."""
    stage: TrialStage = "proxy"
    replicate: int = 0
    seed: int | None = None
    """None: it follows from the head, the replicate and the stage."""
    epochs: int | None = None
    """Where they are its own affair."""
    draw: Draw | None = None
    taken: Taken | None = None
    written: Mapping[str, TrialRecord] = field(default_factory=dict)
    """Trials of it that a session that was killed has written down, by head id; they may have ended."""


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
    def wanted(self) -> Wanted | None:
        """The next training; None when there is none now. It is asked for until it has begun."""

    def remember(self, record: TrialRecord) -> None:
        """Take over a trial of a former session, in the order in which they were made."""
        return

    def began(self, record: TrialRecord) -> None:
        """A trial of what was wanted last is written down: as running, or as answered by an earlier one."""
        self.remember(record)

    def ended(self, record: TrialRecord) -> None:
        """A trial has ended, and that is written down."""
        return


class Trunk(SearchStage):
    """The base without a head, from which everything else branches. Trunks of further replicates are trained when these are wanted."""

    name: StageName = "trunk"

    def __init__(self, board: Board, replicates: int) -> None:
        """At most `replicates` trunks are wanted in all; 0: the search has none."""
        self._board = board
        self._replicates = replicates
        self.records: dict[int, TrialRecord] = {}
        """By replicate, as they were when they were last heard of; one that failed is trained again."""

    @property
    def holds(self) -> bool:
        return self._replicates > 0 and not self.is_trained(0)

    @property
    def finished(self) -> bool:
        return self._replicates == 0 or (0 in self.records and self.records[0].state != "failed")

    @property
    def expected(self) -> int:
        return max(self._replicates, len(self.records))

    def serves(self, stage: TrialStage) -> bool:
        """Whether trainings of a stage branch from a trunk, each from that of its replicate."""
        return self._replicates > 0 and stage in BRANCHES

    def is_trained(self, replicate: int) -> bool:
        """Whether the trunk of a replicate is there."""
        return replicate in self.records and self.records[replicate].state == "complete"

    def wanted(self) -> Wanted | None:
        return self.of(0) if self.holds else None

    def of(self, replicate: int) -> Wanted | None:
        """The trunk of a replicate, which is not there; None where it is at work."""
        if replicate in self.records and self.records[replicate].state == "running":
            return None
        none, seed = Candidate.of(HeadConfig()), search_seed("trunk", self._board.seed, replicate)
        return Wanted([none], {none.head_id: "none"}, stage="trunk", replicate=replicate, seed=seed)

    def remember(self, record: TrialRecord) -> None:
        if record.stage != "trunk":
            return
        if record.state == "infeasible":
            raise RunError(
                f"the base itself cannot be trained: the trunk (trial {record.number}) is worthless: {record.reason}; "
                f"expected other rates in `proxy`, in another run (--out)"
            )
        self.records[record.replicate] = record

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

    def wanted(self) -> Wanted | None:
        at_work = self._board.heads_at_work
        left = (
            Wanted([candidate], {candidate.head_id: name})
            for name, candidate in self._controls.items()
            if name not in self._begun and candidate.head_id not in at_work
        )
        return next(left, None)

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
        self._asked: Proposal | None = None
        """What was wanted last."""
        self._positions: dict[int, int] = {}
        """Places of heads that run in the proposer's study, by trial number."""

    @property
    def finished(self) -> bool:
        return self._heads >= self._trials or self._exhausted

    @property
    def expected(self) -> int:
        return self._heads if self._exhausted else max(self._trials, self._heads)

    def wanted(self) -> Wanted | None:
        if self.finished:
            return None
        board = self._board
        repeated = self._proposer.repeats_itself
        self._asked = proposal = self._proposer.propose(board.first, board.heads_at_work)
        if self._proposer.repeats_itself and not repeated:
            board.note(
                "the sampler proposes heads that were tried before; untried ones take turns with its own"
            )
        if proposal is not None:
            return Wanted([proposal.candidate], draw=proposal.draw)
        if not board.running:
            self._exhausted = True
            board.note(
                f"every head of the space has been tried; {self._heads} trained, {self._trials} were asked for"
            )
        return None

    def began(self, record: TrialRecord) -> None:
        assert self._asked is not None
        self._positions[record.number] = self._asked.position
        if record.state == "running":
            self._heads += 1
        else:
            self.ended(record)

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

    def wanted(self) -> Wanted | None:
        if self._search.finalists == 0 or self._board.heads_at_work:
            # The best are known when every head has been heard of.
            return None
        self._begun = True
        for identity, replicate in self._missing():
            first = self._board.first[identity]
            return Wanted([first.candidate], {identity: first.control}, replicate=replicate)
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
