"""One head: what it is, how it trained compared with the controls, and how to use it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from dash import dcc, html

from headsearch.document import to_yaml
from headsearch.heads.config import HeadConfig
from headsearch.heads.registry import FAMILIES, declared
from headsearch.report.parts import (
    Child,
    Column,
    Links,
    aria,
    callout,
    card,
    chip,
    empty,
    facts,
    grid,
    link,
    table,
    tiles,
)
from headsearch.report.picture import picture, shown
from headsearch.report.views.curves import Line, curves
from headsearch.report.views.trials import FIELDS, shown_as, timed_rows
from headsearch.results.records import TrialRecord
from headsearch.results.text import gain, number, overhead, scaled
from headsearch.runs.run import Run


def head(view: Run, head_id: str, links: Links) -> list[Child]:
    """The view of a head by its id, which may be unknown."""
    records = view.by_head.get(head_id)
    if not records:
        return [
            empty("This run has no such head. It may belong to another run, or its trial cannot be read."),
            html.P(link("All trials", links.trials())),
        ]
    config = records[0].config
    drawn = picture(config, view.facts.base if view.facts else None)
    return [
        _standing(view, head_id, records),
        card("Architecture", drawn, _parameters(config), wide=True),
        _curves(view, records),
        grid(_trainings(view, records), _cost(view, head_id, records)),
        _use(view, head_id, config, links),
    ]


def _standing(view: Run, head_id: str, records: Sequence[TrialRecord]) -> Child:
    row = view.row_of.get(head_id)
    if row is None:
        last = records[-1]
        return callout(chip(last.state, last.state), html.Span(f" {last.reason or 'It has not ended yet.'}"))
    if not row.feasible:
        return callout(chip("infeasible", "infeasible"), html.Span(f" {row.reason}"), kind="warn")
    place = f"{row.rank} of {len(view.ranked)}" if row.rank is not None else f"control {row.control}"
    entries: list[tuple[str, str, Child]] = [
        ("Rank", place, f"Pareto layer {row.pareto_layer}" if row.pareto_layer else None),
        ("Discrepancy", number(row.discrepancy, ".3f"), _spread(row.discrepancy_sd, ".3f")),
    ]
    if view.labels:
        after = "" if row.epochs is None else f" after {row.epochs} epochs"
        entries += [
            ("k-NN", f"{number(row.probe, '.1f')} %", _spread(row.probe_sd, ".1f")),
            (f"k-NN gain{after}", gain(row.gain), _interval(row.gain, row.gain_low, row.gain_high)),
            ("Linear probe", f"{number(row.linear, '.1f')} %", _spread(row.linear_sd, ".1f")),
            (
                f"Linear gain{after}",
                gain(row.linear_gain),
                _interval(row.linear_gain, row.linear_gain_low, row.linear_gain_high),
            ),
        ]
        if row.predicted_gain is not None:
            told = _interval(row.predicted_gain, row.predicted_low, row.predicted_high)
            entries.append(("Predicted long-run gain", gain(row.predicted_gain), told))
    entries.append(("Seeds", str(row.replicates), None))
    return tiles(*entries)


def _interval(value: float | None, low: float | None, high: float | None) -> str | None:
    if value is None:
        return None
    return "no interval: nothing was replicated" if low is None else f"95% interval {low:.1f} to {high:.1f}"


def _spread(deviation: float | None, how: str) -> str | None:
    return None if deviation is None else f"± {deviation:{how}} between seeds"


def _parameters(config: HeadConfig) -> Child:
    if config.members:
        return html.Div([_parameters(member) for member in config.members])
    if not config.stages:
        return html.P(
            "No head: plain self-supervised learning. Every head is compared with it.", className="note"
        )
    rows: list[Sequence[Child]] = []
    for place, stage in enumerate(config.stages, start=1):
        parameters = declared(stage.family)
        name = stage.family if len(config.stages) == 1 else f"{place}. {stage.family}"
        rows += [
            [f"{name}: {key}", shown(value), parameters[key].doc if key in parameters else ""]
            for key, value in stage.params.items()
        ]
    docs_of = dict.fromkeys(FAMILIES[stage.family].doc for stage in config.stages if stage.family in FAMILIES)
    columns = [Column("Parameter"), Column("Value"), Column("Meaning")]
    every = [html.Summary("Every parameter"), table("Parameters of the head", columns, rows)]
    return html.Div([*[html.P(doc, className="note") for doc in docs_of], html.Details(every)])


def _curves(view: Run, records: Sequence[TrialRecord]) -> Child:
    controls = [view.by_head[row.head_id][0] for row in view.controls if row.head_id != records[0].head_id]
    lines = [Line(_seed(record), view, record, place) for place, record in enumerate(records)]
    lines += [Line(f"control {r.control}", view, r, -1 - place) for place, r in enumerate(controls)]
    nothing = empty("Nothing has been measured yet: the first point comes with the first rung.")
    return curves(lines, budget=view.budget, prefix="curve") or card("Curves", nothing, wide=True)


def _seed(record: TrialRecord) -> str:
    other = "" if record.stage == "proxy" else f"{record.stage}, "
    return f"{other}seed {record.replicate + 1} (trial {record.number})"


def _trainings(view: Run, records: Sequence[TrialRecord]) -> Child:
    names = ("number", "state", "replicate", "epoch", "discrepancy", "knn", "linear", "seconds")
    columns = [Column(FIELDS[name].name, numeric=place > 1) for place, name in enumerate(names)]
    rows: list[Sequence[Child]] = []
    for row in timed_rows(view, records):
        number, state, *others = (shown_as(name, row) for name in names)
        reason = html.Small(f" {row['reason']}" if row["reason"] else "")
        rows.append([number, html.Span([state, reason]), *others])
    return card("Trainings", table("Trainings of this head", columns, rows))


def _cost(view: Run, head_id: str, records: Sequence[TrialRecord]) -> Child:
    cost = next((record.cost for record in records if record.cost is not None), None)
    row = view.row_of.get(head_id)
    if cost is None:
        return card("Cost", empty("Measured at the end of a trial that runs its full budget."))
    added = row.overhead if row is not None else cost.overhead
    base = view.facts.base if view.facts else None
    told = [
        ("Parameters", scaled(cost.params)),
        ("of the base's", None if base is None else f"{100 * cost.params / base.params:.0f}%"),
        ("FLOPs for an image", scaled(cost.flops)),
        ("Added to a training step", None if added is None else overhead(added)),
    ]
    note = "During pretraining. Afterwards the head is thrown away and costs nothing."
    return card("Cost", facts(told), note=note)


def _use(view: Run, head_id: str, config: HeadConfig, links: Links) -> Child:
    if not config.heads:
        return None
    load = "load_heads" if config.members else "load_head"
    # A copy is chosen by where it stands on the page.
    place = f"config-{head_id}" if links.run is None else "config"
    actions: list[Child] = []
    download = links.download(head_id)
    if download is not None:
        if head_id in view.row_of:
            actions.append(
                html.A("Download head.yaml", href=download, download="head.yaml", className="button")
            )
        actions.append(link("Compare with others", links.compare([head_id]), className="button quiet"))
        actions.append(dcc.Clipboard(target_id=place, title="Copy the config", className="button quiet copy"))
    text = html.Code(to_yaml(config.to_dict()), id=place)
    export = f"headsearch export {shlex.quote(str(view.path))} --head {head_id} --out head.yaml"
    in_python: list[Child] = ["; in Python: ", html.Code(f'headsearch.{load}("head.yaml")')]
    return card(
        "Use it",
        html.Div(actions, className="actions") if actions else None,
        html.Pre(text, tabIndex="0", **aria(label="The head's config")),
        html.P(["The same file from a terminal: ", html.Code(export), *in_python], className="note"),
        note="The head's config in its canonical form. head.yaml holds it with the base, the scores and their provenance.",
        wide=True,
    )
