"""Finds and reads space files."""

from __future__ import annotations

import os
from pathlib import Path

from headsearch.document import ListNode, MapNode, Node, ScalarNode, describe, parse, refuse_another
from headsearch.errors import SpaceError, did_you_mean
from headsearch.files import read_text
from headsearch.shipped import shipped_folder, shipped_names
from headsearch.space.constraints import Constraint, parse_constraint
from headsearch.space.parsing import TreeParser
from headsearch.space.space import FORMAT, Space

KEYS = ("space", "doc", "define", "head", "constraints")
MAX_CONSTRAINTS = 100


def shipped_spaces() -> list[str]:
    """Names of the ready spaces, sorted."""
    return shipped_names("search_spaces")


def load_space(source: str | Path) -> Space:
    """Read a space from a shipped name (`tiny`) or the path of a YAML file. Raises `SpaceError`."""
    if str(source) in shipped_spaces():
        return _read(shipped_folder("search_spaces") / f"{source}.yaml", str(source))
    path = Path(source)
    if not os.path.lexists(path) and path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        near = did_you_mean(str(source), shipped_spaces())
        raise SpaceError(f"{source}: neither a file nor a shipped space{near}")
    return _read(path, str(source))


def _read(path: Path, name: str) -> Space:
    if not os.path.lexists(path):
        raise SpaceError(
            f"{path}: no such file; expected a YAML file or a shipped space: {', '.join(shipped_spaces())}"
        )
    if (path / "space.yaml").is_file():
        raise SpaceError(f"{path}: a folder, not a space; the one in it is {path / 'space.yaml'}")
    return parse_space(read_text(path, SpaceError), str(path), name=name)


def parse_space(text: str, filename: str, *, name: str | None = None) -> Space:
    """Read a space from YAML `text`; `filename` is for messages. Raises `SpaceError` with `file:line:column`."""
    root = parse(text, filename, SpaceError, f"'space: {FORMAT}' and a 'head'")
    if not isinstance(root, MapNode):
        raise root.where.error(f"{describe(root)}; expected a mapping that starts with 'space: {FORMAT}'")
    refuse_another(root, "space", "a search space (headsearch init writes one)")
    root.refuse_unknown(KEYS, "key")
    _check_format(root)
    if "head" not in root.items:
        raise root.where.error("no 'head'; expected the heads to search, e.g. 'head: {one_of: [...]}'")
    doc = root.items.get("doc")
    if doc is not None and not (isinstance(doc, ScalarNode) and isinstance(doc.value, str)):
        raise doc.where.error(f"{describe(doc)} under 'doc'; expected a text")
    definitions = root.items.get("define")
    if isinstance(definitions, ScalarNode) and definitions.value is None:
        definitions = None
    if definitions is not None and not isinstance(definitions, MapNode):
        raise definitions.where.error(
            f"{describe(definitions)} under 'define'; expected names with their domains"
        )
    return Space(
        name=name or filename,
        doc=str(doc.value).strip() if isinstance(doc, ScalarNode) else "",
        head=TreeParser(definitions).parse(root.items["head"]),
        constraints=_constraints(root.items.get("constraints")),
        where=root.keys["head"],
    )


def _check_format(root: MapNode) -> None:
    if "space" not in root.items:
        raise root.where.error(f"no format tag; expected 'space: {FORMAT}'")
    tag = root.items["space"]
    if not isinstance(tag, ScalarNode) or tag.value != FORMAT:
        raise tag.where.error(f"{describe(tag)} as the format; expected '{FORMAT}'")


def _constraints(node: Node | None) -> tuple[Constraint, ...]:
    if node is None or (isinstance(node, ScalarNode) and node.value is None):
        return ()
    if not isinstance(node, ListNode):
        raise node.where.error(f"{describe(node)} under 'constraints'; expected a list of conditions")
    if len(node.items) > MAX_CONSTRAINTS:
        raise node.where.error(f"{len(node.items)} constraints; expected at most {MAX_CONSTRAINTS}")
    found = []
    for item in node.items:
        if not isinstance(item, ScalarNode) or not isinstance(item.value, str):
            raise item.where.error(
                f"{describe(item)} as a constraint; expected a condition, such as 'params <= 0.5 * base.params'"
            )
        found.append(parse_constraint(item.value, item.where, item.text_offset))
    return tuple(found)
