"""What comes in a funnel before the finalists: scores before training, joint trainings of many heads, and proxies for the best of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from headsearch.errors import RunError
from headsearch.experiment import Experiment
from headsearch.heads import Candidate
from headsearch.results.records import Taken, TrialRecord
from headsearch.results.standings import Standing, standings
from headsearch.search.materials import Materials
from headsearch.search.observer import Observer, StageName
from headsearch.search.seeds import search_seed
from headsearch.search.selection import best_and_spread, joint_runs, promoted
from headsearch.search.stages import Board, SearchStage, Wanted


class Screening(SearchStage):
    """Joint trainings of all heads to be screened, in each as many trials as it has heads."""

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
        """At most `batch` of the `heads` are trained at once; where several trainings are needed, all have the `anchors` (by the name of
        their control). Every training is repeated until it has had `replicates` seeds."""
        self._board = board
        runs = joint_runs(heads, list(anchors.values()), batch=batch)
        self._controls: dict[str, str | None] = (
            {head.head_id: name for name, head in anchors.items()} if len(runs) > 1 else {}
        )
        """Names of the anchors that there are, by head."""
        self._runs = {
            search_seed("screen", board.seed, index, replicate): (members, replicate)
            for replicate in range(replicates)
            for index, members in enumerate(runs)
        }
        self._records: dict[int, dict[str, TrialRecord]] = {seed: {} for seed in self._runs}
        """The trials of every training by head, as they were when they were last heard of."""

    @property
    def holds(self) -> bool:
        return not all(map(self._settled, self._runs))

    @property
    def finished(self) -> bool:
        return all(self._settled(seed) or self._at_work(seed) for seed in self._runs)

    @property
    def expected(self) -> int:
        return len(self._runs)

    @property
    def standings(self) -> list[Standing]:
        """The heads that went through, best first. Valid once this holds nobody up."""
        records = [record for run in self._records.values() for record in run.values()]
        order = standings(records, list(self._controls))
        return [standing for standing in order if standing.candidate.head_id not in self._controls]

    def wanted(self) -> Wanted | None:
        for seed, (members, replicate) in self._runs.items():
            if not self._settled(seed) and not self._at_work(seed):
                return Wanted(
                    members,
                    self._controls,
                    stage="screen",
                    replicate=replicate,
                    seed=seed,
                    written=self._records[seed],
                )
        return None

    def remember(self, record: TrialRecord) -> None:
        if record.stage == "screen" and record.seed in self._records:
            self._records[record.seed][record.head_id] = record

    def ended(self, record: TrialRecord) -> None:
        self.remember(record)

    def _settled(self, seed: int) -> bool:
        records, (members, _) = self._records[seed], self._runs[seed]
        return len(records) == len(members) and all(record.state != "running" for record in records.values())

    def _at_work(self, seed: int) -> bool:
        return any(training.seed == seed for training in self._board.running.values())


class Promotions(SearchStage):
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
    def expected(self) -> int:
        return self._trials if self._chosen is None else len(self._chosen)

    def wanted(self) -> Wanted | None:
        board = self._board
        if self._chosen is None:
            self._chosen = promoted(
                self._order(), trials=self._trials, audit=self._audit, seed=board.seed, begun=self._begun
            )
        at_work = board.heads_at_work
        left = (
            Wanted([head], taken=taken)
            for head, taken in self._chosen
            if head.head_id not in self._begun and head.head_id not in at_work
        )
        return next(left, None)

    def remember(self, record: TrialRecord) -> None:
        if record.stage == "proxy" and record.control is None and record.replicate == 0:
            self._begun[record.head_id] = record.taken


def heads_to_screen(
    experiment: Experiment, materials: Materials, scores: Path, watcher: Observer
) -> list[Candidate]:
    """Which heads a screen takes. In a funnel this is its first stage, whose scores are kept in the file `scores`.

    Raises:
        RunError: no head of the space can be searched on this base.
    """
    search = experiment.search
    if search.strategy == "proxies":
        return []
    if search.strategy == "screen":
        return materials.distinct(search.screen.heads, seed=experiment.seed)
    assert materials.score_candidates is not None, "a funnel has a first stage"
    rows = materials.score_candidates(search.candidates, scores, watcher.candidates_scored)
    seeds = max((row.seeds for row in rows), default=0)
    fit = [row for row in rows if row.score is not None and row.seeds == seeds]
    chosen = best_and_spread(
        fit, search.screen.heads, score=lambda row: row.score or 0.0, family=lambda row: row.config.family
    )
    if not chosen:
        raise RunError(f"none of {len(rows)} heads can be searched on this base, the last: {rows[-1].reason}")
    return [Candidate(row.config, row.head_id) for row in chosen]
