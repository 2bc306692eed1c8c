"""`headsearch space …`: look at, count, sample, check a space, and print the JSON Schema for editors.

What needs no base needs no torch and answers at once; `--base` builds the model once, to compare heads with it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headsearch.commands import common
from headsearch.errors import SpaceError

if TYPE_CHECKING:
    from random import Random

    from headsearch.base.info import BaseInfo
    from headsearch.heads import Candidate, HeadConfig
    from headsearch.space import CostFunction, Space


COUNT_LIMIT = 20_000
"""Descriptions up to which heads are enumerated, to count distinct and allowed ones."""
TRIES_PER_SAMPLE = 200

space_app = typer.Typer(
    help="Inspect a search space: a YAML file, or a shipped name (tiny, paper, metaformer, sets, knobs, claims).",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

SpaceArgument = Annotated[
    str, typer.Argument(metavar="SPACE", help="A YAML file or the name of a shipped space.")
]
FormatOption = Annotated[Literal["text", "json"], typer.Option("--format", help="Output format.")]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="timm model, or my_models.py:build, to check constraints against. Imports torch.",
    ),
]
SizeOption = Annotated[
    int, typer.Option("--image-size", min=1, help="Side of the input image in pixels, for --base.")
]


@space_app.command(epilog="Example:  headsearch space show paper")
def show(space: SpaceArgument, plugins: common.PluginOption = None, output: FormatOption = "text") -> None:
    """Print the heads, their domains and the constraints as a tree."""
    from headsearch.space.loading import load_space

    loaded = load_space(space)
    if output == "json":
        from headsearch.space.tree import node_data

        _print_json(
            _summary(loaded)
            | {
                "head": node_data(loaded.head),
                "constraints": [constraint.text for constraint in loaded.constraints],
            }
        )
        return
    from rich.console import Console

    from headsearch.space.show import space_tree

    Console().print(space_tree(loaded))


@space_app.command(epilog="Example:  headsearch space count paper --base vit_small_patch16_224")
def count(
    space: SpaceArgument,
    base: BaseOption = None,
    image_size: SizeOption = 224,
    plugins: common.PluginOption = None,
    output: FormatOption = "text",
) -> None:
    """Count the heads: descriptions by formula; different networks, and those that the constraints allow, by enumeration."""
    loaded, info, cost_function, unchecked = _read(space, base, image_size)
    total = loaded.count()
    distinct: int | None = None
    allowed: int | None = None
    if total is not None and total <= COUNT_LIMIT:
        distinct, checked = _tally(loaded, info, cost_function)
        allowed = None if unchecked else checked
    if output == "json":
        _print_json(_summary(loaded) | {"distinct": distinct, "allowed": allowed, "unchecked": unchecked})
        return
    unknown = "infinite" if total is None else f"unknown: not counted beyond {COUNT_LIMIT} descriptions"
    typer.echo(f"descriptions  {'infinite' if total is None else total}")
    typer.echo(f"distinct      {unknown if distinct is None else distinct}")
    unknown = "unknown without --base MODEL" if unchecked else unknown
    typer.echo(f"allowed       {unknown if allowed is None else allowed}")


@space_app.command(epilog="Example:  headsearch space sample tiny -n 3 --seed 1 --format json")
def sample(
    space: SpaceArgument,
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, max=100_000, help="How many heads to draw.")
    ] = 5,
    seed: Annotated[int, typer.Option(help="The same seed draws the same heads.")] = 0,
    base: BaseOption = None,
    image_size: SizeOption = 224,
    plugins: common.PluginOption = None,
    output: FormatOption = "text",
) -> None:
    """Draw random heads that the constraints allow. A head may come up more than once."""
    import random

    loaded, info, cost_function, _ = _read(space, base, image_size)
    heads = _draw(loaded, number, random.Random(seed), info, cost_function)
    if output == "json":
        _print_json([{"head_id": head.head_id, "config": head.config.to_dict()} for head in heads])
        return
    for head in heads:
        typer.echo(f"{head.head_id}  {json.dumps(head.config.to_dict())}")


@space_app.command(
    epilog="Example:  headsearch space validate my_space.yaml --base resnet50 --image-size 224"
)
def validate(
    space: SpaceArgument,
    base: BaseOption = None,
    image_size: SizeOption = 224,
    plugins: common.PluginOption = None,
    output: FormatOption = "text",
) -> None:
    """Check a space: every key and value, and that the constraints allow at least one head."""
    from headsearch.results.text import counted

    loaded, info, cost_function, unchecked = _read(space, base, image_size)
    loaded.validate(info, cost_function)
    if output == "json":
        _print_json(_summary(loaded) | {"valid": True, "unchecked": unchecked})
        return
    total = loaded.count()
    size = "infinitely many" if total is None else str(total)
    typer.echo(
        f"{loaded.name}: valid, {size} descriptions, {counted(len(loaded.constraints), 'constraint')}, hash {loaded.hash}"
    )


@space_app.command(
    epilog="Example:  headsearch space schema --plugin my_heads.py > headsearch-space.schema.json"
)
def schema(plugins: common.PluginOption = None) -> None:
    """Print the JSON Schema of space files, for completion and checks in an editor."""
    from headsearch.space.schema import json_schema

    _print_json(json_schema())


def _summary(space: Space) -> dict[str, Any]:
    return {
        "space": space.name,
        "doc": space.doc,
        "hash": space.hash,
        "finite": space.is_finite,
        "descriptions": space.count(),
    }


def _read(
    name: str, model: str | None, image_size: int
) -> tuple[Space, BaseInfo | None, CostFunction | None, list[str]]:
    """The space, what its heads are compared with, and the constraints that go unchecked without a base, which is said on stderr."""
    from headsearch.space.loading import load_space

    space, base, cost_function = load_space(name), None, None
    if model is not None:
        from headsearch.base.model import load_base
        from headsearch.scoring.cost import head_cost

        base, cost_function = load_base(model, image_size=image_size, channels=None).info, head_cost
    unchecked = [constraint.text for constraint in space.unchecked(base, cost_function)]
    if unchecked:
        typer.echo(f"not checked without --base MODEL: {'; '.join(unchecked)}", err=True)
    return space, base, cost_function, unchecked


def _tally(space: Space, base: BaseInfo | None, cost_function: CostFunction | None) -> tuple[int, int]:
    """Number of different networks, and of those that constraints and base allow."""
    from headsearch.heads import canonical_or_none

    distinct: set[HeadConfig] = set()
    allowed: set[HeadConfig] = set()
    for config in space.enumerate():
        head = canonical_or_none(config, base) or canonical_or_none(config)
        if head is None:
            continue
        if head not in distinct and not isinstance(space.judge(config, base, cost_function), str):
            allowed.add(head)
        distinct.add(head)
    return len(distinct), len(allowed)


def _draw(
    space: Space, number: int, rng: Random, base: BaseInfo | None, cost_function: CostFunction | None
) -> list[Candidate]:
    """`number` random heads that constraints and base allow."""
    heads: list[Candidate] = []
    reason = ""
    for _ in range(number * TRIES_PER_SAMPLE):
        judged = space.judge(space.sample(rng), base, cost_function)
        if isinstance(judged, str):
            reason = judged
            continue
        heads.append(judged)
        if len(heads) == number:
            return heads
    raise SpaceError(
        f"{space.where}: {number * TRIES_PER_SAMPLE} draws gave {len(heads)} allowed heads, the last refused by '{reason}'; "
        f"expected {number}"
    )


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2))
