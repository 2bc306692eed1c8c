"""What several commands share: formats, the run argument, the console, the ranking."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headsearch.secrecy import redacted
from headsearch.signals import exit_code

if TYPE_CHECKING:
    from rich.console import Console

    from headsearch.results.row import RankRow
    from headsearch.runs.run import Run


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
SearchedBase = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="timm model, or a factory of your own, my_models.py:build; the same as --set base.model=...",
    ),
]
SearchedData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="A folder of images, an .npz file, or a data set's name; the same as --set data.dataset=... and data.root.",
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="timm model, or a factory of your own, my_models.py:build. Default: the one that the head was chosen for.",
    ),
]
PretrainingData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="A folder of images, an .npz file, or a data set's name. Default: the search's data set.",
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, as made by headsearch run.")]
TableOutput = Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="Output format.")]
ReportOutput = Annotated[Literal["table", "json"], typer.Option("--format", help="Output format.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any key.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


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


def resume_line(*command: object, overrides: Sequence[str] | None, **options: object) -> str:
    """The line that goes on with an interrupted command, fit for a shell. Options that are None were not given, those that are a list several times."""
    given = [
        ("--" + name, str(value))
        for name, values in options.items()
        if values is not None
        for value in (values if isinstance(values, list) else [values])
    ]
    given += [("--set", override) for override in overrides or ()]
    words = ["headsearch", *map(str, command), *(word for pair in given for word in pair), "--resume"]
    return redacted(shlex.join(words))


@contextlib.contextmanager
def saying_how_to_resume(out: Path, line: str) -> Iterator[None]:
    """Have Ctrl-C end a command whose work is safe in `out` with the `line` that goes on with it."""
    try:
        yield
    except KeyboardInterrupt:
        if not out.exists():
            raise
        typer.echo(f"headsearch: interrupted; everything finished is safe. Resume with:  {line}", err=True)
        raise typer.Exit(exit_code()) from None


def teller(quiet: bool) -> Callable[[str], None]:
    """What prints progress on stderr, a line at a time."""
    return (lambda _: None) if quiet else (lambda line: typer.echo(line, err=True))


def console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    # A table in a pipe is cut to 80 columns otherwise, whatever it holds. The widest, of `reproduce`, takes 140.
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, 160))
