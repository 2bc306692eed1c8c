"""What several commands share: formats, the run argument, the console, the ranking."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from headsearch.results.row import RankRow
    from headsearch.runs.run import Run


class TableFormat(StrEnum):
    """How a table is printed."""

    table = "table"
    json = "json"
    csv = "csv"


class RankBy(StrEnum):
    """What orders the ranking."""

    score = "score"
    pareto = "pareto"
    probe = "probe"
    discrepancy = "discrepancy"


class ReportFormat(StrEnum):
    """How a report is printed."""

    table = "table"
    json = "json"


def _load(named: list[str] | None) -> list[str]:
    from headsearch.plugins import load_plugins, located

    found = [located(name) for name in named or []]
    load_plugins(found)
    return found


PluginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="PLUGIN",
        callback=_load,
        help="A plug-in: a .py file, or the name of an installed one. May be given several times.",
    ),
]
"""Loads what is named, before the command begins."""
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, as made by headsearch run.")]


def print_ranking(run: Run, rows: Sequence[RankRow]) -> None:
    """The table of some rows, how many heads came how far, and the verdict."""
    from headsearch.results import tables

    out = console()
    out.print(tables.rank_table(rows, labels=run.labels))
    if run.passage is not None:
        out.print(f"{run.passage}.", markup=False)
    out.print(run.verdict, markup=False)


def tell_problems(run: Run) -> None:
    """Name what cannot be read of a run, on stderr, a line each."""
    for line in run.problems:
        typer.echo(f"headsearch: not shown: {line}", err=True)


def console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    # A table in a pipe is cut to 80 columns otherwise, whatever it holds. The widest, of `reproduce`, takes 140.
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, 160))
