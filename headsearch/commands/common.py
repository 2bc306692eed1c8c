"""What several commands share: formats, the run argument, the console, the ranking."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from headsearch.runs.ranked import RankedRun


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
    score = "score"


class ReportFormat(StrEnum):
    """How a report is printed."""

    table = "table"
    json = "json"


Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, as made by headsearch run.")]


def print_ranking(ranked: RankedRun) -> None:
    """The table, how many heads came how far, and the verdict."""
    from headsearch.results import tables

    out = console()
    out.print(tables.rank_table(ranked.rows, labels=ranked.labels))
    if ranked.passage is not None:
        out.print(f"{ranked.passage}.", markup=False)
    out.print(ranked.verdict, markup=False)


def console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    # A table in a pipe is cut to 80 columns otherwise, whatever it holds. The widest, of `reproduce`, takes 140.
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, 160))
