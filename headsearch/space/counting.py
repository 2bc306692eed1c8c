"""Exact number of descriptions in a space, by formula.

Without shared draws, the count is a sum over branches and a product over parameters. A draw shared by `{same: x}` happens once, however often it is
named. The count is therefore a polynomial: each term holds the set of shared draws that a head makes and the number of ways to make all its other
draws; multiplying two terms unites their sets, so a shared draw counts once. A shared number of slots, of a stack or a set, is split into one term per
value, because the other factors depend on it.
"""

from __future__ import annotations

import math
from collections import Counter

from headsearch.errors import SpaceError
from headsearch.heads.config import Scalar
from headsearch.space.tree import (
    Blocks,
    HeadNode,
    OneOf,
    SetOf,
    SharedHead,
    SharedValue,
    Source,
    Stack,
    distinct_nodes,
    domain_of,
    values_of,
)

Atom = tuple[str, Scalar]
"""A shared draw: (name, value), the value None where the count does not depend on it."""
Polynomial = Counter[frozenset[Atom]]

MAX_TERM_PAIRS = 2_000_000


def is_finite(root: HeadNode) -> bool:
    """Whether no continuum is reachable."""
    return all(
        domain_of(source).count is not None for node in distinct_nodes(root) for source in values_of(node)
    )


def count_descriptions(root: HeadNode) -> int | None:
    """Number of distinct sequences of decisions; None for a continuum. `SpaceError` if too many draws are shared to tell."""
    if not is_finite(root):
        return None
    nodes = distinct_nodes(root)
    split = {
        source.name
        for node in nodes
        if isinstance(node, Stack | SetOf)
        for source in values_of(node)
        if isinstance(source, SharedValue)
    }
    known: dict[int, Polynomial] = {}
    for node in nodes:
        known[id(node)] = _polynomial(node, known, split)
    total = known[id(root)]
    shared_heads = {node.name: node for node in nodes if isinstance(node, SharedHead)}
    for name in reversed(
        shared_heads
    ):  # `nodes` has children first, so a head's own shared draws come after it here
        total = _substitute(total, (name, None), known[id(shared_heads[name].head)])
    weights = {
        source.name: source.domain.count
        for node in nodes
        for source in values_of(node)
        if isinstance(source, SharedValue)
    }
    return sum(
        ways * math.prod(weights[name] or 0 for name, value in term if value is None)
        for term, ways in total.items()
    )


def _polynomial(node: HeadNode, known: dict[int, Polynomial], split: set[str]) -> Polynomial:
    if isinstance(node, SharedHead):
        return Counter({frozenset({(node.name, None)}): 1})
    if isinstance(node, Blocks):
        product: Polynomial = Counter({frozenset(): 1})
        for _, source in node.parameters:
            product = _multiply(product, _draw(source, split))
        return product
    total: Polynomial = Counter()
    if isinstance(node, OneOf):
        for branch in node.branches:
            total.update(known[id(branch)])
        return total
    product = Counter({frozenset(): 1})
    slots = 0
    [number] = values_of(node)
    for value in sorted(int(value or 0) for value in domain_of(number).values()):
        while slots < value:
            slot = node.each if isinstance(node, Stack) else node.slots[slots]
            product = _multiply(product, known[id(slot)])
            slots += 1
        if isinstance(number, SharedValue):
            total.update(_multiply(Counter({frozenset({(number.name, value)}): 1}), product))
        else:
            total.update(product)
    return total


def _draw(source: Source, split: set[str]) -> Polynomial:
    if not isinstance(source, SharedValue):
        return Counter({frozenset(): source.count or 0})
    if source.name in split:
        return Counter(frozenset({(source.name, value)}) for value in source.domain.values())
    return Counter({frozenset({(source.name, None)}): 1})


def _multiply(left: Polynomial, right: Polynomial) -> Polynomial:
    if len(left) * len(right) > MAX_TERM_PAIRS:
        raise SpaceError("too many shared draws ({same: …}) to count this space; expected fewer shared names")
    product: Polynomial = Counter()
    for left_term, left_ways in left.items():
        for right_term, right_ways in right.items():
            term = left_term | right_term
            if len({name for name, _ in term}) == len(term):  # else one shared draw would have two values
                product[term] += left_ways * right_ways
    return product


def _substitute(polynomial: Polynomial, atom: Atom, meaning: Polynomial) -> Polynomial:
    result: Polynomial = Counter()
    for term, ways in polynomial.items():
        result.update(_multiply(Counter({term - {atom}: ways}), meaning) if atom in term else {term: ways})
    return result
