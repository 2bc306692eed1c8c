"""Who goes on in a funnel: from scores before training to the screen, and from the screen to proxies. Pure functions."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

from headsearch.heads import Candidate
from headsearch.results.standings import Standing
from headsearch.search.seeds import search_seed

_T = TypeVar("_T")


def best_and_spread(
    candidates: Sequence[_T], count: int, *, score: Callable[[_T], float], family: Callable[[_T], str]
) -> list[_T]:
    """`count` of the candidates: the better half of them the best by score, the others spread over the families.

    A score before training is a weak guide. The second half is therefore chosen family by family in turn, each family's best that is left
    first, so that none is missed because the score does not like its kind.
    """
    order = sorted(candidates, key=lambda candidate: -score(candidate))
    best = order[: -(-count // 2)]
    rest: dict[str, list[_T]] = defaultdict(list)
    for candidate in order[len(best) :]:
        rest[family(candidate)].append(candidate)
    chosen = list(best)
    while len(chosen) < count and any(rest.values()):
        for members in rest.values():
            if members and len(chosen) < count:
                chosen.append(members.pop(0))
    return chosen


def joint_runs(
    heads: Sequence[Candidate], anchors: Sequence[Candidate], *, batch: int
) -> list[list[Candidate]]:
    """The heads of every joint run: at most `batch` each, anchors included, which are in every run where there are several.

    Heads are dealt out in turn, so that every run has its share of those named first.
    """
    if len(heads) <= batch:
        return [list(heads)]
    others = [head for head in heads if head not in anchors]
    runs = -(-len(others) // (batch - len(anchors)))
    return [[*others[index::runs], *anchors] for index in range(runs)]


def promoted(order: Sequence[Standing], *, trials: int, audit: int, seed: int) -> list[Standing]:
    """The heads that get a proxy: the best of a screen, then `audit` taken by chance from the others.

    With more `trials` those chosen before are chosen again, whatever the seed.
    """
    best = list(order[: trials - audit])
    rest = sorted(order, key=lambda standing: standing.candidate.head_id)
    random.Random(search_seed("audit", seed)).shuffle(rest)
    chance = [standing for standing in rest if standing not in best]
    return [*best, *chance[:audit]]
