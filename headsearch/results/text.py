"""Numbers as people read them, the same in tables, on pages and in progress, and tables as markup. What is unknown is a dash, never 0."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

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
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def epochs(count: int | None) -> str:
    """`1 epoch`, `20 epochs`."""
    return counted(count, "epoch")


def counted(count: int | None, what: str) -> str:
    """`1 training`, `20 trainings`."""
    return f"{number(count, 'd')} {what}{'s' * (count != 1)}"


def gain(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A gain with its sign, and its interval where there is one: `+1.2 [0.3, 2.1]`."""
    interval = "" if low is None or high is None else f" [{low:.1f}, {high:.1f}]"
    return UNKNOWN if value is None else f"{value:+.1f}{interval}"


def overhead(share: float | None) -> str:
    """What a head adds to the time of a training step: `+12%`."""
    return UNKNOWN if share is None else f"{100.0 * share:+.0f}%"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], rule: Sequence[str] = ()) -> str:
    """A table in Markdown; `rule` aligns its columns. The cells are markup."""
    lines = [header, rule or ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def result_html(
    title: str, said: Iterable[str], header: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1
) -> str:
    """A result as notebooks show it, in the colours of their own theme: the title, a paragraph for each sentence, and the table, whose last columns hold numbers; all text is escaped.

    Args:
        title: in bold.
        said: sentences below it; empty ones are left out.
        header: of the table.
        rows: its cells as text.
        names: how many of the first columns hold names.
    """
    paragraphs = "".join(f"<p style='margin:.3em 0'>{escape(line)}</p>" for line in said if line)
    lines = [_row("th", header, names), *(_row("td", row, names) for row in rows)]
    table = f"<table style='margin:.5em 0'>{''.join(lines)}</table>" if len(lines) > 1 else ""
    return f"<div><p style='margin:.3em 0'><b>{escape(title)}</b></p>{paragraphs}{table}</div>"


def _row(tag: str, cells: Sequence[str], names: int) -> str:
    aligned = (
        f"<{tag} style='text-align:{'left' if place < names else 'right'}'>{escape(cell)}</{tag}>"
        for place, cell in enumerate(cells)
    )
    return f"<tr>{''.join(aligned)}</tr>"
