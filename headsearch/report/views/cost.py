"""What the search has cost, and what it saved."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html

from headsearch.report import figures
from headsearch.report.parts import Child, Column, card, empty, figure, grid, numbers, table, tiles
from headsearch.results.spending import PART_NAMES
from headsearch.results.text import UNKNOWN, duration, number
from headsearch.runs.run import Run


def cost(view: Run) -> list[Child]:
    """The view."""
    found = view.spending
    if not found.parts:
        return [empty("Nothing has been trained yet, so nothing has been spent.")]
    trained = sum(part.trainings for part in found.parts)
    rows: list[Sequence[Child]] = []
    for part in found.parts:
        time = duration(part.seconds) + (f" ({part.untimed} not timed)" if part.untimed else "")
        epoch = duration(part.seconds / part.epochs) if part.epochs and not part.untimed else UNKNOWN
        rows.append([PART_NAMES[part.name], str(part.trainings), f"{part.epochs:,}", time, epoch])
    columns = [Column("Stage"), *numbers("Trainings", "Epochs", "Time", "An epoch")]
    stopped = f"{found.saved_epochs:,} epochs of {found.stopped} heads"
    throughput = f"{number(found.images_per_second, ',.0f')} images/s"
    told = "Bars: epochs trained and not trained, by stage of the search. The table below has the numbers."
    drawn = figure(figures.spent(found), told, "spent")
    note = (
        "Times of all trainings are added up. With several workers the search itself takes less time. Saved time is epochs not trained, at the mean "
        "time of an epoch."
    )
    answered = "proposals that an earlier trial answered"
    return [
        tiles(
            ("Time in training", duration(found.seconds), f"{trained} trainings"),
            ("Epochs trained", f"{found.epochs:,}", None),
            ("Saved by stopping early", duration(found.saved_seconds), stopped),
            ("Saved by not repeating", f"{found.duplicates} trainings", answered),
            ("Throughput", throughput, "median of the trainings"),
        ),
        card("By stage", drawn, table("Cost by stage", columns, rows), note=note, wide=True),
        grid(_broken(view)),
    ]


def _broken(view: Run) -> Child:
    found = view.spending
    if not found.broken:
        return card("What went wrong", empty("Nothing: no trial failed and none was infeasible."), wide=True)
    repeated = html.P(f"{found.again} trainings were repeated after a failure.", className="note")
    rows: list[Sequence[Child]] = [[reason, str(count)] for reason, count in found.broken.items()]
    failures = table("Failures", [Column("Reason"), *numbers("Trials")], rows)
    return card("What went wrong", failures, repeated if found.again else None, wide=True)
