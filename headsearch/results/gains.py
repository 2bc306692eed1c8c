"""What heads gain over the control `none`, by both probes, and how sure that is. Pure functions of rows.

`docs/ranking.md` explains the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from headsearch.results.noise import CONFIDENCE, Noise, pooled_noise, two_sided_t
from headsearch.results.row import RankRow
from headsearch.results.shrinkage import shrunk

Probe = Literal["probe", "linear"]
_NAMES: Mapping[Probe, tuple[str, str, str]] = {
    "probe": ("gain", "gain_low", "gain_high"),
    "linear": ("linear_gain", "linear_gain_low", "linear_gain_high"),
}
"""Fields of a row: the gain by a probe, and its interval."""


@dataclass(frozen=True)
class Against:
    """Rows compared with those of one control, by either probe."""

    control: RankRow
    noises: Mapping[Probe, Noise | None]
    """Between seeds, over all feasible rows of the ranking."""
    family: Sequence[int] = ()
    """The replicates of all heads that were tried, for intervals that hold for all of them at once; empty: for each head alone."""

    def gain(self, row: RankRow, probe: Probe = "probe") -> float | None:
        """In points; None if one of the two has no such probe."""
        own, other = value(row, probe), value(self.control, probe)
        return None if own is None or other is None else own - other

    def interval(self, row: RankRow, probe: Probe = "probe") -> tuple[float, float] | None:
        """Of the gain, 95%; None if there is no gain, or the noise is not known."""
        gain, noise = self.gain(row, probe), self.noises[probe]
        if gain is None or noise is None:
            return None
        return noise.interval(gain, row.replicates, self.control.replicates, self.family)


def noises_of(rows: Sequence[RankRow]) -> dict[Probe, Noise | None]:
    """The noise of either probe between seeds, over all feasible rows."""
    feasible = [row for row in rows if row.feasible]
    return {
        "probe": pooled_noise([(row.replicates, row.probe_sd) for row in feasible]),
        "linear": pooled_noise([(row.replicates, row.linear_sd) for row in feasible]),
    }


def value(row: RankRow, probe: Probe) -> float | None:
    """The mean over seeds, in percent."""
    return row.probe if probe == "probe" else row.linear


def control_row(rows: Sequence[RankRow], name: str) -> RankRow | None:
    """The row of a control that others can be compared with."""
    return next((row for row in rows if row.control == name and row.feasible and row.probe is not None), None)


def together(rows: Sequence[RankRow], tried: int) -> list[int]:
    """The number of replicates of every head that was tried; a stopped head has one."""
    ranked = [row.replicates for row in rows if row.rank is not None]
    return ranked + [1] * (tried - len(ranked))


def with_gains(rows: Sequence[RankRow]) -> list[RankRow]:
    """The rows with their gains over the control `none`, each interval for its head alone; the control itself has none."""
    return _with_gains(rows, rows)


def adjusted(rows: Sequence[RankRow], tried: int) -> list[RankRow]:
    """The same rows. Those that are picked because they are the best (the first, and the highest gain by either probe) get intervals that hold
    for all heads at once.

    Args:
        rows: with ranks.
        tried: how many heads were in the race, those included that were stopped.
    """
    family = together(rows, tried)
    ranked = [row for row in rows if row.rank is not None]
    best = {row.head_id for row in ranked if row.rank == 1}
    for name, _, _ in _NAMES.values():
        known = [(found, row.head_id) for row in ranked if (found := getattr(row, name)) is not None]
        best |= {max(known)[1]} if known else set()
    picked = [row for row in ranked if row.head_id in best and row.gain_low is not None]
    if len(family) < 2:
        return list(rows)
    changed = {row.head_id: row for row in _with_gains(picked, rows, family)}
    return [
        replace(changed[row.head_id], simultaneous=True) if row.head_id in changed else row for row in rows
    ]


def _with_gains(
    some: Sequence[RankRow], rows: Sequence[RankRow], family: Sequence[int] = ()
) -> list[RankRow]:
    """Some of the rows with their gains. With `family`, the replicates of all heads, the intervals hold for all of these heads at once."""
    control = control_row(rows, "none")
    if control is None:
        return list(some)
    against, found = Against(control, noises_of(rows), family), []
    for row in some:
        changes: dict[str, float] = {}
        for probe, (name, low, high) in _NAMES.items():
            if row is not control and (gain := against.gain(row, probe)) is not None:
                changes[name] = gain
                if (interval := against.interval(row, probe)) is not None:
                    changes[low], changes[high] = interval
        found.append(replace(row, **changes))  # type: ignore[arg-type]
    return found


def with_shrunk(rows: Sequence[RankRow], *, full: bool) -> list[RankRow]:
    """The rows with their probes shrunk towards their scores, if the noise is known and there are enough heads. `full`: the trainings were as long
    as the real pretraining will be, so the shrunken gain is the gain to expect."""
    noise = noises_of(rows)["probe"]
    heads = [row for row in rows if row.feasible and row.config and row.probe is not None]
    if noise is None:
        return list(rows)
    found = shrunk(
        [row.score for row in heads],
        [row.probe for row in heads if row.probe is not None],
        [row.replicates for row in heads],
        noise,
    )
    if found is None:
        return list(rows)
    control = control_row(rows, "none")
    of_head = {row.head_id: each for row, each in zip(heads, found, strict=True)}
    quantile = two_sided_t(noise.df, CONFIDENCE)
    result = []
    for row in rows:
        each = of_head.get(row.head_id)
        if each is None:
            result.append(row)
            continue
        changed = replace(row, shrunk=each.value)
        if full and control is not None and control.probe is not None:
            gain = each.value - control.probe
            margin = quantile * math.sqrt(each.variance + noise.deviation**2 / control.replicates)
            changed = replace(
                changed, predicted_gain=gain, predicted_low=gain - margin, predicted_high=gain + margin
            )
        result.append(changed)
    return result
