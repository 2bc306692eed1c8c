"""`pretrain`: the full schedule with a chosen head."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from headsearch.commands.common import Quiet, resume_line

app = typer.Typer()


@app.command(
    epilog="Examples:  headsearch pretrain head.yaml --data path/to/images --out improved   |   "
    "torchrun --nproc-per-node 8 -m headsearch pretrain head.yaml --data path/to/images --out improved "
    "--set recipe.epochs=300 --set recipe.batch_size=2048   |   headsearch pretrain head.yaml --data digits --out control --no-head"
)
def pretrain(
    head: Annotated[
        Path, typer.Argument(metavar="HEAD", help="A head.yaml, as written by headsearch export.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder of images, an .npz file, or a data set's name. Default: the search's data set."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override any key, e.g. recipe.epochs=100."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue from the newest checkpoint in --out.")] = False,
    with_head: Annotated[
        bool, typer.Option("--head/--no-head", help="--no-head trains the control: the same without a head.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Pretrain the base with a chosen head on the full schedule, and write weights that timm can load."""
    from headsearch.errors import UserError
    from headsearch.export import read_head
    from headsearch.pretrain import PretrainSpec
    from headsearch.pretrain import pretrain as run_pretraining
    from headsearch.pretrain.display import pretrain_display
    from headsearch.pretrain.result import PretrainInterrupted, RankLost

    first = os.environ.get("RANK", "0") == "0"
    try:
        spec = PretrainSpec.from_head(
            read_head(head), data=data, overrides=overrides or [], without_head=not with_head
        )
        with pretrain_display(quiet=quiet or not first) as display:
            result = run_pretraining(spec, out, resume=resume, observer=display)
    except UserError:
        # Every rank finds the same mistake; one of them says so.
        if first:
            raise
        raise typer.Exit(2) from None
    except (PretrainInterrupted, RankLost) as ended:
        # The first rank may be the one that is lost.
        if first or (isinstance(ended, RankLost) and os.environ.get("RANK") == "1"):
            without = () if with_head else ("--no-head",)
            line = resume_line("pretrain", head, *without, out=out, data=data, overrides=overrides)
            typer.echo(f"headsearch: {ended}. Resume with:  {line}", err=True)
        raise typer.Exit(128 + ended.signal if isinstance(ended, PretrainInterrupted) else 1) from None
    if first:
        accuracy = "" if result.knn is None else f", k-NN {result.knn:.1f} %"
        typer.echo(
            f"{result.weights}: loss {result.loss:.4f}{accuracy}, {result.images_per_second:,.0f} images/s; {out / 'README.md'} says how to load it",
            err=True,
        )
