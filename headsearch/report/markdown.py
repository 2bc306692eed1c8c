"""The report as Markdown, for a pull request: what was found, in tables, without figures."""

from __future__ import annotations

from collections.abc import Sequence

from headsearch.report.views.overview import CONDITIONS, best, subtitle
from headsearch.results.spending import PART_NAMES
from headsearch.results.tables import rank_cells, rank_notes, rank_titles
from headsearch.results.text import duration, markdown_table
from headsearch.runs.run import Run


def markdown_report(view: Run) -> str:
    """The text."""
    lines = [f"# {plain(view.name)}", "", f"{plain(subtitle(view))}; {CONDITIONS[view.condition][0]}.", ""]
    if view.problems:
        lines += ["Not all of this run can be read:", "", *[f"- {plain(line)}" for line in view.problems], ""]
    if not view.records:
        return "\n".join([*lines, "Nothing has been trained yet.", ""])
    lines += [f"**{plain(view.verdict)}**", "", "## Ranking", "", *_ranking(view), ""]
    lines += ["## How far to trust it", ""]
    lines += (
        [f"- **{plain(section.question)}** {plain(section.conclusion)}" for section in view.audit.sections]
        if view.experiment is not None and not view.at_work
        else [f"Ask for it in a terminal: headsearch audit {plain(view.path)}"]
    )
    lines += ["", "## Cost", "", *_cost(view), ""]
    lines += ["## Where it comes from", "", *_provenance(view), ""]
    return "\n".join(lines)


def plain(text: object) -> str:
    """Text that Markdown shows as it is, also within a table."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|#":
        escaped = escaped.replace(sign, f"\\{sign}")
    return " ".join(escaped.split())


def _ranking(view: Run) -> list[str]:
    shown, hidden = best(view)
    if not shown:
        return ["No head has run its full budget."]
    header = rank_titles(view.rows, labels=view.labels)
    rows = [rank_cells(row, view.rows, labels=view.labels) for row in shown]
    rest = [f"{hidden} further heads are not shown.", ""] if hidden else []
    broken = [
        f"- infeasible: {plain(row.head_id)}: {plain(row.reason)}" for row in view.rows if not row.feasible
    ]
    notes = [line for note in rank_notes(shown) for line in (f"{plain(note)}.", "")]
    return [_table(header, rows, left=(1,)), "", *notes, *rest, *broken]


def _cost(view: Run) -> list[str]:
    found = view.spending
    rows = [
        [PART_NAMES[part.name], str(part.trainings), str(part.epochs), duration(part.seconds)]
        for part in found.parts
    ]
    saved = f"Stopping {found.stopped} heads early saved {found.saved_epochs} epochs, about {duration(found.saved_seconds)}."
    broken = [f"- {count} × {plain(reason)}" for reason, count in found.broken.items()]
    return [_table(["stage", "trainings", "epochs", "time"], rows, left=(0,)), "", saved, *broken]


def _provenance(view: Run) -> list[str]:
    told = [f"- run: {plain(view.path)}"]
    if view.experiment is not None:
        told.append(
            f"- experiment {plain(view.experiment.name)}, seed {view.experiment.seed}, space {plain(view.experiment.search.space)}"
        )
    if view.facts is not None:
        versions = ", ".join(f"{name} {version}" for name, version in view.facts.versions.items())
        told.append(
            f"- began {plain(view.facts.created)}; space hash {plain(view.facts.space_hash)}; {plain(versions)}"
        )
        told += [f"- {plain(line)}" for line in view.facts.data]
    return told


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> str:
    rule = [":--" if place in left else "--:" for place in range(len(header))]
    return markdown_table(header, [[plain(cell) for cell in row] for row in rows], rule)
