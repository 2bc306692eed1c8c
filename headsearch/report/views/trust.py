"""How far to trust the ranking: noise between seeds, early rungs, and screens, each against what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from dash import html

from headsearch.report import analysis_figures
from headsearch.report.parts import Child, Column, callout, card, empty, figure, grid, table
from headsearch.results.text import UNKNOWN
from headsearch.results.trust import (
    ENOUGH,
    Agreement,
    Spread,
    rungs_agree,
    seeds_agree,
    spreads,
    stages_agree,
)
from headsearch.runs.run import Run

Found = TypeVar("Found", Agreement, Spread)


def trust(view: Run) -> list[Child]:
    """The view."""
    complete = sum(record.state == "complete" for record in view.records)
    if not complete:
        return [empty("Nothing can be said yet: no trial has run its full budget.")]
    return [_verdicts(view), _seeds(view), _rungs(view), *_stages(view)]


def verdicts(view: Run) -> list[tuple[str, str]]:
    """What can be said about the ranking as a whole, as (claim, what it rests on), the most important first."""
    return [("Does a head help?", view.verdict), *_seed_verdicts(view), *_rung_verdicts(view)]


def _verdicts(view: Run) -> Child:
    return callout(
        html.Dl(
            [part for claim, told in verdicts(view) for part in (html.Dt(claim), html.Dd(told))],
            className="verdicts",
        )
    )


def _seed_verdicts(view: Run) -> list[tuple[str, str]]:
    told = []
    for found in _objectives(view, spreads(view.records)):
        claim = f"Does another seed change the {found.objective}?"
        if found.spread is None:
            continue
        ratio = found.spread / found.noise if found.noise else None
        if ratio is None:
            told.append((claim, "Not seen: replicates agree to the last digit."))
            continue
        how = "Little" if ratio > 3 else "Somewhat" if ratio > 1.5 else "Much"
        told.append(
            (
                claim,
                f"{how}: heads differ by {ratio:.1f} times the noise between seeds "
                f"({_digits(found.spread)} against {_digits(found.noise)}, from {found.heads} heads with two seeds or more).",
            )
        )
    return told or [
        (
            "Does another seed change the ranking?",
            "Unknown: no head has two seeds. search.finalists and search.replicates ask for them.",
        )
    ]


def _rung_verdicts(view: Run) -> list[tuple[str, str]]:
    found = rungs_agree(view.records)
    if not found:
        return []
    epoch = max(found)
    told = [f"{a.objective} τ {a.tau:.2f}" for a in _objectives(view, found[epoch]) if a.tau is not None]
    heads = max((item.heads for item in found[epoch]), default=0)
    if not told:
        return [
            (
                "Do early rungs tell the end?",
                f"Too few to tell: {heads} heads ran their full budget; {ENOUGH} are needed.",
            )
        ]
    return [
        (
            "Do early rungs tell the end?",
            f"The last one before it, epoch {epoch}: {', '.join(told)} over {heads} heads.",
        )
    ]


def _seeds(view: Run) -> Child:
    found = _objectives(view, spreads(view.records))
    if not found:
        return card(
            "Seeds",
            empty(
                "No head has been trained with two seeds yet. Finalists and controls are, at the end of a search with search.replicates of 2 or more."
            ),
            wide=True,
        )
    rows: list[Sequence[Child]] = [
        [
            item.objective,
            _digits(item.noise),
            UNKNOWN if item.spread is None else _digits(item.spread),
            UNKNOWN if item.spread is None or not item.noise else f"{item.spread / item.noise:.1f}",
            str(item.heads),
        ]
        for item in found
    ]
    columns = [Column("Score"), Column("Noise between seeds", True), Column("Spread between heads", True)]
    columns += [Column("Spread / noise", True), Column("Heads with two seeds", True)]
    drawn = [
        _agreement(item, "First seed", "Second seed", f"seeds-{item.objective}")
        for item in _objectives(view, seeds_agree(view.records))
        if item.pairs
    ]
    return html.Div(
        [
            card(
                "Seeds",
                table("Noise between seeds", columns, rows),
                note="A score tells heads apart where the spread is much larger than the noise. Both are standard deviations, the noise pooled over heads.",
                wide=True,
            ),
            grid(*drawn),
        ]
    )


def _rungs(view: Run) -> Child:
    found = {epoch: _objectives(view, items) for epoch, items in rungs_agree(view.records).items()}
    if not found:
        return card(
            "Early rungs", empty("There is no rung before the full budget to compare with."), wide=True
        )
    rows: list[Sequence[Child]] = [
        [
            str(epoch),
            item.objective,
            _tau(item),
            UNKNOWN if item.p is None else f"{item.p:.2g}",
            str(item.heads),
        ]
        for epoch, items in found.items()
        for item in items
    ]
    columns = [
        Column("Epoch", True),
        Column("Score"),
        Column("τ with full budget", True),
        Column("p", True),
        Column("Heads", True),
    ]
    told = [any(item.tau is not None for item in items) for items in found.values()]
    # One rung alone makes no curve: the table has its two numbers.
    drawn = figure(
        analysis_figures.rungs(found, view.budget),
        "Kendall's tau of each rung's order against that at full budget. The table below has the numbers.",
        "rung-agreement",
    )
    return card(
        "Early rungs",
        drawn if sum(told) > 1 else None,
        None if any(told) else empty(f"Too few to tell: an order of fewer than {ENOUGH} heads says nothing."),
        table("Agreement of rungs with the full budget", columns, rows),
        note="Would the heads stand in the same order had all stopped there? Kendall's τ: 1 is the same order, 0 no relation. Over heads that "
        "ran their full budget: of those stopped early the end is not known, and among the survivors alone the order is harder to tell.",
        wide=True,
    )


def _stages(view: Run) -> list[Child]:
    return [
        _agreement(item, item.between.split(" and ")[0], "proxy", f"stage-{place}")
        for place, item in enumerate(_objectives(view, stages_agree(view.records)))
        if item.pairs
    ]


def _agreement(item: Agreement, x: str, y: str, id: str) -> Child:
    told = (
        f"τ {_tau(item)} over {item.heads} heads"
        if item.tau is not None
        else f"{item.heads} heads: too few to tell their order"
    )
    return card(
        f"{item.objective.capitalize()}: {item.between}",
        figure(
            analysis_figures.agreeing(item, x=x, y=y),
            f"{item.objective} of each head, {item.between}: {told}",
            id,
        ),
        note=told,
    )


def _objectives(view: Run, items: Sequence[Found]) -> list[Found]:
    return [item for item in items if view.labels or item.objective != "probe"]


def _tau(item: Agreement) -> str:
    return "too few" if item.tau is None else f"{item.tau:.2f}"


def _digits(value: float) -> str:
    return f"{value:.3g}"
