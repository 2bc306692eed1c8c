"""A run as a notebook shows it: how it stands, the verdict and the ranking. Needs no extra."""

from __future__ import annotations

from headsearch.results.tables import rank_cells, rank_titles
from headsearch.results.text import result_html
from headsearch.runs.run import Run

SHOWN = 12
"""Heads of the ranking."""


def run_html(run: Run) -> str:
    """The piece of HTML."""
    header = rank_titles(run.rows, labels=run.labels)
    rows = [row for row in run.rows if row.feasible and (row.rank is None or row.rank <= SHOWN)]
    hidden = len(run.ranked) - sum(row.rank is not None for row in rows)
    said = [
        _stands(run),
        run.verdict,
        f"{run.passage}." if run.passage is not None else "",
        *(f"Cannot be read: {line}" for line in run.problems),
    ]
    shown = [rank_cells(row, run.rows, labels=run.labels) for row in rows]
    if hidden:
        shown.append(["", f"and {hidden} more", *[""] * (len(header) - 2)])
    return result_html(run.name, said, header, shown, names=2)


def _stands(run: Run) -> str:
    state = {
        "at work": "The search is at work",
        "interrupted": "Interrupted; resume=True goes on",
        "ended": "Finished",
        "empty": "Nothing has been trained yet",
    }[run.condition]
    return f"{state}: {run.settled}{'' if run.expected is None else f' of {run.expected}'} trainings done."
