"""`pretrain`: the full schedule with a head."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from headsearch.commands import common

app = typer.Typer()


@app.command(
    epilog="Examples:  headsearch pretrain head.yaml --data path/to/images --out improved   |   "
    "headsearch pretrain --base resnet50 --head '{convnext: {depth: 3}}' --data path/to/images --out improved   |   "
    "torchrun --nproc-per-node 8 -m headsearch pretrain head.yaml --data path/to/images --out improved "
    "--set recipe.epochs=300 --set recipe.batch_size=2048   |   headsearch pretrain head.yaml --data digits --out control --no-head"
)
def pretrain(
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    file: Annotated[
        str | None, typer.Argument(metavar="[HEAD]", help="A head.yaml, as written by headsearch export.")
    ] = None,
    described: Annotated[
        str | None,
        typer.Option(
            "--head",
            metavar="HEAD",
            help="The head, if no search has chosen one; "
            "needs --base. A description such as '{convnext: {depth: 3}}', a family, paper, or a head.yaml.",
        ),
    ] = None,
    base: common.BaseOption = None,
    data: common.PretrainingData = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override any key, e.g. recipe.epochs=100."),
    ] = None,
    plugins: common.PluginOption = None,
    resume: Annotated[bool, typer.Option(help="Continue from the newest checkpoint in --out.")] = False,
    without_head: Annotated[
        bool, typer.Option("--no-head", help="Train the control: the same without a head.")
    ] = False,
    quiet: common.Quiet = False,
) -> None:
    """Pretrain the base with a head on the full schedule, and write weights that timm can load."""
    from headsearch.errors import ExperimentError, RankLost, UserError
    from headsearch.pretrain import pretrain as run_pretraining
    from headsearch.pretrain.chosen import pretraining_of
    from headsearch.pretrain.display import pretrain_display
    from headsearch.pretrain.result import PretrainInterrupted

    first = os.environ.get("RANK", "0") == "0"
    try:
        if file is not None and described is not None:
            raise ExperimentError(f"--head: two heads, {file} and {described}; expected one")
        spec = pretraining_of(
            file if described is None else described,
            base=None if base is None else {"model": base},
            data=data,
            overrides=overrides or [],
            plugins=plugins or [],
            without_head=without_head,
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
            words = [*([] if file is None else [file]), *(["--no-head"] if without_head else [])]
            given = {"head": described, "base": base, "plugin": plugins, "out": out, "data": data}
            line = common.resume_line("pretrain", *words, overrides=overrides, **given)
            typer.echo(f"headsearch: {ended}. Resume with:  {line}", err=True)
        raise typer.Exit(128 + ended.signal if isinstance(ended, PretrainInterrupted) else 1) from None
    if first:
        accuracy = "" if result.knn is None else f", k-NN {result.knn:.1f} %"
        typer.echo(
            f"{result.weights}: loss {result.loss:.4f}{accuracy}, {result.images_per_second:,.0f} images/s; {out / 'README.md'} says how to load it",
            err=True,
        )
