"""Writes components as plain HTML, for pages that open without a server. Figures are embedded as data, which `report.js` draws."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dash.development.base_component import Component

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
_NAMES = {
    "className": "class",
    "htmlFor": "for",
    "colSpan": "colspan",
    "rowSpan": "rowspan",
    "tabIndex": "tabindex",
}

_DEMOTED = {"h1": "h2", "h2": "h3", "h3": "h4"}


def to_html(node: object, *, demote: bool = False) -> str:
    """The markup of a component, of text, or of a list of them. All text is escaped.

    Args:
        node: what to write.
        demote: whether headings go down one level, for a view among several on one page.

    Raises:
        TypeError: a component that only a server can serve.
    """
    return "".join(_pieces(node, demote))


def script_json(data: str) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    return data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _pieces(node: object, demote: bool) -> Iterator[str]:
    if node is None:
        return
    if isinstance(node, str | int | float):
        yield html.escape(str(node))
        return
    if isinstance(node, list | tuple):
        for child in node:
            yield from _pieces(child, demote)
        return
    if not isinstance(node, Component):
        raise TypeError(f"cannot be written as HTML: {type(node).__name__}")
    plain: dict[str, Any] = node.to_plotly_json()  # type: ignore[no-untyped-call]
    props = dict(plain["props"])
    if plain["namespace"] == "dash_html_components":
        tag = plain["type"].lower()
        yield from _element(_DEMOTED.get(tag, tag) if demote else tag, props, demote)
    elif plain["type"] == "Graph":
        yield from _graph(props)
    else:
        raise TypeError(f"cannot be written as HTML: {plain['type']}")


def _element(tag: str, props: dict[str, Any], demote: bool) -> Iterator[str]:
    children = props.pop("children", None)
    yield f"<{tag}{''.join(_attributes(props))}>"
    if tag not in _VOID:
        yield from _pieces(children, demote)
        yield f"</{tag}>"


def _attributes(props: Mapping[str, Any]) -> Iterator[str]:
    for name, value in props.items():
        if value is None or value is False or value == "":
            continue
        text = _style(value) if name == "style" else "" if value is True else str(value)
        yield f' {_NAMES.get(name, name)}="{html.escape(text)}"'


def _style(style: Mapping[str, Any]) -> str:
    return ";".join(
        f"{re.sub('[A-Z]', lambda m: '-' + m[0].lower(), name)}:{value}" for name, value in style.items()
    )


def _graph(props: Mapping[str, Any]) -> Iterator[str]:
    drawn = {"data": [], "layout": {}, **props["figure"].to_plotly_json(), "config": props["config"]}
    text = script_json(json.dumps(drawn, separators=(",", ":"), allow_nan=False, default=list))
    style = html.escape(_style(props.get("style", {})))
    yield f'<div class="plot" style="{style}"><script type="application/json">{text}</script></div>'
