"""`run`, `init` and `doctor`: starting a search."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from headsearch.commands.common import (
    Overrides,
    PluginOption,
    ReportOutput,
    console,
    print_ranking,
    resume_line,
)
from headsearch.errors import RunError
from headsearch.files import read_text, write_result
from headsearch.signals import exit_code

app = typer.Typer()


@app.command(
    epilog="Examples:  headsearch run   |   headsearch run --base resnet18 --data ~/images --set data.image_size=64   |   "
    "headsearch run --data ~/images --budget '2 h' --out runs/try   |   headsearch run my.yaml --dry-run   |   headsearch run my.yaml --resume"
)
def run(
    experiment: Annotated[
        str | None,
        typer.Argument(
            help="An experiment file or a shipped name. Default: digits, or, with --data, the defaults."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory. Default: runs/<name>.")] = None,
    overrides: Overrides = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="timm model, or a factory of yours, my_models.py:build; the same as --set base.model=..."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder of images, an .npz file, or a data set's name; the same as --set data.dataset=... and data.root."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Budget of the funnel: a number of proxies (24) or a time ('2 h', '90 min'); the same as --set search.budget=..."
        ),
    ] = None,
    plugins: PluginOption = None,
    resume: Annotated[
        bool, typer.Option(help="Continue an interrupted run, or extend a finished one.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show what the search would do and how long it would take. Begins no run; decoded images may go into data.cache.",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress, only the ranked table.")
    ] = False,
) -> None:
    """Search for heads: train the base with each head on a short schedule, and rank the heads."""
    from headsearch.commands.plan import print_plan
    from headsearch.commands.progress import progress_display
    from headsearch.experiment import load_experiment, shorthand
    from headsearch.runs.reading import read_run
    from headsearch.search import session

    given = shorthand(base, data)
    given += [] if budget is None else [f"search.budget={budget}"]
    given += overrides or []
    source = experiment if experiment is not None or data is not None else "digits"
    spec = load_experiment(source, given, plugins=plugins or [])
    where = out or Path("runs") / spec.name
    if dry_run:
        with progress_display(quiet=quiet) as display:
            plan = session.dry_run(spec, where, resume=resume, observer=display)
        print_plan(plan)
        return
    try:
        with progress_display(quiet=quiet) as display:
            session.run_search(spec, where, resume=resume, observer=display)
    except KeyboardInterrupt:
        if not where.exists():
            raise
        words = [experiment] if experiment else []
        hint = resume_line("run", *words, plugin=plugins, overrides=given, out=where)
        typer.echo(f"headsearch: interrupted; everything finished is safe. Resume with:  {hint}", err=True)
        raise typer.Exit(exit_code()) from None
    found = read_run(where)
    print_ranking(found, found.rows)
    if found.ranked:
        typer.echo(
            f"\nTake the best one with:  headsearch export {shlex.quote(str(where))} --rank 1 --out head.yaml",
            err=True,
        )


@app.command(epilog="Example:  headsearch init my-search && cd my-search && headsearch run experiment.yaml")
def init(folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write.")] = Path()) -> None:
    """Write a commented experiment and space to start from."""
    templates = Path(__file__).parent.parent / "templates"
    names = ("experiment.yaml", "space.yaml")
    for name in names:
        if (folder / name).exists():
            raise RunError(f"{folder / name}: exists already; remove it or choose another folder")
    for name in names:
        write_result(folder / name, read_text(templates / name, RunError))
    typer.echo(
        f"wrote {folder / names[0]} and {folder / names[1]}; edit them, then:  headsearch run {shlex.quote(str(folder / names[0]))}",
        err=True,
    )


@app.command()
def doctor(output: ReportOutput = "table") -> None:
    """Report versions, devices and storage, and what would be slow and why."""
    import json

    from rich.table import Table

    from headsearch.commands.doctor import examine, report

    findings = examine(Path("runs"))
    if output == "json":
        typer.echo(json.dumps(report(findings), indent=2))
        return
    table = Table("", "topic", "finding", box=None)
    for finding in findings:
        table.add_row(
            {"ok": "ok", "slow": "slow", "wrong": "WRONG"}[finding.level], finding.topic, finding.text
        )
    console().print(table)
