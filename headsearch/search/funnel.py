"""The stages of a funnel that come before the finalists: joint runs of many heads, and proxies for the best of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from headsearch.heads import Candidate
from headsearch.results.records import Taken, TrialRecord
from headsearch.results.standings import Standing, standings
from headsearch.search.board import Board
from headsearch.search.executors import Job
from headsearch.search.observer import StageName
from headsearch.search.seeds import derived_seed
from headsearch.search.selection import joint_runs, promoted


class Screening:
    """Joint runs of all heads to be screened. A run is one training and as many trials as it has heads."""

    name: StageName = "screen"

    def __init__(
        self,
        board: Board,
        heads: Sequence[Candidate],
        anchors: Mapping[str, Candidate],
        *,
        batch: int,
        replicates: int = 1,
    ) -> None:
        """`heads` in runs of at most `batch`, which share the `anchors` (by the name of their control) where there are several. Every
        run is repeated until it has had `replicates` seeds."""
        self._board = board
        self._names = {candidate.head_id: name for name, candidate in anchors.items()}
        runs = joint_runs(heads, list(anchors.values()), batch=batch)
        self._anchored = len(runs) > 1
        self._runs = {
            derived_seed("screen", board.seed, index, replicate): (members, replicate)
            for replicate in range(replicates)
            for index, members in enumerate(runs)
        }
        self._records: dict[int, dict[str, TrialRecord]] = {seed: {} for seed in self._runs}
        """The trials of every run by head, as they were when they were last heard of."""

    @property
    def holds(self) -> bool:
        return not all(map(self._settled, self._runs))

    @property
    def finished(self) -> bool:
        return all(self._settled(seed) or self._board.joint(seed) for seed in self._runs)

    @property
    def expected(self) -> int:
        return len(self._runs)

    @property
    def standings(self) -> list[Standing]:
        """The heads that went through, best first. Valid once this holds nobody up."""
        records = [record for run in self._records.values() for record in run.values()]
        order = standings(records, list(self._names) if self._anchored else ())
        return [s for s in order if not (self._anchored and s.candidate.head_id in self._names)]

    def next_job(self) -> Job | None:
        for seed, (members, replicate) in self._runs.items():
            if not self._settled(seed) and not self._board.joint(seed):
                controls = [self._names.get(member.head_id) if self._anchored else None for member in members]
                return self._board.start_joint(members, controls, self._records[seed], seed, replicate)
        return None

    def remember(self, record: TrialRecord) -> None:
        if record.stage == "screen" and record.seed in self._records:
            self._records[record.seed][record.head_id] = record

    def ended(self, record: TrialRecord) -> None:
        self.remember(record)

    def _settled(self, seed: int) -> bool:
        records, (members, _) = self._records[seed], self._runs[seed]
        return len(records) == len(members) and all(record.state != "running" for record in records.values())


class Promotions:
    """Proxies for the best heads of a screen, and for a few taken by chance."""

    name: StageName = "heads"

    def __init__(
        self, board: Board, order: Callable[[], Sequence[Standing]], *, trials: int, audit: int
    ) -> None:
        """`order` gives what the screen found, once it is through; `audit` of the `trials` are taken by chance."""
        self._board = board
        self._order = order
        self._trials = trials
        self._audit = audit
        self._chosen: list[tuple[Candidate, Taken]] | None = None
        self._begun: dict[str, Taken | None] = {}

    @property
    def finished(self) -> bool:
        return self._chosen is not None and all(head.head_id in self._begun for head, _ in self._chosen)

    @property
    def holds(self) -> bool:
        return not self.finished

    @property
    def expected(self) -> int:
        return self._trials if self._chosen is None else len(self._chosen)

    def next_job(self) -> Job | None:
        board = self._board
        if self._chosen is None:
            self._chosen = promoted(
                self._order(), trials=self._trials, audit=self._audit, seed=board.seed, begun=self._begun
            )
        for head, taken in self._chosen:
            twin = board.trained(head.head_id)
            if head.head_id in self._begun or (twin is None and board.at_work(head.head_id)):
                continue
            self._begun[head.head_id] = taken
            if twin is None:
                return board.start(head, taken=taken)
            board.duplicate(head, twin, taken=taken)
        return None

    def remember(self, record: TrialRecord) -> None:
        if record.stage == "proxy" and record.control is None and record.replicate == 0:
            self._begun[record.head_id] = record.taken

    def ended(self, record: TrialRecord) -> None:
        return None
