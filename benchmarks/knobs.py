"""What each knob of a head does: differences of discrepancy and gain to a reference head, from the trials of a finished run.

    headsearch run knobs && python benchmarks/knobs.py runs/knobs [--json]

The run's space is a `one_of` of literal heads, such as the shipped `knobs`; its default, else the first, is the reference. A difference
is that of two means over seeds; its 95 % interval is Student's, from the noise between seeds pooled over all heads of the run, for this
difference alone: with ten knobs, one in two runs shows some interval off zero by chance. Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from headsearch.errors import RunError, UserError
from headsearch.heads import HeadConfig, canonical, head_id
from headsearch.results.noise import Noise, pooled_noise
from headsearch.runs.directory import RunDirectory
from headsearch.runs.run import read_run
from headsearch.space import Space, load_space
from headsearch.space.tree import OneOf, literal_head

Score = tuple[float | None, int]
"""Mean over seeds, and their number."""


def variants(space: Space) -> tuple[dict[str, HeadConfig], str]:
    """The literal heads of a space by the names of their branches, and the name of the reference.

    Raises:
        RunError: the space is something else.
    """
    root = space.head
    literal = [literal_head(branch) for branch in root.branches] if isinstance(root, OneOf) else []
    heads = [head for head in literal if head is not None]
    if not isinstance(root, OneOf) or len(heads) < len(literal):
        raise RunError(
            f"{space.name}: expected a one_of of heads that leave nothing to draw, such as the space knobs"
        )
    return dict(zip(map(str, root.labels.options), heads, strict=True)), str(root.labels.first(None))


def difference(score: Score, reference: Score, noise: Noise | None) -> dict[str, float | None]:
    """How much more `score` is than the reference, with its interval; None where something is unknown."""
    (mean, seeds), (base, base_seeds) = score, reference
    if mean is None or base is None:
        return {"difference": None, "low": None, "high": None}
    more = mean - base
    low, high = noise.interval(more, seeds, base_seeds) if noise is not None else (None, None)
    return {"difference": more, "low": low, "high": high}


def report(run: Path) -> dict[str, Any]:
    """The reference's scores, and the differences of every other head that ran its full budget."""
    ranked, directory = read_run(run), RunDirectory.open(run)
    space = load_space(directory.space_path)
    heads, reference = variants(space)
    info = directory.facts().base
    rows = {row.head_id: row for row in ranked.rows if row.feasible}
    ids = {name: head_id(canonical(head, info)) for name, head in heads.items()}
    found = {name: rows[identity] for name, identity in ids.items() if identity in rows}
    if reference not in found:
        raise RunError(f"{run}: the reference head '{reference}' has not run its full budget")
    by_discrepancy = pooled_noise([(row.replicates, row.discrepancy_sd) for row in rows.values()])
    by_probe = pooled_noise([(row.replicates, row.probe_sd) for row in rows.values()])
    # A gain is the probe less that of the control: in a difference of two gains the control cancels.
    middle = found[reference]
    return {
        "reference": {"knob": reference, "discrepancy": middle.discrepancy, "gain": middle.gain},
        "knobs": [
            {
                "knob": name,
                "seeds": row.replicates,
                "discrepancy": difference(
                    (row.discrepancy, row.replicates),
                    (middle.discrepancy, middle.replicates),
                    by_discrepancy,
                ),
                "gain": difference((row.probe, row.replicates), (middle.probe, middle.replicates), by_probe),
            }
            for name, row in found.items()
            if name != reference
        ],
        "missing": [name for name in heads if name not in found],
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON object alone")
    arguments = parser.parse_args()
    try:
        found = report(arguments.run)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    if arguments.json:
        print(json.dumps(found))
        return
    reference = found["reference"]
    known = (reference[key] for key in ("discrepancy", "gain"))
    discrepancy, gain = ("unknown" if value is None else f"{value:.3g}" for value in known)
    table = Table(
        *("knob", "discrepancy [95%]", "gain, points [95%]", "seeds"),
        title=f"Differences to {reference['knob']}: discrepancy {discrepancy}, gain {gain}",
        title_justify="left",
        box=None,
    )
    for row in found["knobs"]:
        cells = _shown(row["discrepancy"], ".3f"), _shown(row["gain"], ".1f")
        table.add_row(row["knob"], *cells, str(row["seeds"]))
    console = Console(width=100, highlight=False, markup=False)
    console.print(table)
    if found["missing"]:
        console.print(f"without a result: {', '.join(found['missing'])}")


def _shown(found: Mapping[str, float | None], how: str) -> str:
    if found["difference"] is None:
        return "-"
    interval = "" if found["low"] is None else f" [{found['low']:{how}}, {found['high']:{how}}]"
    return f"{found['difference']:+{how}}{interval}"


if __name__ == "__main__":
    main()
