"""What the search has cost, and what it was spared."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html

from headsearch.report import analysis_figures
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
    rows: list[Sequence[Child]] = [
        [
            PART_NAMES.get(part.name, part.name),
            str(part.trainings),
            f"{part.epochs:,}",
            duration(part.seconds) + (f" ({part.untimed} not timed)" if part.untimed else ""),
            duration(part.seconds / part.epochs) if part.epochs and not part.untimed else UNKNOWN,
        ]
        for part in found.parts
    ]
    columns = [Column("Stage"), *numbers("Trainings", "Epochs", "Time", "An epoch")]
    return [
        tiles(
            ("Time in training", duration(found.seconds), f"{trained} trainings"),
            ("Epochs trained", f"{found.epochs:,}", None),
            (
                "Saved by stopping early",
                duration(found.saved_seconds),
                f"{found.saved_epochs:,} epochs of {found.stopped} heads",
            ),
            (
                "Saved by not repeating",
                f"{found.duplicates} trainings",
                "proposals that an earlier trial answered",
            ),
            ("Throughput", f"{number(found.images_per_second, ',.0f')} images/s", "median of the trainings"),
        ),
        card(
            "By stage",
            figure(
                analysis_figures.spent(found),
                "Bars: epochs trained and not trained, by stage of the search. The table below has the numbers.",
                "spent",
            ),
            table("Cost by stage", columns, rows),
            note="Times of all trainings are added up. With several workers the search itself takes less time. Saved time is epochs not trained, at the mean "
            "time of an epoch.",
            wide=True,
        ),
        grid(_broken(view)),
    ]


def _broken(view: Run) -> Child:
    found = view.spending
    if not found.broken:
        return card("What went wrong", empty("Nothing: no trial failed and none was infeasible."), wide=True)
    again = (
        html.P(f"{found.again} trainings were repeated after a failure.", className="note")
        if found.again
        else None
    )
    rows: list[Sequence[Child]] = [[reason, str(count)] for reason, count in found.broken.items()]
    return card(
        "What went wrong", table("Failures", [Column("Reason"), *numbers("Trials")], rows), again, wide=True
    )
