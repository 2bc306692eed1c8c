"""`evaluate`: what weights are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from headsearch.commands.common import ReportFormat, console
from headsearch.errors import ExperimentError, RunError

app = typer.Typer()


@app.command(
    epilog="Examples:  headsearch evaluate runs/with-head runs/without   |   "
    "headsearch evaluate random my.safetensors --base resnet18 --data ~/images --probes knn,linear,finetune"
)
def evaluate(
    weights: Annotated[
        list[str],
        typer.Argument(
            metavar="WEIGHTS...",
            help="A file of weights, a pretraining directory, `random` or `pretrained`; others are compared with the first.",
        ),
    ],
    base: Annotated[
        str | None, typer.Option(help="timm model. Default: what a pretraining directory says.")
    ] = None,
    base_kwargs: Annotated[
        str | None, typer.Option(metavar="JSON", help="Keywords of the model, e.g. '{\"img_size\": 64}'.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A data set's name, a folder, or an .npz file. Default: that of a pretraining directory."
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Pixels. Default: the pretraining's, else the model's own.")
    ] = None,
    probes: Annotated[
        str | None,
        typer.Option(help="Of knn, linear, few-shot, finetune, segmentation, detection; with commas."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Repetitions of what is random.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any key.")
    ] = None,
    output: Annotated[ReportFormat, typer.Option("--format", help="How to print.")] = ReportFormat.table,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file too.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Probe weights of a base: k-NN, linear, few labels, fine-tuning, segmentation, detection; with intervals, side by side."""
    from headsearch.data.names import data_named
    from headsearch.evaluation.spec import evaluation_spec

    options: dict[str, Any] = {
        "base": given(model=base, kwargs=_keywords(base_kwargs)),
        "data": given(**({} if data is None else data_named(data)), image_size=image_size),
        **given(probes=listed(probes), seeds=seeds),
    }
    spec = evaluation_spec(options, overrides or [])
    from headsearch.evaluation.evaluate import evaluate as run
    from headsearch.evaluation.result import check_lines, evaluation_table
    from headsearch.run_directory import write_atomically

    if out is not None and not out.parent.is_dir():
        raise RunError(f"{out}: no folder '{out.parent}'")
    found = run(spec, weights, tell=teller(quiet))
    if out is not None:
        try:
            write_atomically(out, found.to_json() + "\n")
        except OSError as error:
            raise RunError(f"{out}: cannot be written: {error.strerror}") from None
    if output is ReportFormat.json:
        typer.echo(found.to_json())
        return
    if found.rows:
        console().print(evaluation_table(found))
    for line in check_lines(found.checks):
        console().print(line, markup=False)


def given(**options: Any) -> dict[str, Any]:
    """Those options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def listed(text: str | None) -> list[str] | None:
    """A list written with commas."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def teller(quiet: bool) -> Any:
    """What prints progress on stderr, a line at a time."""
    return (lambda _: None) if quiet else (lambda line: typer.echo(line, err=True))


def _keywords(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        keywords = json.loads(text)
    except json.JSONDecodeError as error:
        raise ExperimentError(f"--base-kwargs: not valid JSON: {error}") from None
    if not isinstance(keywords, dict):
        raise ExperimentError(f"--base-kwargs: expected a JSON object, got {text}")
    return keywords
