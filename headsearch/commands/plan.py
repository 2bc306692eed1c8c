"""What `run --dry-run` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsearch.commands.common import console
from headsearch.commands.progress import STAGES
from headsearch.results.tables import new_table
from headsearch.results.text import duration

if TYPE_CHECKING:
    from headsearch.search.plan import SearchPlan


def print_plan(plan: SearchPlan) -> None:
    """The stages of a search as a table, then what it needs, on stdout."""
    table = new_table(
        [("stage", False), ("trainings", True), ("epochs", True), ("images", True), ("time", True)]
    )
    for stage in plan.stages:
        images = f"{stage.trainings * stage.epochs * plan.images:,}"
        table.add_row(
            STAGES[stage.name], str(stage.trainings), str(stage.epochs), images, duration(stage.seconds)
        )
    out = console()
    out.print(table)
    lines = [
        f"about {duration(plan.seconds)} in all, {plan.at_once} training{'s' * (plan.at_once > 1)} at a time: "
        f"a proxy takes {duration(plan.seconds_per_proxy)} for {plan.images:,} images an epoch, by a few of its steps",
        f"disk: about {plan.checkpoint_bytes / 2**20:,.0f} MiB for each training at work; {plan.free_bytes / 2**30:,.1f} GiB are free",
    ]
    if plan.screen_bytes:
        lines.append(f"memory: a joint training needs about {plan.screen_bytes / 2**30:.1f} GiB")
    lines.append("nothing was trained, and no run was begun; run without --dry-run to start")
    for line in lines:
        out.print(line, markup=False)
