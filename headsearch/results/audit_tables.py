"""An audit as tables for people and as JSON for programs. JSON never holds NaN; what is unknown is null there, and `-` in a table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from headsearch.results.audit import Audit, Section
from headsearch.results.tables import new_table, plain
from headsearch.results.text import UNKNOWN, number

if TYPE_CHECKING:
    from rich.table import Table

_FORMATS = {"noise": ".3g", "spread": ".3g", "enough": "d"}


def audit_json(audit: Audit) -> str:
    """One JSON object: `sections`, each with its `lines`."""
    return json.dumps(audit.to_dict(), indent=2, allow_nan=False)


def section_table(section: Section) -> Table | None:
    """The lines of a section for a terminal; None where there are none. Columns that no line of it has are left out; p is in JSON only."""
    if not section.lines:
        return None
    headings, rows = section_cells(section)
    table = new_table((name, 0 < place < len(headings) - 1) for place, name in enumerate(headings))
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*map(plain, row))
    return table


def section_cells(section: Section) -> tuple[list[str], list[list[str]]]:
    """The headings and the lines of a section: a name, numbers, a verdict. Columns that no line of it has are left out."""
    extra = {
        "top1_regret": "top-1",
        "top3_regret": "top-3",
        "noise": "noise",
        "spread": "spread",
        "enough": "needs",
    }
    shown = [key for key in extra if any(getattr(line, key) is not None for line in section.lines)]
    # Where something was only measured, there is no interval but the smallest and the largest.
    bounded = "95%" if any(line.verdict != "measured" for line in section.lines) else "range"
    headings = ["", "n", "value", bounded, *(extra[key] for key in shown), "verdict"]
    rows = []
    for line in section.lines:
        bounds = UNKNOWN if line.low is None or line.high is None else f"[{line.low:.2f}, {line.high:.2f}]"
        cells = [line.name, str(line.n), number(line.value, ".2f"), bounds]
        cells += [number(getattr(line, key), _FORMATS.get(key, ".2f")) for key in shown]
        rows.append([*cells, line.verdict])
    return headings, rows
