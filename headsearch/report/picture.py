"""A picture of a head, drawn in HTML: its blocks in the order in which the feature map passes through them."""

from __future__ import annotations

from dash import html
from dash.development.base_component import Component

from headsearch.base.info import BaseInfo
from headsearch.heads.config import HeadConfig, Scalar, Stage
from headsearch.heads.registry import declared
from headsearch.report.palette import family_styles
from headsearch.report.parts import aria


def picture(config: HeadConfig, base: BaseInfo | None) -> Component:
    """Boxes from the base's feature map to the head's embedding. An arc over a box is its shortcut. A set has one picture per member."""
    if config.members:
        return html.Div([picture(member, base) for member in config.members])
    shape = "" if base is None else f"{base.width} × {base.grid[0]} × {base.grid[1]}"
    boxes = [_end("Base", base.model if base is not None else "feature map", shape)]
    for stage in config.stages:
        colour = family_styles([stage.family])[stage.family][0]
        boxes += [_block(stage, index, colour) for index in range(_depth(stage))]
    boxes.append(_end("Embedding", "mean, LayerNorm", "" if base is None else str(base.width)))
    return html.Ol(boxes, className="picture", **aria(label=_described(config)))


def _described(config: HeadConfig) -> str:
    if not config.stages:
        return "No head: the base alone"
    stages = [f"{_depth(stage)} {stage.family} blocks{_cut(stage)}" for stage in config.stages]
    return f"The base's feature map passes through {', then '.join(stages)}; its mean is the head's embedding"


def _cut(stage: Stage) -> str:
    return "" if stage.params.get("first_shortcut", True) else ", the first without a shortcut"


def _end(title: str, text: str, shape: str) -> Component:
    lines = [html.Strong(title), html.Span(text), *([html.Span(shape, className="shape")] if shape else [])]
    return html.Li(lines, className="end")


def _block(stage: Stage, index: int, colour: str) -> Component:
    shortcut = index > 0 or bool(stage.params.get("first_shortcut", True))
    told = [
        html.Span(f"{name.replace('_', ' ')} {shown(value)}")
        for name, value in stage.params.items()
        if name not in ("depth", "first_shortcut") and _telling(stage.family, name, value)
    ]
    told.append(html.Span("shortcut" if shortcut else "no shortcut", className="" if shortcut else "cut"))
    return html.Li(
        [html.Strong(stage.family), *told],
        className="block shortcut" if shortcut else "block",
        style={"borderTopColor": colour},
    )


def _telling(family: str, name: str, value: Scalar) -> bool:
    """Whether a parameter deserves a line in a small box: it is part of the head's name, or not at its default."""
    parameter = declared(family).get(name)
    return parameter is None or parameter.slug is not None or value != parameter.default


def _depth(stage: Stage) -> int:
    return int(stage.params.get("depth", 1) or 0)


def shown(value: object) -> str:
    """A value of a config as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
