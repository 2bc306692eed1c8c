"""A space as a tree for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.tree import Tree

from headsearch.space.domains import Fixed
from headsearch.space.space import Space
from headsearch.space.tree import Blocks, HeadNode, OneOf, SetOf, SharedHead, SharedValue, Source


def space_tree(space: Space) -> Tree:
    """The space's heads with their domains, and its constraints. Parameters left at the family's default are not shown."""
    count = space.count()
    size = "infinite" if count is None else f"{count:,} descriptions"
    root = Tree(f"[bold]{escape(space.name)}[/bold]  {size}  hash {space.hash}")
    if space.doc:
        root.add(escape(space.doc), style="dim")
    _add(root.add("[bold]head[/bold]"), space.head, "")
    if space.constraints:
        conditions = root.add("[bold]constraints[/bold]")
        for constraint in space.constraints:
            conditions.add(escape(constraint.text))
    return root


def _add(parent: Tree, node: HeadNode, label: str) -> None:
    """Hang `node` under `parent`; `label` is its name among the branches of a `one_of`."""
    if isinstance(node, SharedHead):
        _add(parent.add(f"the same [cyan]{escape(node.name)}[/cyan] everywhere"), node.head, "")
    elif isinstance(node, Blocks):
        alias = f" ({escape(label)})" if label not in ("", node.family) else ""
        family = parent.add(f"[green]{node.family}[/green]{alias}")
        for (name, source), default in zip(node.parameters, node.defaults, strict=True):
            if source != Fixed(default):
                family.add(f"{name}: {escape(_source(source))}")
    elif isinstance(node, OneOf):
        first = f", {escape(str(node.labels.first(None)))} first" if node.labels.default is not None else ""
        choice = parent.add(f"one of {len(node.branches)}{first}")
        for branch_label, branch in zip(node.labels.options, node.branches, strict=True):
            _add(choice, branch, str(branch_label))
    elif isinstance(node, SetOf) and all(slot is node.slots[0] for slot in node.slots):
        _add(parent.add(f"set of {escape(_source(node.size))} heads, each:"), node.slots[0], "")
    elif isinstance(node, SetOf):
        members = parent.add("set of")
        for slot in node.slots:
            _add(members, slot, "")
    else:
        _add(parent.add(f"stack of {escape(_source(node.repeat))} slots, each:"), node.each, "")


def _source(source: Source) -> str:
    return f"{source.domain} (the same '{source.name}')" if isinstance(source, SharedValue) else str(source)
