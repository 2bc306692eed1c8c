"""Numbers as people read them, the same in tables, on pages and in progress. What is unknown is a dash, never 0."""

from __future__ import annotations

import math

UNKNOWN = "-"


def number(value: float | None, how: str) -> str:
    """The value in the format `how`."""
    return UNKNOWN if value is None else format(value, how)


def scaled(count: float | None) -> str:
    """A count with three digits and a unit: `1.23M`."""
    if count is None:
        return UNKNOWN
    value, unit = float(count), ""
    for unit in ("", "k", "M", "G", "T"):
        if abs(value) < 999.5 or unit == "T":
            break
        value /= 1000.0
    return f"{value:.3g}{unit}"


def duration(seconds: float | None) -> str:
    """Hours and minutes, minutes and seconds, or seconds, whichever says enough."""
    if seconds is None or not 0.0 <= seconds < math.inf:
        return UNKNOWN
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return (
        f"{hours} h {minutes:02d} min"
        if hours
        else f"{minutes} min {whole % 60:02d} s"
        if minutes
        else f"{whole} s"
    )


def gain(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A gain with its sign, and its interval where there is one: `+1.2 [0.3, 2.1]`."""
    interval = "" if low is None or high is None else f" [{low:.1f}, {high:.1f}]"
    return UNKNOWN if value is None else f"{value:+.1f}{interval}"


def overhead(share: float | None) -> str:
    """What a head adds to the time of a training step: `+12%`."""
    return UNKNOWN if share is None else f"{100.0 * share:+.0f}%"
