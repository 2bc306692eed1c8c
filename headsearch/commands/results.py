"""`rank`, `trials`, `audit` and `export`: what came out of a search. They answer at once: no torch, no Optuna; `audit` takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from headsearch.commands import common
from headsearch.errors import RunError

app = typer.Typer()


@app.command(epilog="Example:  headsearch rank runs/digits --by probe --format csv > heads.csv")
def rank(
    run: common.RunPath,
    by: Annotated[
        Literal["score", "pareto", "probe", "discrepancy"] | None,
        typer.Option(
            help="score (the default): the label-free score, with the probe if trainings are long enough; pareto: layers of "
            "(discrepancy, probe), then probe; probe, discrepancy: that one, then the other."
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Also list the heads that earlier stages dropped, with the stage and the reason."
        ),
    ] = False,
    output: common.TableOutput = "table",
) -> None:
    """Print the ranked heads of a run, with their gain over the control."""
    from headsearch.results import tables
    from headsearch.runs.run import read_run

    found = read_run(run)
    common.tell_problems(found)
    ranking = found.ranking(by)
    departed = found.departed if everything else ()
    if output == "table":
        common.print_ranking(found, ranking)
        if departed:
            common.console().print()
            common.console().print(tables.departure_table(departed))
        return
    rows = [*ranking, *departed]
    typer.echo(tables.rank_text(rows, output))


@app.command(epilog="Example:  headsearch trials runs/digits --format json")
def trials(run: common.RunPath, output: common.TableOutput = "table") -> None:
    """Print every trial of a run: state, head, seed, replicate, rungs, seconds, reason."""
    from headsearch.results import tables
    from headsearch.runs.run import read_run

    found = read_run(run)
    common.tell_problems(found)
    if output == "table":
        common.console().print(tables.trial_table(found.records))
    else:
        typer.echo(tables.trial_text(found.records, output))


@app.command(epilog="Example:  headsearch audit runs/digits --format json > audit.json")
def audit(run: common.RunPath, output: common.ReportOutput = "table") -> None:
    """Check how far the ranking of a run can be trusted, by comparing its stages, rungs, seeds and measures."""
    from headsearch.results.tables import audit_json, section_table
    from headsearch.runs.run import read_run

    held = read_run(run)
    common.tell_problems(held)
    found = held.audit
    if output == "json":
        typer.echo(audit_json(found))
        return
    out = common.console()
    for section in found.sections:
        out.print(f"[bold]{section.question}[/bold]")
        table = section_table(section)
        if table is not None:
            out.print(table)
        out.print(section.conclusion, markup=False)
        out.print()


@app.command(epilog="Example:  headsearch export runs/digits --rank 1 --out head.yaml")
def export(
    run: common.RunPath,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    rank: Annotated[int | None, typer.Option(min=1, help="Position in the ranking. Default: 1.")] = None,
    head: Annotated[
        str | None, typer.Option(help="A head_id, or the control same or mlp, instead of a position.")
    ] = None,
) -> None:
    """Write the chosen head, its base, its scores and their provenance to a head.yaml."""
    from headsearch.export import export_head
    from headsearch.runs.run import read_run

    if rank is not None and head is not None:
        raise RunError("--rank and --head exclude each other; give one")
    found = read_run(run)
    common.tell_problems(found)
    exported = export_head(found, out, rank=rank or 1, head_id=head)
    typer.echo(f"{out}: {exported.head_id}", err=True)
