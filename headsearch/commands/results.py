"""`rank`, `trials` and `export`: what came out of a search. They answer at once: no torch, no Optuna."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headsearch.commands.common import (
    RankBy,
    RunPath,
    TableOutput,
    console,
    print_ranking,
    tell_problems,
)
from headsearch.errors import RunError

app = typer.Typer()


@app.command(epilog="Example:  headsearch rank runs/digits --by probe --format csv > heads.csv")
def rank(
    run: RunPath,
    by: Annotated[
        RankBy | None,
        typer.Option(
            help="score (the default): the label-free score, joined by the probe where trainings are long enough; pareto: layers of "
            "(discrepancy, probe), then probe; probe, discrepancy: that alone."
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Also list the heads that earlier stages dropped, with the stage and the reason."
        ),
    ] = False,
    output: TableOutput = "table",
) -> None:
    """Print the ranked heads of a run, with their gain over the control."""
    from headsearch.results import tables
    from headsearch.runs.reading import read_run

    found = read_run(run)
    tell_problems(found)
    ranking = found.ranking(by.value if by else None)
    departed = found.departed if everything else ()
    if output == "table":
        print_ranking(found, ranking)
        if departed:
            console().print()
            console().print(tables.departure_table(departed))
        return
    rows = [*ranking, *departed]
    typer.echo(tables.rank_text(rows, output))


@app.command(epilog="Example:  headsearch trials runs/digits --format json")
def trials(run: RunPath, output: TableOutput = "table") -> None:
    """Print every trial of a run: state, head, seed, replicate, rungs, seconds, reason."""
    from headsearch.results import tables
    from headsearch.runs.reading import read_run

    found = read_run(run)
    tell_problems(found)
    if output == "table":
        console().print(tables.trial_table(found.records))
    else:
        typer.echo(tables.trial_text(found.records, output))


@app.command(epilog="Example:  headsearch export runs/digits --rank 1 --out head.yaml")
def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    rank: Annotated[int | None, typer.Option(min=1, help="Position in the ranking. Default: 1.")] = None,
    head: Annotated[str | None, typer.Option(help="A head_id instead of a position.")] = None,
) -> None:
    """Write the chosen head, its base, its scores and their provenance to a head.yaml."""
    from headsearch.export import export_head
    from headsearch.runs.reading import read_run

    if rank is not None and head is not None:
        raise RunError("--rank and --head exclude each other; give one")
    found = read_run(run)
    tell_problems(found)
    exported = export_head(found, out, rank=rank or 1, head_id=head)
    typer.echo(f"{out}: {exported.head_id}", err=True)
