"""What matters: how much of the variance between heads each parameter of the space explains, one parameter at a time. Pure functions.

For a parameter that splits n heads into k groups (its values; a number with many values is cut into quartiles) the share is that of a
one-way analysis of variance, corrected for chance:

    share = 1 - (SS_within / (n - k)) / (SS_total / (n - 1))

which is the adjusted R² of the group means (also called epsilon squared; Kelley, PNAS 1935). Without the correction, eight families would explain
most of the variance of twelve heads by chance; with it, a parameter without effect reads 0 on average. Negative values are chance, and are shown.

An effect that two parameters have only together does not show. A parameter that varies along with another (depth 1 drawn mostly for one family)
shares its credit. A sampler that learns looks more often where scores are good, so groups are of unequal size.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from headsearch.heads.config import HeadConfig, Scalar
from headsearch.results.noise import noise_within

ENOUGH = 10
"""With fewer heads beyond one per group, a share is too uncertain to show: its standard error is then above about a third."""
_MANY = 6
"""Values of a number above which it is cut into quartiles."""


@dataclass(frozen=True)
class Group:
    """The heads that share a value."""

    value: str
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the scores."""
        return statistics.fmean(self.scores)


@dataclass(frozen=True)
class Importance:
    """One parameter and what it explains."""

    parameter: str
    groups: tuple[Group, ...]
    """In the order of their values."""
    share: float
    """Of the variance between heads, corrected for chance: 1 explains all, about 0 nothing."""

    @property
    def heads(self) -> int:
        """How many heads it is computed from."""
        return sum(len(group.scores) for group in self.groups)

    @property
    def enough(self) -> bool:
        """Whether there are heads enough to tell."""
        return self.heads - len(self.groups) >= ENOUGH


def head_parameters(config: HeadConfig) -> dict[str, Scalar]:
    """The knobs of a head by name, the same names for all heads: `family`, `blocks`, and what its stages set.

    A parameter that the stages of a stack, or the heads of a set, set differently reads `mixed`.
    """
    found: dict[str, Scalar] = {"family": config.family, "blocks": config.depth}
    if len(config.stages) > 1:
        found["stages"] = len(config.stages)
    if config.members:
        found["heads"] = len(config.members)
    stages = [stage for head in config.heads for stage in head]
    names = dict.fromkeys(name for stage in stages for name in stage.params if name != "depth")
    for name in names:
        values = [stage.params[name] for stage in stages if name in stage.params]
        found[name] = values[0] if all(value == values[0] for value in values) else "mixed"
    return found


def importances(heads: Sequence[tuple[HeadConfig, float | None]]) -> list[Importance]:
    """Every parameter that differs between heads: the largest share first, the too uncertain ones last.

    A parameter that only some families have is judged among those that have it.

    Args:
        heads: one score a head; heads whose score is unknown are left out.
    """
    columns: dict[str, list[tuple[Scalar, float]]] = defaultdict(list)
    for config, score in heads:
        if score is None:
            continue
        for name, value in head_parameters(config).items():
            columns[name].append((value, score))
    found = []
    for name, column in columns.items():
        groups = _groups(column)
        share = explained([group.scores for group in groups])
        if share is not None:
            found.append(Importance(name, tuple(groups), share))
    return sorted(found, key=lambda item: (not item.enough, -item.share, item.parameter))


def explained(groups: Sequence[Sequence[float]]) -> float | None:
    """The share of the variance that lies between groups, corrected for chance; None where that is undefined.

    >>> explained([[1.0, 1.0], [2.0, 2.0]])
    1.0
    """
    scores = [score for group in groups for score in group]
    if len(groups) < 2 or len(scores) <= len(groups):
        return None
    total = statistics.variance(scores)
    noise = noise_within(groups)
    if total == 0:
        return None
    return 1.0 - (0.0 if noise is None else noise.deviation**2) / total


def _groups(column: Sequence[tuple[Scalar, float]]) -> list[Group]:
    values = {value for value, _ in column}
    numbers = [value for value, _ in column if isinstance(value, int | float) and not isinstance(value, bool)]
    are_cut = len(numbers) == len(column) and len(values) > _MANY
    cuts = statistics.quantiles(numbers, n=4, method="inclusive") if are_cut else []
    members: dict[tuple[int, float, str], list[float]] = defaultdict(list)
    for value, score in column:
        members[_place(value, cuts, min(numbers, default=0), max(numbers, default=0))].append(score)
    return [Group(key[2], tuple(scores)) for key, scores in sorted(members.items())]


def _place(value: Scalar, cuts: Sequence[float], low: float, high: float) -> tuple[int, float, str]:
    """A key to sort a value by, and the name of its group. A quartile includes its upper end."""
    if isinstance(value, bool):
        return 0, float(value), "yes" if value else "no"
    if not isinstance(value, int | float):
        return 1, 0.0, "none" if value is None else value
    if not cuts:
        return 0, float(value), f"{value:g}"
    ends = [low, *cuts, high]
    quarter = sum(value > cut for cut in cuts)
    return 0, float(quarter), f"{ends[quarter]:.3g} to {ends[quarter + 1]:.3g}"
