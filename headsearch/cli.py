"""The command line: parses, calls, prints. The names of commands and options are a promise.

Everything heavy is imported inside the commands, so that `--help`, `rank`, `space` and `export` answer at once.
"""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from headsearch.errors import HeadsearchError, RunError, UserError
from headsearch.space.commands import space_app

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


app = typer.Typer(
    name="headsearch",
    help="Find the auxiliary head that makes a base vision model better, before anyone pays for pretraining.",
    epilog="Start here: [bold]headsearch run[/bold] searches on the embedded digits; [bold]headsearch init[/bold] writes files to edit.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(space_app, name="space")

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, as made by headsearch run.")]


def _version(wanted: bool) -> None:
    if wanted:
        from headsearch import __version__

        typer.echo(f"headsearch {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Examples:  headsearch run   |   headsearch run --base resnet18 --data ~/images --set data.image_size=64   |   "
    "headsearch run digits --set search.trials=4 --out runs/try   |   headsearch run my.yaml --resume"
)
def run(
    experiment: Annotated[
        str | None,
        typer.Argument(
            help="An experiment file or a shipped name. Default: digits, or, with --data, the defaults."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory. Default: runs/<name>.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any key.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="timm model; the same as --set base.model=...")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Folder of images; the same as --set data.dataset=folder --set data.root=..."),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with the run directory where it was interrupted.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the ranked table.")] = False,
) -> None:
    """Search: train base and head on a short schedule, head by head, and rank the heads."""
    import json

    from headsearch.experiment import load_experiment
    from headsearch.progress import progress_display
    from headsearch.search.run import run_search

    shorthand = []
    if base is not None:
        shorthand.append(f"base.model={json.dumps(base)}")
    if data is not None:
        shorthand += ["data.dataset=folder", f"data.root={json.dumps(data)}"]
    source = experiment if experiment is not None or data is not None else "digits"
    spec = load_experiment(source, [*shorthand, *(overrides or [])])
    where = out or Path("runs") / spec.name
    try:
        with progress_display(quiet=quiet) as display:
            run_search(spec, where, resume=resume, observer=display)
    except KeyboardInterrupt:
        if not where.exists():
            raise
        chosen = [f"--set {shlex.quote(item)}" for item in (*shorthand, *(overrides or []))]
        again = " ".join(
            ["headsearch run", *([experiment] if experiment else []), *chosen, f"--out {where}", "--resume"]
        )
        typer.echo(f"headsearch: interrupted; everything finished is safe. Go on with:  {again}", err=True)
        raise typer.Exit(130) from None
    rows, records, labels = _rank(where, RankBy.pareto)
    _print_ranking(rows, records, labels)
    if any(row.rank == 1 for row in rows):
        typer.echo(f"\nTake the best one with:  headsearch export {where} --rank 1 --out head.yaml", err=True)


@app.command(epilog="Example:  headsearch rank runs/digits --by probe --format csv > heads.csv")
def rank(
    run: Run,
    by: Annotated[
        RankBy, typer.Option(help="pareto: layers of (discrepancy, probe), then probe, then cost.")
    ] = RankBy.pareto,
    output: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.table,
) -> None:
    """Print the ranked heads of a run, with their gain over the control."""
    from headsearch.results import tables

    rows, records, labels = _rank(run, by)
    if output is TableFormat.table:
        _print_ranking(rows, records, labels)
    else:
        typer.echo(tables.rank_json(rows) if output is TableFormat.json else tables.rank_csv(rows))


@app.command(epilog="Example:  headsearch trials runs/digits --format json")
def trials(
    run: Run,
    output: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.table,
) -> None:
    """Print every trial of a run: state, head, seed, replicate, rungs, seconds, reason."""
    from headsearch.results import tables
    from headsearch.search.ledger import read_records

    records = read_records(run)
    if output is TableFormat.table:
        _console().print(tables.trial_table(records))
    else:
        typer.echo(tables.trial_json(records) if output is TableFormat.json else tables.trial_csv(records))


@app.command(epilog="Example:  headsearch export runs/digits --rank 1 --out head.yaml")
def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    rank: Annotated[int | None, typer.Option(min=1, help="Position in the ranking. Default: 1.")] = None,
    head: Annotated[str | None, typer.Option(help="A head_id instead of a position.")] = None,
) -> None:
    """Write the chosen head, its base, its scores and where they come from to a head.yaml."""
    from headsearch.export import export_head

    if rank is not None and head is not None:
        raise RunError("--rank and --head exclude each other; give one")
    exported = export_head(run, out, rank=rank or 1, head_id=head)
    typer.echo(f"{out}: {exported.head_id}", err=True)


@app.command(epilog="Example:  headsearch init my-search && cd my-search && headsearch run experiment.yaml")
def init(folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write.")] = Path()) -> None:
    """Write a commented experiment and space to start from."""
    templates = Path(__file__).parent / "templates"
    names = ("experiment.yaml", "space.yaml")
    for name in names:
        if (folder / name).exists():
            raise RunError(f"{folder / name}: exists already; remove it or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_text((templates / name).read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror}") from None
    typer.echo(
        f"wrote {folder / names[0]} and {folder / names[1]}; edit them, then:  headsearch run {names[0]}",
        err=True,
    )


@app.command()
def doctor(
    output: Annotated[ReportFormat, typer.Option("--format", help="How to print.")] = ReportFormat.table,
) -> None:
    """Tell versions, devices and storage, and what would be slow and why."""
    import json

    from rich.table import Table

    from headsearch.doctor import examine, report

    findings = examine(Path("runs"))
    if output is ReportFormat.json:
        typer.echo(json.dumps(report(findings), indent=2))
        return
    table = Table("", "topic", "finding", box=None)
    for finding in findings:
        table.add_row(
            {"ok": "ok", "slow": "slow", "wrong": "WRONG"}[finding.level], finding.topic, finding.text
        )
    _console().print(table)


def _rank(run: Path, by: RankBy) -> tuple[list[RankRow], list[TrialRecord], bool]:
    """The ranking of a run, the trials behind it, and whether they were probed with labels."""
    from headsearch.results.ranking import rank as rank_heads
    from headsearch.run_directory import RunDirectory
    from headsearch.search.ledger import read_records

    labels = RunDirectory.open(run).experiment().data.labels == "probe"
    records = read_records(run)
    return rank_heads(records, by=by.value, labels=labels), records, labels


def _print_ranking(rows: list[RankRow], records: list[TrialRecord], labels: bool) -> None:
    from headsearch.results import tables
    from headsearch.results.ranking import heads_tried
    from headsearch.results.statistics import verdict

    console = _console()
    console.print(tables.rank_table(rows, labels=labels))
    console.print(verdict(rows, tried=heads_tried(records)), markup=False)


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    # A table in a pipe is cut to 80 columns otherwise, whatever it holds.
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, 120))


def main() -> NoReturn:
    """The entry point: bad input is one line on stderr and exit code 2."""
    from typer.exceptions import TyperException

    try:
        code: Any = app(standalone_mode=False)
    except UserError as error:
        _leave(str(error), 2)
    except TyperException as error:
        _leave(error.format_message(), 2)
    except HeadsearchError as error:
        _leave(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _leave("interrupted", 130)
    except BrokenPipeError:
        # The reader of a pipe has gone (`headsearch rank RUN | head`): nothing is wrong.
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def _leave(message: str, code: int) -> NoReturn:
    typer.echo(f"headsearch: {' '.join(message.split())}", err=True)
    sys.exit(code)
