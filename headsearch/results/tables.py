"""Rankings, trials, zero-cost scores and audits as tables for people (rich, 100 columns) and as JSON and CSV for programs.

Nothing is shown by colour alone. JSON never holds NaN. Unknown values are null in JSON, empty in CSV, and `-` in a table.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from headsearch.results.records import TRIAL_COLUMNS, TrialRecord, trial_rows
from headsearch.results.row import RankRow, epochs_of
from headsearch.results.text import UNKNOWN, epochs, gain, number, overhead, scaled
from headsearch.scoring.zero_cost_scores import ORDERS, ZeroCostScores

if TYPE_CHECKING:
    from rich.table import Table

    from headsearch.results.audit import Audit, Section

_AUDIT_NUMBERS = {
    "top-1": ("top1_regret", ".2f"),
    "top-3": ("top3_regret", ".2f"),
    "noise": ("noise", ".3g"),
    "spread": ("spread", ".3g"),
    "needs": ("enough", "d"),
}
_TRIAL_NUMBERS = {
    "rep": ("replicate", "d"),
    "epoch": ("epoch", "d"),
    "loss": ("loss", ".3f"),
    "discr.": ("discrepancy", ".2f"),
    "k-NN": ("knn", ".1f"),
    "linear": ("linear", ".1f"),
    "seconds": ("seconds", ".0f"),
}
_ZERO_COST_NUMBERS = {
    "score": ("score", ".3f"),
    "h(x)": ("cka.tokens.output", ".2f"),
    "h(x) - x": ("cka.tokens.change", ".2f"),
    "retrieval %": ("retrieval.head", ".1f"),
    "rank": ("rankme_head", ".1f"),
    "synflow": ("synflow", ".1f"),
    "naswot": ("naswot", ".0f"),
}
"""Columns of numbers: title, field and format."""

Output = Literal["json", "csv"]
"""How programs read a table."""


def rank_table(rows: Sequence[RankRow], *, labels: bool) -> Table:
    """The ranking for a terminal: controls named in the place of a rank, infeasible heads with their reasons below.

    Without labels the columns that need them are left out. Linear probes, FLOPs, Pareto layers and the spread of discrepancies are in JSON
    and CSV only.
    """
    shown = [row for row in rows if row.feasible]
    titles = ["k-NN %", gain_title(rows).replace(" after", "\nafter"), "linear\ngain [95%]"]
    probes = [*titles, *predicted_title(rows)] if labels else []
    header = ["rank", "head", "score", "discr.", *probes, "params", "time", "n"]
    cells = []
    for row in shown:
        knn, knn_gain, _, linear_gain = _probes(row, "±")
        of_probes = [knn, knn_gain, linear_gain, *_predicted(row, rows)] if labels else []
        cells.append([*_scores(row, ".2f"), *of_probes, *_cost(row)])
    table = text_table(header, cells, words=("head",))
    _add_notes(table, rank_notes(shown) if labels else [], [row for row in rows if not row.feasible])
    return table


SIMULTANEOUS = "* picked because it is the best: these intervals hold for all heads at once"
"""What the star at an interval means."""

ANCHORED = "long run: the gain of the real pretraining, predicted from heads that were trained so long once; (+1.0): measured, of these"
"""What the column of long-run gains holds where there are anchors."""


def rank_notes(rows: Sequence[RankRow]) -> list[str]:
    """The notes below a table of these rows, a line each."""
    notes = [SIMULTANEOUS] if any(row.simultaneous for row in rows) else []
    return notes + ([ANCHORED] if any(row.long_gain is not None for row in rows) else [])


def gain_title(rows: Iterable[RankRow]) -> str:
    """The title of the column of gains, with the length of the trainings behind them."""
    length = epochs_of(rows)
    return "gain [95%]" if length is None else f"gain after {epochs(length)} [95%]"


def predicted_title(rows: Iterable[RankRow]) -> list[str]:
    """The title of the column of long-run gains, where there are any."""
    return ["long run [95%]"] if any(row.predicted_gain is not None for row in rows) else []


def _probes(row: RankRow, sign: str) -> list[str]:
    """Both probes, each with its gain."""
    star = "*" if row.simultaneous else ""
    spread, linear_spread = (
        "" if deviation is None else f" {sign}{deviation:.1f}" for deviation in (row.probe_sd, row.linear_sd)
    )
    return [
        number(row.probe, ".1f") + spread,
        gain(row.gain, row.gain_low, row.gain_high) + star,
        number(row.linear, ".1f") + linear_spread,
        gain(row.linear_gain, row.linear_gain_low, row.linear_gain_high) + star,
    ]


def _predicted(row: RankRow, rows: Iterable[RankRow]) -> list[str]:
    found = gain(row.predicted_gain, row.predicted_low, row.predicted_high)
    if row.long_gain is not None:
        found += f" ({row.long_gain:+.1f})"
    return [found for _ in predicted_title(rows)]


def rank_titles(rows: Sequence[RankRow], *, labels: bool) -> list[str]:
    """The titles of `rank_cells`."""
    probes = ["k-NN %", gain_title(rows), "linear %", "gain [95%]", *predicted_title(rows)] if labels else []
    return ["rank", "head", "score", "discrepancy", *probes, "params", "step time", "seeds"]


def rank_cells(row: RankRow, rows: Sequence[RankRow], *, labels: bool) -> list[str]:
    """A row of the ranking `rows` as pages and Markdown have it: place, head, score, discrepancy, what needs labels, cost, seeds."""
    probes = _probes(row, "± ") + _predicted(row, rows) if labels else []
    return [*_scores(row, ".3f"), *probes, *_cost(row)]


def _scores(row: RankRow, how: str) -> list[str]:
    place = str(row.rank) if row.rank is not None else row.control or UNKNOWN
    return [place, row.head_id, number(row.score, ".3f"), number(row.discrepancy, how)]


def _cost(row: RankRow) -> list[str]:
    return [scaled(row.params), overhead(row.overhead), str(row.replicates)]


def departure_table(rows: Sequence[RankRow]) -> Table:
    """The heads that were dropped before they could be ranked, or have not come so far yet, for a terminal."""
    cells = [[row.stage, *_scores(row, ".2f")[1:], row.reason or UNKNOWN] for row in rows]
    return text_table(["stage", "head", "score", "discr.", "why"], cells, words=("stage", "head", "why"))


def rank_text(rows: Iterable[RankRow], output: Output) -> str:
    """A JSON array with one object per row, or CSV with a header and `config` as JSON."""
    columns = [field.name for field in fields(RankRow)]
    return _written([row.to_dict() for row in rows], output, columns)


def trial_table(records: Iterable[TrialRecord]) -> Table:
    """Every trial for a terminal."""
    cells = []
    for row in trial_rows(records):
        name = row["head_id"] if row["control"] is None else f"{row['head_id']} (control {row['control']})"
        state = row["state"] if row["duplicate_of"] is None else f"{row['state']} of {row['duplicate_of']}"
        state = state if row["stage"] == "proxy" else f"{row['stage']}: {state}"
        if row["reason"] is not None:
            name = f"{name}\n{row['reason']}"
        numbers = [number(row[key], how) for key, how in _TRIAL_NUMBERS.values()]
        cells.append([str(row["number"]), state, name, *numbers])
    return text_table(["#", "state", "head", *_TRIAL_NUMBERS], cells, words=("state", "head"))


def trial_text(records: Iterable[TrialRecord], output: Output) -> str:
    """A JSON array with one object per trial, or CSV with a header and the epochs of the rungs as JSON."""
    return _written(trial_rows(records), output, list(TRIAL_COLUMNS))


def zero_cost_table(rows: Iterable[ZeroCostScores]) -> Table:
    """Heads at random initialisation for a terminal, in the order given; those without scores below, with their reasons.

    Discrepancies of embeddings, FLOPs and spreads are in JSON and CSV only.
    """
    rows = list(rows)
    cells = []
    for place, row in enumerate((row for row in rows if row.reason is None), start=1):
        numbers = [number(row.value(name), how) for name, how in _ZERO_COST_NUMBERS.values()]
        params = scaled(None if row.cost is None else row.cost.params)
        cells.append([str(place), row.head_id, *numbers, params])
    table = text_table(["place", "head", *_ZERO_COST_NUMBERS, "params"], cells, words=("head",))
    _add_notes(table, [], [row for row in rows if row.reason is not None])
    return table


def zero_cost_text(rows: Iterable[ZeroCostScores], output: Output) -> str:
    """A JSON array with one object per head, or CSV with a header: a column per score, one for its standard deviation over seeds, `config` as JSON."""
    if output == "json":
        return _written([row.to_dict() for row in rows], output, [])
    spreads = [f"{name}.sd" for name in ORDERS if name != "score"]
    columns = ["head_id", "family", "config", "seeds", *ORDERS, *spreads, "params", "flops", "reason"]
    return _written([_zero_cost_cells(row) for row in rows], output, columns)


def _zero_cost_cells(row: ZeroCostScores) -> dict[str, Any]:
    return {
        "head_id": row.head_id,
        "family": row.config.family,
        "config": row.config.to_dict(),
        "seeds": row.seeds,
        **{name: row.value(name) for name in ORDERS},
        **{f"{name}.sd": value for name, value in row.sd.items()},
        "params": None if row.cost is None else row.cost.params,
        "flops": None if row.cost is None else row.cost.flops,
        "reason": row.reason,
    }


def audit_json(audit: Audit) -> str:
    """One JSON object: `sections`, each with its `lines`."""
    return json.dumps(audit.to_dict(), indent=2, allow_nan=False)


def section_table(section: Section) -> Table | None:
    """The lines of a section for a terminal; None where there are none. Columns that no line of it has are left out; p is in JSON only."""
    if not section.lines:
        return None
    table = text_table(*section_cells(section), words=("", "verdict"))
    table.columns[0].no_wrap = True
    return table


def section_cells(section: Section) -> tuple[list[str], list[list[str]]]:
    """The headings and the lines of a section: a name, numbers, a verdict. Columns that no line of it has are left out."""
    shown = {
        title: column
        for title, column in _AUDIT_NUMBERS.items()
        if any(getattr(line, column[0]) is not None for line in section.lines)
    }
    # Where something was only measured, there is no interval but the smallest and the largest.
    bounded = "95%" if any(line.verdict != "measured" for line in section.lines) else "range"
    headings = ["", "n", "value", bounded, *shown, "verdict"]
    rows = []
    for line in section.lines:
        bounds = UNKNOWN if line.low is None or line.high is None else f"[{line.low:.2f}, {line.high:.2f}]"
        cells = [line.name, str(line.n), number(line.value, ".2f"), bounds]
        cells += [number(getattr(line, key), how) for key, how in shown.values()]
        rows.append([*cells, line.verdict])
    return headings, rows


def _add_notes(table: Table, notes: Sequence[str], broken: Sequence[RankRow | ZeroCostScores]) -> None:
    """Put notes and the infeasible heads below a table."""
    from rich.markup import escape

    infeasible = [f"infeasible: {row.head_id}: {row.reason or 'reason unknown'}" for row in broken]
    table.caption = escape("\n".join([*notes, *infeasible])) or None
    table.caption_justify = "left"


def _written(rows: Sequence[Mapping[str, Any]], output: Output, columns: Sequence[str]) -> str:
    """The rows as JSON, or their `columns` as CSV."""
    if output == "json":
        return json.dumps(rows, indent=2, allow_nan=False)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {
            key: json.dumps(each) if isinstance(each, dict | list) else each for key, each in row.items()
        }
        writer.writerow(cells)
    return text.getvalue().removesuffix("\n")


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, words: Collection[str]) -> Table:
    """A table for a terminal. The columns named in `words` hold words, the others numbers; no cell is markup."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for name in header:
        if name in words:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for cells in rows:
        table.add_row(*map(escape, cells))
    return table
