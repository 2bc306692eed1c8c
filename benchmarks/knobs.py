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
from headsearch.heads import canonical, head_id
from headsearch.ranked_run import rank_run
from headsearch.results.statistics import Noise, pooled_noise
from headsearch.space import Space, load_space
from headsearch.space.tree import OneOf, literal_head

Score = tuple[float | None, float | None, int]
"""Mean and standard deviation over seeds, and their number."""


def variants(space: Space) -> tuple[dict[str, Any], str]:
    """The literal heads of a space by the names of their branches, and the name of the reference.

    Raises:
        RunError: the space is something else.
    """
    root = space.head
    heads = {}
    if isinstance(root, OneOf):
        heads = {
            str(label): literal_head(branch)
            for label, branch in zip(root.labels.options, root.branches, strict=True)
        }
    if not isinstance(root, OneOf) or any(head is None for head in heads.values()):
        raise RunError(
            f"{space.name}: expected a one_of of heads that leave nothing to draw, such as the space knobs"
        )
    return heads, str(root.labels.first(None))


def difference(score: Score, reference: Score, noise: Noise | None) -> dict[str, float | None]:
    """How much more `score` is than the reference, with its interval; None where something is unknown."""
    (mean, _, seeds), (base, _, base_seeds) = score, reference
    if mean is None or base is None:
        return {"difference": None, "low": None, "high": None}
    more = mean - base
    low, high = noise.interval(more, seeds, base_seeds) if noise is not None else (None, None)
    return {"difference": more, "low": low, "high": high}


def report(run: Path) -> dict[str, Any]:
    """The reference's scores, and the differences of every other head that ran its full budget."""
    ranked = rank_run(run)
    space = load_space(ranked.directory.space_path)
    heads, reference = variants(space)
    info = ranked.directory.facts().base
    rows = {row.head_id: row for row in ranked.rows if row.feasible}
    ids = {name: head_id(canonical(head, info)) for name, head in heads.items()}
    found = {name: rows[identity] for name, identity in ids.items() if identity in rows}
    if reference not in found:
        raise RunError(f"{run}: the reference head '{reference}' has not run its full budget")
    scores: Mapping[str, Mapping[str, Score]] = {
        "discrepancy": {n: (r.discrepancy, r.discrepancy_sd, r.replicates) for n, r in found.items()},
        "probe": {n: (r.probe, r.probe_sd, r.replicates) for n, r in found.items()},
    }
    noise = {
        measure: pooled_noise([(seeds, deviation) for _, deviation, seeds in by_name.values()])
        for measure, by_name in scores.items()
    }
    # A gain is the probe less that of the control: in a difference of two gains the control cancels.
    middle = found[reference]
    return {
        "reference": {"knob": reference, "discrepancy": middle.discrepancy, "gain": middle.gain},
        "knobs": [
            {
                "knob": name,
                "seeds": row.replicates,
                "discrepancy": difference(
                    scores["discrepancy"][name], scores["discrepancy"][reference], noise["discrepancy"]
                ),
                "gain": difference(scores["probe"][name], scores["probe"][reference], noise["probe"]),
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
    known = {key: "-" if value is None else value for key, value in reference.items()}
    table = Table(
        *("knob", "discrepancy [95%]", "gain, points [95%]", "seeds"),
        title=f"Differences to {known['knob']}: discrepancy {known['discrepancy']:.3g}, gain {known['gain']:.3g}"
        if "-" not in known.values()
        else f"Differences to {known['knob']}",
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
