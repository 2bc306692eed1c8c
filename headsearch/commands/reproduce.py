"""`reproduce`: does what a paper claims hold on one's own base and images?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headsearch.commands import common

reproduce_app = typer.Typer(
    help="Test the claims of a paper on your own base and images, with verdicts.", no_args_is_help=True
)


@reproduce_app.callback()
def _papers() -> None:
    # Keeps the name of the paper in the command while there is one.
    pass


@reproduce_app.command(
    epilog="Examples:  headsearch reproduce paper   |   headsearch reproduce paper --seeds 2 --epochs 10 --out runs/quick   |   "
    "headsearch reproduce paper --base resnet18 --data ~/images --set data.image_size=64"
)
def paper(
    base: Annotated[str | None, typer.Option(help="timm model. Default: the tiny ViT of digits.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A folder of class folders, an .npz file, or a data set's name. Default: digits."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("runs/paper"),
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds of every head and control.")] = 3,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs of a proxy and of the screen; the same as --set proxy.epochs=..."),
    ] = None,
    overrides: common.Overrides = None,
    output: common.ReportOutput = "table",
    resume: Annotated[
        bool, typer.Option(help="Continue the reproduction in --out. You may raise --seeds.")
    ] = False,
    quiet: common.Quiet = False,
) -> None:
    """Heterogeneous self-supervised learning: do heads of another architecture help, more so the more they differ, and does the search find them?"""
    from headsearch.reproduction.plan import make_plan

    plan = make_plan(base=base, data=data, seeds=seeds, epochs=epochs, overrides=overrides or [])
    from headsearch.commands.progress import progress_display
    from headsearch.reproduction.reproduce import reproduce

    given = {"out": out, "seeds": seeds, "base": base, "data": data, "epochs": epochs}
    with common.saying_how_to_resume(
        out, common.resume_line("reproduce", "paper", overrides=overrides, **given)
    ):
        report = reproduce(
            plan, out, resume=resume, display=lambda: progress_display(quiet=quiet), tell=common.teller(quiet)
        )
    if output == "json":
        typer.echo(report.to_json())
        return
    screen = common.console()
    screen.print(report.heads_table())
    for claim in report.claims.claims:
        screen.print(f"\n[bold]{claim.verdict}[/bold]: ", end="")
        screen.print(f"{claim.claim}.", markup=False)
        screen.print(report.claim_table(claim))
    typer.echo(f"\n{out / 'README.md'} is the report, {out / 'claims.json'} holds all figures", err=True)
