"""`space score`: order the heads of a space without training any."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from headsearch.commands import common
from headsearch.commands.space import SpaceArgument
from headsearch.errors import SpaceError, did_you_mean

_SECONDS_PER_LINE = 10.0

app = typer.Typer()


@app.command(
    epilog="Examples:  headsearch space score paper --experiment digits -n 200   |   "
    "headsearch space score my_space.yaml --base vit_small_patch16_224 --data ~/images --format csv > heads.csv"
)
def score(
    space: SpaceArgument,
    base: common.SearchedBase = None,
    data: common.SearchedData = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            help="An experiment file or a shipped name to take base and images from. Default: digits, or, with --data, "
            "the defaults."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override any key, e.g. base.kwargs or data.image_size."
        ),
    ] = None,
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, max=100_000, help="How many distinct heads to score.")
    ] = 1000,
    seed: Annotated[
        int, typer.Option(help="Seed of the draw. The experiment's seed decides the initialisations.")
    ] = 0,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Number of random initialisations to average over.")
    ] = 3,
    images: Annotated[int, typer.Option(min=4, help="Maximum number of held-out images.")] = 256,
    by: Annotated[
        str,
        typer.Option(
            help="Order by score, retrieval.head, rankme_head, synflow, naswot, or a discrepancy such as cka.tokens.output."
        ),
    ] = "score",
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Also compute synflow and NASWOT, for comparison. On with --by synflow or naswot.",
        ),
    ] = False,
    plugins: common.PluginOption = None,
    output: common.TableOutput = "table",
    out: Annotated[
        Path | None,
        typer.Option(help="A JSON-lines file for the scores. If it exists, its heads are not scored again."),
    ] = None,
) -> None:
    """Score heads at random initialisation: how much they differ from the base, and how good they are. Needs no labels and no training."""
    from headsearch.data.names import check_data
    from headsearch.experiment import load_experiment, shorthand
    from headsearch.results import tables
    from headsearch.scoring.zero_cost_scores import BASELINES, ORDERS, ordered
    from headsearch.space.loading import load_space

    if by not in ORDERS:
        raise SpaceError(f"--by: no score '{by}'{did_you_mean(by, ORDERS)}")
    resolved = load_experiment(
        experiment if experiment is not None or data is not None else "digits",
        [*shorthand(base, data), *(overrides or [])],
        plugins=plugins or [],
    )
    loaded = load_space(space)
    loaded.expect_single_heads("scoring at random initialisation")
    check_data(resolved.data.dataset, resolved.data.root)

    from headsearch.search.zero_cost import ZeroCostScorer, score_space

    scorer = ZeroCostScorer(resolved, seeds=seeds, images=images, baselines=baselines or by in BASELINES)
    with _progress() as tell:
        # Nothing is trained: only what is left out is worth a line.
        for line in scorer.data[1:]:
            typer.echo(line, err=True)
        rows = score_space(loaded, scorer, number=number, seed=seed, path=out, progress=tell)
    if len(rows) < number:
        typer.echo(f"{loaded.name} has {len(rows)} distinct heads that are allowed on this base", err=True)
    rows = ordered(rows, by)
    if output == "table":
        common.console().print(tables.zero_cost_table(rows))
    else:
        typer.echo(tables.zero_cost_text(rows, output))


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """On stderr: a bar on a terminal, a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    stderr = Console(stderr=True)
    told = time.monotonic()
    with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as bars:
        bar = bars.add_task("reading images, running the base", total=None)

        def tell(done: int, total: int) -> None:
            nonlocal told
            bars.update(bar, description="heads", completed=done, total=total)
            if not stderr.is_terminal and time.monotonic() - told > _SECONDS_PER_LINE:
                typer.echo(f"{done} of {total} heads scored", err=True)
                told = time.monotonic()

        yield tell
