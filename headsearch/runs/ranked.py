"""A run with its ranking: what `rank`, `export`, dashboard and report all start from. Reads the run directory and the study; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headsearch.errors import RunError
from headsearch.experiment import Experiment
from headsearch.results.departures import Passage, departures, passage
from headsearch.results.noise import SCREEN_VERDICT, verdict
from headsearch.results.ranking import By, RankRow, heads_tried, rank
from headsearch.results.records import TrialRecord
from headsearch.runs.directory import RunDirectory
from headsearch.scoring.zero_cost_scores import FILE_NAME, ZeroCostScores, read_scores
from headsearch.search.ledger import read_records


@dataclass(frozen=True)
class RankedRun:
    """Everything that a run's tables are made from."""

    directory: RunDirectory
    experiment: Experiment
    records: list[TrialRecord]
    candidates: list[ZeroCostScores]
    """Heads that were scored before any training; none where the strategy has no such stage."""
    rows: list[RankRow]
    """The ranking: of proxies, or of screened heads where the strategy is `screen`."""

    @property
    def labels(self) -> bool:
        """Whether ranked trials have a probe."""
        return self.experiment.probes

    @property
    def verdict(self) -> str:
        """Whether any head beats the control `none`, in one sentence."""
        if self.experiment.search.strategy == "screen":
            return SCREEN_VERDICT
        return verdict(self.rows, tried=heads_tried(self.records))

    @property
    def passage(self) -> Passage | None:
        """How many heads came how far; None where every head got a proxy."""
        return (
            None if self.experiment.search.strategy == "proxies" else passage(self.records, self.candidates)
        )

    @property
    def departed(self) -> list[RankRow]:
        """A row for every head that was let go before it could be ranked, with stage and reason."""
        return departures(self.records, self.candidates, self.rows)


def rank_run(run: str | Path, by: By | None = None) -> RankedRun:
    """Read a run and rank its heads.

    `by` None takes the strategy's own order: `score` for a screen, else `pareto`.

    Raises:
        RunError: no such run, its study cannot be read, or it cannot be ordered so.
    """
    directory = RunDirectory.open(run)
    experiment = directory.experiment()
    records = read_records(run)
    scored = directory.path / FILE_NAME
    candidates = read_scores(scored) if scored.exists() else []
    screen = experiment.search.strategy == "screen"
    if screen and by in ("pareto", "probe"):
        raise RunError(f"cannot rank by {by}: a screen reads no labels; expected --by score or discrepancy")
    rows = rank(
        records,
        by=by or ("score" if screen else "pareto"),
        labels=experiment.probes,
        stage="screen" if screen else "proxy",
    )
    return RankedRun(directory, experiment, records, candidates, rows)
