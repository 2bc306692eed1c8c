"""The state of the search, what it has found, and every head in one picture."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from dash import html
from dash.development.base_component import Component

from headsearch.report import figures
from headsearch.report.parts import (
    Child,
    Column,
    Links,
    aria,
    bar,
    callout,
    card,
    chip,
    empty,
    figure,
    link,
    numbers,
    table,
    tiles,
)
from headsearch.report.status import last_scores, trial_name
from headsearch.results.row import RankRow
from headsearch.results.spending import PART_NAMES
from headsearch.results.tables import rank_cells, rank_notes, rank_titles
from headsearch.results.text import UNKNOWN, duration, number
from headsearch.runs.run import Run, Running

CONDITIONS = {
    "at work": ("at work", "good"),
    "interrupted": ("not at work", "warn"),
    "ended": ("finished", ""),
    "empty": ("not begun", "warn"),
}
SHOWN = 12
"""Heads in the ranking of the overview."""
LET_GO = 50
"""How many of the dropped heads are shown."""
_RANKING_NOTE = (
    "By the label-free score, joined by the probe where trainings are at least half as long as the real pretraining. Controls have no "
    "rank. A gain is over the control none, with its 95% interval for that head alone"
)
SCORE = Column("Score", True, "The label-free score")


def overview(view: Run, links: Links) -> list[Child]:
    """The view."""
    return [
        problems(view),
        _answer(view, links),
        _numbers(view),
        _way(view),
        _states(view, links),
        _running(view, links),
        _picture(view),
        _ranking(view, links),
    ]


def subtitle(view: Run) -> str:
    """What is searched, on what, in one line."""
    if view.experiment is None:
        return str(view.path)
    experiment = view.experiment
    return (
        f"{experiment.base.model} on {experiment.data.dataset}, {experiment.method.name}, {experiment.proxy.epochs} epochs a proxy"
        f"{'' if view.labels else ', without labels'}"
    )


def condition(view: Run) -> Component:
    """Whether somebody is at work on the run."""
    text, kind = CONDITIONS[view.condition]
    return chip(text, kind)


def problems(view: Run) -> Child:
    """What could not be read, if anything."""
    if not view.problems:
        return None
    shown = [html.Li(line) for line in view.problems[:8]]
    if len(view.problems) > len(shown):
        shown.append(html.Li(f"and {len(view.problems) - len(shown)} more"))
    return callout(
        html.Strong("Not all of this run can be read. What follows is the rest."), html.Ul(shown), kind="warn"
    )


def _answer(view: Run, links: Links) -> Child:
    if not view.records:
        text = (
            "The search has begun and no trial has yet."
            if view.at_work
            else f"Nothing has been trained here. Begin with: headsearch run, with --out {shlex.quote(str(view.path))}, or --resume."
        )
        return empty(text)
    told: list[Child] = [html.P(view.verdict, className="verdict")]
    if view.condition == "interrupted":
        left = "" if view.expected is None else f" {max(0, view.expected - view.settled)} trainings are left."
        how = f"headsearch run … --out {shlex.quote(str(view.path))} --resume"
        what = f"No search is at work on this run.{left} Continue with {how}; everything finished is safe."
        told.append(
            html.P(f"{what} (If the space has no more heads, nothing is left to do.)", className="note")
        )
    if view.ranked:
        first = view.ranked[0].head_id
        told.append(html.P(["First in the ranking: ", link(html.Code(first), links.head(first))]))
    return callout(*told)


def _numbers(view: Run) -> Child:
    spent, expected = view.spending, view.expected
    share = 0.0 if not expected else view.settled / expected
    done: list[Child] = [f"{view.settled}", html.Small(f" of {expected}" if expected is not None else "")]
    entries: list[tuple[str, list[Child] | str, Child]] = [
        ("Trainings done", done, bar(share, f"{view.settled} of {expected} trainings")),
        ("Stage", "Finished" if view.condition == "ended" else PART_NAMES[view.stage], None),
        ("Heads tried", str(len({r.head_id for r in view.records if r.control is None and r.rungs})), None),
        ("Epochs trained", f"{spent.epochs:,}", _of_budget(spent.epochs, view)),
        ("Time in training", duration(spent.seconds) if spent.seconds else UNKNOWN, "all trainings added up"),
    ]
    if view.at_work:
        entries.append(("About left", duration(view.seconds_left), "at the present pace"))
    return tiles(*entries)


def _of_budget(epochs: int, view: Run) -> str | None:
    if not view.expected or not view.budget:
        return None
    return f"{100 * epochs / (view.expected * view.budget):.0f}% of all trainings in full"


def _way(view: Run) -> Child:
    """How many heads came to each stage of a funnel."""
    if view.passage is None:
        return None
    return html.P([html.Strong("The way of the heads: "), str(view.passage)], className="way")


def _states(view: Run, links: Links) -> Child:
    if not view.records:
        return None
    chips = [
        link([html.B(str(count)), f" {state}"], links.trials(state=state), className=f"chip {state}")
        for state, count in sorted(view.states.items(), key=lambda item: -item[1])
    ]
    return html.Ul([html.Li(each) for each in chips], className="chips", **aria(label="Trials by state"))


def _running(view: Run, links: Links) -> Child:
    if not view.running:
        return None
    title = "Running now" if view.at_work else "To be taken up again"
    rows = [_running_row(running, view.budget, links) for running in view.running]
    columns = [Column("Trial"), Column("Head"), *numbers("Epoch"), Column("Last scores")]
    return card(title, table(title, columns, rows), wide=True)


def _running_row(running: Running, budget: int, links: Links) -> Sequence[Child]:
    record = running.record
    epoch = running.epoch if running.epoch is not None else record.rungs[-1].epoch if record.rungs else None
    done = f"{number(epoch, 'g')} of {budget}"
    share = bar(epoch / budget if epoch and budget else 0.0, f"trial {record.number}: epoch {done}")
    name = link(trial_name(record), links.head(record.head_id))
    return [str(record.number), name, html.Span([done, share]), last_scores(record)]


def _picture(view: Run) -> Child:
    if not view.ranked and not any(record.rungs for record in view.records):
        return None
    other = "the probe" if view.labels else "the effective rank of the head's embeddings"
    told = (
        f"Scatter of discrepancy against {other}: {len(view.ranked)} ranked heads, "
        f"{view.states.get('stopped', 0)} stopped early, {len(view.controls)} controls. The table below has the numbers."
    )
    note = (
        "Every head, by how differently it sees and by what the base makes of it. Up and to the right is better. "
        "Choose a point to see its head."
    )
    return card("Different, and good", figure(figures.pareto(view), told, "pareto"), note=note, wide=True)


def _ranking(view: Run, links: Links) -> Child:
    if not view.rows:
        return None
    shown, rest = best(view)
    more = f"{rest} further heads are among the trials"
    return card(
        "Ranking",
        _ranking_table(shown, view, links),
        html.P(link(more, links.trials(state="complete"))) if rest else None,
        _departed(view, links),
        note=f"{'; '.join([_RANKING_NOTE, *rank_notes(shown)])}.",
        wide=True,
    )


def best(view: Run) -> tuple[list[RankRow], int]:
    """The rows that an overview shows, controls among them, and how many heads have a rank beside those."""
    shown = [row for row in view.rows if row.feasible and (row.rank is None or row.rank <= SHOWN)]
    return shown, len(view.ranked) - sum(row.rank is not None for row in shown)


def _departed(view: Run, links: Links) -> Child:
    """Heads that a funnel dropped before they could be ranked, or has not come to yet. Without a funnel these are the stopped trials, which the chips above link to."""
    if view.passage is None or not view.departed:
        return None
    rows: list[Sequence[Child]] = [
        [
            link(html.Code(row.head_id), links.head(row.head_id) if row.head_id in view.by_head else None),
            row.stage,
            number(row.score, ".3f"),
            number(row.discrepancy, ".3f"),
            row.reason or UNKNOWN,
        ]
        for row in view.departed[:LET_GO]
    ]
    columns = [Column("Head"), Column("Stage"), SCORE, *numbers("Discrepancy"), Column("Reason")]
    ended = view.condition == "ended"
    why = "were dropped before they could be ranked" if ended else "have no place in the ranking so far"
    summary = html.Summary(f"{len(view.departed)} heads {why}")
    more = f"and {len(view.departed) - LET_GO} more: headsearch rank {shlex.quote(str(view.path))} --all"
    rest = html.P(more, className="note") if len(view.departed) > LET_GO else None
    return html.Details([summary, table("Heads without a place", columns, rows), rest])


_HINTS = {
    "Score": SCORE.hint,
    "K-NN %": "k-NN accuracy of the frozen base",
    "Linear %": "Accuracy of a linear probe on the frozen base",
    "Step time": "What the head adds to a training step",
}


def _ranking_table(rows: Sequence[RankRow], view: Run, links: Links) -> Child:
    titles = [title[0].upper() + title[1:] for title in rank_titles(view.rows, labels=view.labels)]
    columns = [Column(title, title != "Head", _HINTS.get(title)) for title in titles]
    cells: list[Sequence[Child]] = []
    for row in rows:
        place, head_id, *rest = rank_cells(row, view.rows, labels=view.labels)
        cells.append([place, link(html.Code(head_id), links.head(head_id)), *rest])
    return table("Ranking of the heads", columns, cells, id="ranking")
