"""`search.budget`: one number that sets the sizes of all stages of a funnel. Pure functions.

The unit is the proxy: one head trained on its full schedule. Hours become proxies once it is known how long one takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_TIME = re.compile(r"(?:(\d{1,6}(?:\.\d+)?) ?h(?:ours?)?)? ?(?:(\d{1,6}) ?min(?:utes?)?)?", re.ASCII)

MOST = 100_000.0
"""The largest budget, in proxies."""
SCREEN_COST = 2.0
"""Proxies that a joint run costs (`benchmarks/screening.py`)."""
JOINT_HEADS = 24
"""Heads in one joint run."""
SCREENED_PER_TRIAL = 3
"""Heads screened for each that gets a proxy of its own."""
STOPPED_SHARE = 0.6
"""Of its full schedule, what a head's proxy costs on average where heads are stopped early; all of it where they are not."""
GOOD_FUNNEL = 24.0
"""Proxies that are enough for three finalists with three seeds, out of eight heads with a proxy, out of 24 that were screened."""
_ENDINGS = ((3, 3), (3, 2), (2, 2), (1, 2), (0, 1))
"""(finalists, replicates) from the surest to the cheapest."""


def hours(budget: str) -> float:
    """The hours in a budget like `2 h`, `2.5 hours` or `2 h 30 min`; 0 where it is none.

    >>> hours("2 h 30 min"), hours("2:30")
    (2.5, 0.0)
    """
    found = _TIME.fullmatch(budget.strip())
    if found is None:
        return 0.0
    return float(found[1] or 0) + float(found[2] or 0) / 60


def seeds_of_shared_control(heads: int, seeds: int) -> int:
    """With how many seeds of a control the differences between it and each of so many heads, of so many seeds, are surest at the price of all: √heads
    times as many, rounded, and no fewer (Dunnett, "A Multiple Comparison Procedure for Comparing Several Treatments with a Control", JASA 1955).

    >>> seeds_of_shared_control(3, 3)
    5
    """
    return max(seeds, round(math.sqrt(heads) * seeds))


def least(controls: int, trunk: float = 0.0) -> float:
    """The smallest budget: the trunk, the controls, a screen, and one head of its own."""
    return trunk + controls + SCREEN_COST + 1.0


def with_budget(
    search: Mapping[str, Any], budget: float, *, controls: int, trunk: float = 0.0
) -> dict[str, Any]:
    """`search` with what it leaves open of the funnel's sizes, so that the funnel costs about `budget` proxies.

    As many heads are tried as leave enough for replicates of the best, and of as many of them as possible: without replicates nothing can
    be said about the top of a ranking. A third of the screened heads get a proxy. Every replicate has a trunk of its own, which costs `trunk` proxies.

    Raises:
        ValueError: a budget too small for one proxy beside controls and screen, or beyond all reason.
    """
    if budget > MOST:
        raise ValueError(f"budget: {budget:.3g} proxies are too many; expected at most {MOST:g}")
    if budget < least(controls, trunk):
        before = f"a trunk ({trunk:g}), " if trunk else ""
        raise ValueError(
            f"budget: {budget:.3g} proxies are too few; expected at least {least(controls, trunk):g}: {before}{controls} controls, a screen "
            f"(about {SCREEN_COST:g}) and one head"
        )
    stopping = search.get("stopping", {})
    share = 1.0 if isinstance(stopping, Mapping) and stopping.get("kind") == "none" else STOPPED_SHARE
    for finalists, replicates in _ENDINGS:
        left = budget - controls - (finalists + controls) * (replicates - 1) - trunk * replicates
        if controls and not trunk:
            left -= seeds_of_shared_control(finalists, replicates) - replicates
        trials = _affordable(left, share)
        if trials >= max(1, 2 * finalists):
            break
    heads = max(SCREENED_PER_TRIAL * trials, 6)
    screen, asked = search.get("screen", {}), search.get("trials")
    sizes: dict[str, Any] = {
        "candidates": max(200, 4 * heads),
        "trials": trials,
        "audit": min(2, trials // 3, max(0, asked - 1) if isinstance(asked, int) else 2),
        "finalists": finalists,
        "replicates": replicates,
        "screen": {"heads": heads, **screen} if isinstance(screen, Mapping) else screen,
    }
    return {**sizes, **{key: value for key, value in search.items() if key != "screen"}}


def subset_share(proxies: float) -> float | None:
    """The share of the images of which a good funnel can be had, where `proxies` on all of them are affordable; None: all.

    >>> subset_share(3.0), subset_share(30.0)
    (0.125, None)
    """
    if proxies >= GOOD_FUNNEL:
        return None
    return float(f"{proxies / GOOD_FUNNEL:.3g}")


SIZES = ("candidates", "screen", "trials", "audit", "finalists", "replicates")
"""Keys of `search` that a budget sets."""


def _affordable(left: float, share: float) -> int:
    """How many heads can be tried for `left` proxies, each with its part of the joint runs that led to it."""
    trials = 0
    while (trials + 1) * share + SCREEN_COST * math.ceil(
        SCREENED_PER_TRIAL * (trials + 1) / JOINT_HEADS
    ) <= left:
        trials += 1
    return trials
