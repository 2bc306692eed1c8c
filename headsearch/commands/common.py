"""What several commands share: formats, the run argument, the console, the ranking."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from headsearch.results.ranking import RankRow
    from headsearch.results.trials import TrialRecord


class TableFormat(StrEnum):
    """How a table is printed."""

    table = "table"
    json = "json"
    csv = "csv"


class RankBy(StrEnum):
    """What orders the ranking."""

    pareto = "pareto"
    probe = "probe"
    discrepancy = "discrepancy"


class ReportFormat(StrEnum):
    """How a report is printed."""

    table = "table"
    json = "json"


Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, as made by headsearch run.")]


def rank_run(run: Path, by: RankBy) -> tuple[list[RankRow], list[TrialRecord], bool]:
    """The ranking of a run, the trials behind it, and whether they were probed with labels."""
    from headsearch.results.ranking import rank as rank_heads
    from headsearch.run_directory import RunDirectory
    from headsearch.search.ledger import read_records

    labels = RunDirectory.open(run).experiment().data.labels == "probe"
    records = read_records(run)
    return rank_heads(records, by=by.value, labels=labels), records, labels


def print_ranking(rows: list[RankRow], records: list[TrialRecord], labels: bool) -> None:
    from headsearch.results import tables
    from headsearch.results.ranking import heads_tried
    from headsearch.results.statistics import verdict

    out = console()
    out.print(tables.rank_table(rows, labels=labels))
    out.print(verdict(rows, tried=heads_tried(records)), markup=False)


def console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    # A table in a pipe is cut to 80 columns otherwise, whatever it holds.
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, 120))
