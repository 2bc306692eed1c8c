"""Who goes on in a funnel: from scores before training to the screen, and from the screen to proxies. Pure functions."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from headsearch.heads import Candidate
from headsearch.results.records import Taken
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


def spread(order: Sequence[_T], number: int, begun: Collection[_T] = ()) -> list[_T]:
    """`number` of an order: its first, its last, and evenly between; all where there are no more. Those that have `begun` count, wherever they stand now.

    >>> spread("abcdefghi", 4)
    ['a', 'd', 'f', 'i']
    """
    if len(order) <= number:
        return list(order)
    chosen = [order[round(place * (len(order) - 1) / (number - 1))] for place in range(number)]
    former = [one for one in order if one in begun]
    return (former + [one for one in chosen if one not in former])[:number]


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


def promoted(
    order: Sequence[Standing], *, trials: int, audit: int, seed: int, begun: Mapping[str, Taken | None]
) -> list[tuple[Candidate, Taken]]:
    """The heads that get a proxy, and how they were taken: the best of a screen, then `audit` by chance from the others.

    With more `trials` those chosen before are chosen again, whatever the seed. Those that have `begun`, by their ids, have one already;
    where they were chosen by an order that has changed since, each stands for one that would be chosen now.
    """
    best = [standing.candidate for standing in order[: trials - audit]]
    rest = sorted((standing.candidate for standing in order), key=lambda head: head.head_id)
    random.Random(search_seed("audit", seed)).shuffle(rest)
    chance = [head for head in rest if head not in best][:audit]
    sides: dict[Taken, list[Candidate]] = {"best": best, "chance": chance}
    chosen = {head.head_id for head in (*best, *chance)}
    for taken in (taken for head_id, taken in begun.items() if head_id not in chosen):
        for side in (sides[taken or "best"], best, chance):
            last = next((head for head in reversed(side) if head.head_id not in begun), None)
            if last is not None:
                side.remove(last)
                break
    return [(head, taken) for taken, side in sides.items() for head in side]
