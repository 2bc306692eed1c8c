"""Which score that reads no label foretells what a head gains in the end? On real training curves.

    python benchmarks/label_free_scores.py [TABLE ...] [--part screen proxies untrained ...] [--all] [--json]

TABLE is a HeadBench (`benchmarks/headbench/digits.csv.gz`), several count as one by ranks within each. The target is the k-NN accuracy of the base on the
long schedule, the mean over seeds; scores are means over seeds, at the last rung of the part. Printed are Kendall's tau-b with its 95% bootstrap
interval over heads, how much that is more than of the default discrepancy, and what choosing by the score loses, for the scores named in
docs/evidence.md, or with `--all` for every candidate. The last line of a part judges the *choice* of the best candidate: made anew without every two families, and
judged on the pairs between them (`headsearch.results.prediction`). With two tables or more, each is also judged by the candidate that is best on the others.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from headsearch.errors import RunError
from headsearch.results.headbench import PARTS, need_parts, read_headbench
from headsearch.results.prediction import Ahead, Foretelling, ahead, foretellings, left_out
from headsearch.scoring.names import MEASURES

Columns = dict[str, list[float | None]]
SHOWN = (
    "score",
    "max tokens * retrieval.head",
    "cka.embedding.output",
    "retrieval.head",
    "rankme_head",
    "params",
    "flops",
    "synflow",
    "naswot",
)
"""Printed without `--all`, besides the best."""
DIFFERENT = (
    "max tokens",
    "cka.embedding.output",
    "cka.tokens.output",
    "cka.tokens.change",
    "procrustes.embedding.output",
    "mutual_knn.tokens.output",
)
REFERENCE = "cka.embedding.output"
"""The default discrepancy, which a score has to beat."""
GOOD = ("retrieval.head", "rankme_head", "close", "spread", "falls")


def load(path: Path, part: str) -> tuple[list[str], list[str], list[float], pd.DataFrame]:
    """Heads with both, their families, accuracies on the long schedule, and means over seeds of what the part measured at its last rung."""
    table = read_headbench(path)
    need_parts(path, table, "long")
    # The control without a head has no score; the others are heads like any.
    table = table[(table["control"] != "none") & (table["state"] != "infeasible")]
    long = table[table["part"] == "long"]
    target = long[long["epoch"] == long["epoch"].max()].groupby("head_id")["knn"].mean()
    rows = table[table["part"] == part].sort_values("epoch")
    grouped = rows.groupby(["head_id", "replicate"])
    last = grouped.tail(1).set_index(["head_id", "replicate"])
    first = grouped.head(1).set_index(["head_id", "replicate"])
    last["fall"] = first["loss"] - last["loss"]
    means = last.groupby("head_id").mean(numeric_only=True)
    families = last.groupby("head_id")["family"].first()
    costs = table.groupby("head_id")[["params", "flops", "synflow", "naswot"]].first()
    means = means.drop(columns=list(costs), errors="ignore").join(costs)
    heads = [head for head in means.index if head in target.index]
    return heads, list(families[heads]), list(target[heads]), means.loc[heads]


def candidates(means: pd.DataFrame) -> Columns:
    """Every score that is tried: single measures, and what makes a head different times what makes it good."""
    columns: Columns = {
        name: _known(means[name]) for name in (*MEASURES, "params", "flops", "synflow", "naswot")
    }
    columns |= {
        "max tokens": _known(means[["cka.tokens.output", "cka.tokens.change"]].max(axis=1)),
        "retrieval.head": _known(means["retrieval.head"]),
        "rankme_head": _known(means["rankme_head"]),
        # Positive, and more is better.
        "close": _known(1 / (0.05 + means["alignment.head"])),
        "spread": _known(-means["uniformity.head"]),
        "falls": _known(means["fall"].clip(lower=0)),
        "low loss": _known(-means["loss"]),
        "retrieval.base": _known(means["retrieval.base"]),
        "rankme_base": _known(means["rankme_base"]),
        "score": _known(means["score"]),
    }
    for different, good in itertools.product(DIFFERENT, GOOD):
        columns[f"{different} * {good}"] = [
            None if a is None or b is None else a * b
            for a, b in zip(columns[different], columns[good], strict=True)
        ]
    return {name: values for name, values in columns.items() if len({v for v in values if v is not None}) > 1}


def _known(values: Sequence[float]) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]


def judge(paths: Sequence[Path], part: str) -> dict[str, Any]:
    """All candidates of a part over the tables."""
    columns: Columns = {}
    target: list[float] = []
    families: list[str] = []
    benches: list[tuple[Columns, list[float]]] = []
    for path in paths:
        heads, kinds, accuracies, means = load(path, part)
        if not heads:
            continue
        here = candidates(means)
        benches.append((here, accuracies))
        for name in here:
            columns.setdefault(name, [None] * len(target)).extend(
                _ranks(here[name]) if len(paths) > 1 else here[name]
            )
        target += _ranks(accuracies) if len(paths) > 1 else accuracies  # type: ignore[arg-type]
        families += kinds
        columns = {name: values for name, values in columns.items() if len(values) == len(target)}
    if not target:
        return {"part": part, "heads": 0}
    return {
        "part": part,
        "heads": len(target),
        "scores": foretellings(columns, target),
        "ahead": {
            name: None if name == REFERENCE else ahead(values, columns[REFERENCE], target)
            for name, values in columns.items()
        },
        "choice": left_out(columns, target, families),
        "carried": [_carried(benches, index) for index in range(len(benches))] if len(benches) > 1 else [],
    }


def _ranks(values: Sequence[float | None]) -> list[float | None]:
    return _known(pd.Series(values, dtype=float).rank(pct=True))


def _carried(benches: Sequence[tuple[Columns, list[float]]], index: int) -> Foretelling:
    """How the candidate that is best on the other benches, by the mean tau, does on this one."""
    columns, target = benches[index]
    others = [
        {each.name: each.agreement.tau for each in foretellings(*bench)}
        for place, bench in enumerate(benches)
        if place != index
    ]
    names = [name for name in columns if all(found.get(name) is not None for found in others)]
    best = max(names, key=lambda name: np.mean([found[name] for found in others]))
    (found,) = foretellings({best: columns[best]}, target)
    return found


def text_table(found: dict[str, Any], *, every: bool) -> Table:
    """One line a score."""
    choice = found["choice"]
    table = Table(
        title=f"{found['part']}: {found['heads']} heads", title_justify="left", box=None, pad_edge=False
    )
    for header in ("score", "tau", "95%", "over discrepancy", "top-1 loses", "top-3 loses"):
        table.add_column(header, justify="left" if header == "score" else "right", no_wrap=True)
    for place, each in enumerate(found["scores"]):
        if every or each.name in SHOWN or place == 0:
            table.add_row(*_cells(each, found["ahead"][each.name]))
    table.add_row(
        "best, two families left out", f"{choice.tau:.2f}", f"[{choice.low:.2f}, {choice.high:.2f}]"
    )
    for each in found["carried"]:
        table.add_row(f"best elsewhere: {each.name}", *_cells(each, None)[1:])
    return table


def _cells(each: Foretelling, ahead: Ahead | None) -> list[str]:
    tau, low, high = each.agreement.tau, each.agreement.low, each.agreement.high
    return [
        each.name,
        "-" if tau is None else f"{tau:.2f}",
        "-" if low is None or high is None else f"[{low:.2f}, {high:.2f}]",
        "" if ahead is None else f"{ahead.difference:+.2f} [{ahead.low:.2f}, {ahead.high:.2f}]",
        "-" if each.top1 is None else f"{each.top1:.1f}",
        "-" if each.top3 is None else f"{each.top3:.1f}",
    ]


def main() -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tables", type=Path, nargs="*", default=[Path(__file__).parent / "headbench" / "digits.csv.gz"]
    )
    parser.add_argument(
        "--part", nargs="+", choices=PARTS, default=[part for part in PARTS if part != "long"]
    )
    parser.add_argument("--all", action="store_true", help="every candidate")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    try:
        found = [each for part in options.part if (each := judge(options.tables, part))["heads"]]
    except RunError as error:
        sys.exit(f"label_free_scores: {error}")
    if options.json:
        rows = [
            {
                "part": each["part"],
                "heads": each["heads"],
                "scores": [
                    {
                        "score": s.name,
                        "tau": s.agreement.tau,
                        "low": s.agreement.low,
                        "high": s.agreement.high,
                        "ahead": None if each["ahead"][s.name] is None else vars(each["ahead"][s.name]),
                        "top1": s.top1,
                        "top3": s.top3,
                    }
                    for s in each["scores"]
                ],
                "choice": vars(each["choice"]),
            }
            for each in found
        ]
        print(json.dumps({"tables": [path.name for path in options.tables], "parts": rows}))
        return
    console = Console(width=120)
    for each in found:
        console.print(text_table(each, every=options.all))


if __name__ == "__main__":
    main()
