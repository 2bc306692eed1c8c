"""`run`, `init` and `doctor`: starting a search."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headsearch.commands import common
from headsearch.errors import RunError
from headsearch.files import read_text, write_result

if TYPE_CHECKING:
    from headsearch.search.plan import SearchPlan

app = typer.Typer()


@app.command(
    epilog="Examples:  headsearch run   |   headsearch run --base resnet18 --data ~/images --set data.image_size=64   |   "
    "headsearch run --data ~/images --budget '2 h' --out runs/try   |   headsearch run my.yaml --dry-run   |   headsearch run my.yaml --resume"
)
def run(
    experiment: Annotated[
        str | None,
        typer.Argument(
            help="An experiment file or a shipped name. Default: digits; with --data, only the defaults; with --resume and --out, that run's own."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory. Default: runs/<name>.")] = None,
    overrides: common.Overrides = None,
    base: common.SearchedBase = None,
    data: common.SearchedData = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Budget of the funnel: a number of proxies (24) or a time ('2 h', '90 min'); the same as --set search.budget=..."
        ),
    ] = None,
    plugins: common.PluginOption = None,
    resume: Annotated[
        bool, typer.Option(help="Continue an interrupted run, or extend a finished one.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show what the search would do and how long it would take. Starts no run, but may fill data.cache with images.",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress, only the ranked table.")
    ] = False,
) -> None:
    """Search for heads: train the base with each head on a short schedule, and rank the heads."""
    from headsearch.commands.progress import progress_display
    from headsearch.experiment import load_experiment, shorthand, unless_named
    from headsearch.runs.directory import RunDirectory
    from headsearch.runs.run import read_run
    from headsearch.search import session

    given = shorthand(base, data)
    given += [] if budget is None else [f"search.budget={budget}"]
    given += overrides or []
    source: str | Path | None = experiment
    if experiment is None:
        source = RunDirectory.open(out).experiment_path if resume and out else unless_named(data)
    if source == "digits" and experiment is None and Path("experiment.yaml").exists():
        typer.echo("headsearch: this is digits; for the file here:  headsearch run experiment.yaml", err=True)
    spec = load_experiment(source, given, plugins=plugins or [])
    where = out or Path("runs") / spec.name
    if dry_run:
        with progress_display(quiet=quiet) as display:
            plan = session.dry_run(spec, where, resume=resume, observer=display)
        _print_plan(plan)
        return
    words = [experiment] if experiment else []
    line = common.resume_line("run", *words, plugin=plugins, overrides=given, out=where)
    with common.saying_how_to_resume(where, line), progress_display(quiet=quiet) as display:
        session.run_search(spec, where, resume=resume, observer=display)
    found = read_run(where)
    common.print_ranking(found, found.rows)
    if found.ranked:
        typer.echo(
            f"\nTake the best one with:  headsearch export {shlex.quote(str(where))} --rank 1 --out head.yaml",
            err=True,
        )


def _print_plan(plan: SearchPlan) -> None:
    """The stages of a search as a table, then what it needs, on stdout."""
    from headsearch.commands.progress import STAGES
    from headsearch.results.tables import text_table
    from headsearch.results.text import counted, duration

    rows = []
    for stage in plan.stages:
        images = f"{stage.trainings * stage.epochs * plan.images:,}"
        rows.append(
            [STAGES[stage.name], str(stage.trainings), str(stage.epochs), images, duration(stage.seconds)]
        )
    out = common.console()
    out.print(text_table(["stage", "trainings", "epochs", "images", "time"], rows, words=("stage",)))
    lines = [
        f"about {duration(plan.seconds)} in all, {counted(plan.at_once, 'training')} at a time: "
        f"a proxy takes {duration(plan.seconds_per_proxy)} for {plan.images:,} images an epoch, by a few of its steps",
        f"disk: about {plan.checkpoint_bytes / 2**20:,.0f} MiB for each training at work; {plan.free_bytes / 2**30:,.1f} GiB are free",
    ]
    if plan.screen_bytes:
        lines.append(f"memory: a joint training needs about {plan.screen_bytes / 2**30:.1f} GiB")
    lines.append("nothing was trained, and no run was begun; run without --dry-run to start")
    for line in lines:
        out.print(line, markup=False)


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
def doctor(output: common.ReportOutput = "table") -> None:
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
    common.console().print(table)
