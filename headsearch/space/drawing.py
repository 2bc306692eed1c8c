"""Distinct heads of a space: all of a small one, random ones of a larger. No torch here."""

from __future__ import annotations

import random

from headsearch.base.info import BaseInfo
from headsearch.errors import SpaceError
from headsearch.heads import Candidate, HeadConfig
from headsearch.space.space import CostFunction, Space

ENUMERABLE = 20_000
"""A space of at most so many descriptions is searched to its end, to find the heads that chance has missed."""
_DRAWS_PER_HEAD = 20


def distinct_heads(
    space: Space,
    number: int,
    *,
    seed: int,
    base: BaseInfo | None = None,
    cost_function: CostFunction | None = None,
) -> list[Candidate]:
    """Up to `number` different networks that constraints and base allow; the same for the same seed.

    A space with no more than `number` descriptions gives all of them, in the order of enumeration. A larger one gives random ones, with each
    decision uniform, as in `Space.sample`: families are equally frequent, however many heads they have. If chance finds too few, an enumerable
    space is searched to its end. So fewer than `number` means that there are no more, or that the space is too large to search and chance finds
    no more.

    Raises:
        SpaceError: not a single head is allowed.
    """
    count = space.count()
    found: dict[str, Candidate] = {}
    refusal = ""

    def consider(config: HeadConfig) -> None:
        nonlocal refusal
        judged = space.judge(config, base, cost_function)
        if isinstance(judged, Candidate):
            found.setdefault(judged.head_id, judged)
        else:
            refusal = judged

    if count is None or count > number:
        rng = random.Random(seed)
        for _ in range(_DRAWS_PER_HEAD * number):
            if len(found) == number:
                break
            consider(space.sample(rng))
    if count is not None and count <= ENUMERABLE and len(found) < number:
        for config in space.enumerate():
            consider(config)
            if len(found) == number:
                break
    if not found:
        raise SpaceError(
            f"{space.where}: no head of the space is allowed, the last one tried is refused by '{refusal}'; "
            "expected at least one"
        )
    return list(found.values())
