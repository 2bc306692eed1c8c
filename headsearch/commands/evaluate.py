"""`evaluate` and `compare`: what weights are worth, and whether a head is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from headsearch.commands import common
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
            help="A file of weights, a pretraining directory, `random` or `pretrained`. The others are compared with the first.",
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            help="timm model, or a factory of your own, my_models.py:build. Default: the pretraining directory's."
        ),
    ] = None,
    base_kwargs: Annotated[
        str | None, typer.Option(metavar="JSON", help="Keywords of the model, e.g. '{\"img_size\": 64}'.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A data set's name, a folder, or an .npz file. Default: the pretraining directory's."
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Side of the images in pixels. Default: the pretraining's, or else the model's own."
        ),
    ] = None,
    probes: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: knn, linear, few-shot, finetune, retrieval, label-free, segmentation, detection."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds for everything random.")] = None,
    overrides: common.Overrides = None,
    plugins: common.PluginOption = None,
    output: common.ReportOutput = "table",
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Also draw the label-free measures over the weights, as an HTML page in this file."
        ),
    ] = None,
    quiet: common.Quiet = False,
) -> None:
    """Probe several weights of a base side by side, with intervals: k-NN, linear, few labels, fine-tuning, segmentation, detection."""
    from headsearch.data.names import check_data, data_named
    from headsearch.evaluation.result import check_drawable, check_lines, evaluation_table, health_table
    from headsearch.evaluation.spec import evaluation_spec
    from headsearch.evaluation.weights import find_weights

    options: dict[str, Any] = {
        "base": given(model=base, kwargs=_keywords(base_kwargs)),
        "data": given(**({} if data is None else data_named(data)), image_size=image_size),
        **given(probes=probes, seeds=seeds),
    }
    spec = evaluation_spec(options, overrides or [])
    for file in (out, figure):
        if file is not None and not file.parent.is_dir():
            raise RunError(f"{file}: no folder '{file.parent}'")
    if figure is not None:
        check_drawable(spec, "--figure")
    for name in weights:
        find_weights(name)
    if spec.data.dataset is not None:
        check_data(spec.data.dataset, spec.data.root)
    from headsearch.evaluation.evaluate import evaluate as run
    from headsearch.files import write_result

    found = run(spec, weights, tell=common.teller(quiet))
    if out is not None:
        write_result(out, found.to_json() + "\n")
    if figure is not None:
        from headsearch.evaluation.health_page import health_page

        write_result(figure, health_page(found))
    if output == "json":
        typer.echo(found.to_json())
        return
    if found.rows:
        common.console().print(evaluation_table(found))
    if found.health:
        common.console().print(health_table(found.health))
    for each in found.health:
        common.console().print(f"{each.weights}: {each.verdict}", markup=False)
    for line in check_lines(found.checks):
        common.console().print(line, markup=False)


@app.command(
    epilog="Examples:  headsearch compare head.yaml --data ~/images --out compared --seeds 3 --set recipe.epochs=100   |   "
    "headsearch compare --base resnet50 --head paper --head '{mixer: {depth: 2}}' --data ~/images --out compared"
)
def compare(
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[HEAD]...", help="head.yaml files, as written by headsearch export."),
    ] = None,
    described: Annotated[
        list[str] | None,
        typer.Option(
            "--head",
            metavar="HEAD",
            help="A further head: a description such as '{convnext: {depth: 3}}', a family, or paper; on the base of the files, or on --base. "
            "May be given several times.",
        ),
    ] = None,
    base: common.BaseOption = None,
    data: common.PretrainingData = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds of every arm.")] = 3,
    budget: Annotated[
        Literal["epochs", "time"],
        typer.Option(
            help="What all arms have in common. With time, arms with a head train for fewer epochs."
        ),
    ] = "epochs",
    probes: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: knn, linear, few-shot, finetune, retrieval, segmentation, detection. The first decides the verdict."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a key of the pretraining or, with the prefix `evaluate.`, of the evaluation.",
        ),
    ] = None,
    plugins: common.PluginOption = None,
    resume: Annotated[bool, typer.Option(help="Continue the comparison in --out.")] = False,
    output: common.ReportOutput = "table",
    quiet: common.Quiet = False,
) -> None:
    """Pretrain with and without the heads, with several seeds each, evaluate all, and report whether a head is worth it."""
    from headsearch.comparison.plan import make_plan

    plan = make_plan(
        [*(files or []), *(described or [])],
        base=None if base is None else {"model": base},
        data=data,
        seeds=seeds,
        budget=budget,
        probes=probes,
        overrides=overrides or [],
        plugins=plugins or [],
    )
    from headsearch.comparison.compare import compare as run
    from headsearch.pretrain.display import pretrain_display
    from headsearch.pretrain.result import PretrainInterrupted

    try:
        comparison = run(
            plan, out, resume=resume, display=lambda: pretrain_display(quiet=quiet), tell=common.teller(quiet)
        )
    except PretrainInterrupted as interrupted:
        shared = None if budget == "epochs" else budget
        given = {"out": out, "seeds": seeds, "budget": shared, "data": data, "probes": probes}
        given |= {"head": described, "base": base, "plugin": plugins}
        line = common.resume_line("compare", *(files or []), overrides=overrides, **given)
        typer.echo(f"headsearch: {interrupted}. Resume with:  {line}", err=True)
        raise typer.Exit(128 + interrupted.signal) from None
    if output == "json":
        typer.echo(comparison.to_json())
        return
    common.console().print(comparison.to_table())
    common.console().print(comparison.verdict, markup=False)


def given(**options: Any) -> dict[str, Any]:
    """Those options that were given."""
    return {name: value for name, value in options.items() if value is not None}


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
