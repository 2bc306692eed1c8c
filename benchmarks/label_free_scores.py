"""Which score that reads no label predicts what a head gains in the end? On real training curves.

    python benchmarks/label_free_scores.py [TABLE ...] [--part screen proxies untrained ...] [--all] [--json]

TABLE is a HeadBench (`benchmarks/headbench/digits.csv.gz`), of several the means are shown. The target is the k-NN accuracy of the base on the
long schedule, the mean over seeds; scores are means over seeds, at the last rung of the part. Printed are Kendall's tau-b with its 95% bootstrap
interval over heads, how much that is more than of the default discrepancy, and what choosing by the score loses, for the scores of
docs/evidence_tables.md, or with `--all` for every candidate. The last line of a part judges how the best candidate was
chosen: for every two families of heads it is chosen on all others, and judged on the pairs between these two (`headbench.prediction`). With two tables or more, each is also judged by the
candidate that is best on the others.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from headbench.prediction import Ahead, Bench, Column, Prediction, ahead, left_out, predictions
from headbench.table import PARTS, need_parts, plain, read_headbench
from rich.console import Console
from rich.table import Table

from headsearch.errors import RunError
from headsearch.scoring.discrepancy import MEASURES

Columns = dict[str, Column]
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


def load(path: Path, part: str) -> pd.DataFrame:
    """By heads: `family`, the accuracy on the long schedule as `target`, and means over seeds of what the part measured at its last rung."""
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
    costs = table.groupby("head_id")[["params", "flops", "synflow", "naswot"]].first()
    means = means.drop(columns=list(costs), errors="ignore").join(costs)
    return means.join(last.groupby("head_id")["family"].first()).join(target.rename("target"), how="inner")


def candidates(means: pd.DataFrame) -> Columns:
    """Every score that is tried: single measures, and what makes a head different times what makes it good."""
    columns: Columns = {
        name: plain(means[name]) for name in (*MEASURES, "params", "flops", "synflow", "naswot")
    }
    columns |= {
        "max tokens": plain(means[["cka.tokens.output", "cka.tokens.change"]].max(axis=1)),
        "retrieval.head": plain(means["retrieval.head"]),
        "rankme_head": plain(means["rankme_head"]),
        # Positive, and more is better.
        "close": plain(1 / (0.05 + means["alignment.head"])),
        "spread": plain(-means["uniformity.head"]),
        "falls": plain(means["fall"].clip(lower=0)),
        "low loss": plain(-means["loss"]),
        "retrieval.base": plain(means["retrieval.base"]),
        "rankme_base": plain(means["rankme_base"]),
        "score": plain(means["score"]),
    }
    for different, good in itertools.product(DIFFERENT, GOOD):
        columns[f"{different} * {good}"] = [
            None if a is None or b is None else a * b
            for a, b in zip(columns[different], columns[good], strict=True)
        ]
    return {name: values for name, values in columns.items() if len({v for v in values if v is not None}) > 1}


def judge(paths: Sequence[Path], part: str) -> dict[str, Any]:
    """All candidates of a part over the tables that have it."""
    tables = {path: means for path in paths if len(means := load(path, part))}
    if not tables:
        return {"part": part, "heads": 0}
    families = pd.concat([means["family"] for means in tables.values()])
    families = families[~families.index.duplicated()].sort_index()
    benches = {path: _bench(means.reindex(families.index)) for path, means in tables.items()}
    every = list(benches.values())
    scores = predictions(every)
    return {
        "part": part,
        "heads": len(families),
        "tables": len(tables),
        "scores": scores,
        "ahead": {
            each.name: None if each.name == REFERENCE else ahead(every, each.name, REFERENCE)
            for each in scores
        },
        "choice": left_out(every, list(families)),
        "carried": {path.name.split(".")[0]: _carried(benches, path) for path in benches}
        if len(benches) > 1
        else {},
    }


def _bench(means: pd.DataFrame) -> Bench:
    return Bench(candidates(means), plain(means["target"]))


def _carried(benches: Mapping[Path, Bench], path: Path) -> Prediction:
    """How the candidate that is best on the other benches does on this one."""
    here = benches[path]
    others = [bench for other, bench in benches.items() if other != path]
    best = next(each.name for each in predictions(others) if each.name in here.scores)
    (found,) = predictions([Bench({best: here.scores[best]}, here.target)])
    return found


def text_table(found: dict[str, Any], *, every: bool) -> Table:
    """One line a score."""
    choice = found["choice"]
    table = Table(
        title=f"{found['part']}: {found['heads']} heads"
        + (f", {found['tables']} tables" if found["tables"] > 1 else ""),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for header in ("score", "tau", "95%", "over discrepancy", "top-1 loses", "top-3 loses"):
        table.add_column(header, justify="left" if header == "score" else "right", no_wrap=header != "score")
    for place, each in enumerate(found["scores"]):
        if every or each.name in SHOWN or place == 0:
            table.add_row(*_cells(each, found["ahead"][each.name]))
    table.add_row(
        "best, two families left out", f"{choice.tau:.2f}", f"[{choice.low:.2f}, {choice.high:.2f}]"
    )
    for name, each in found["carried"].items():
        table.add_row(f"best elsewhere, on {name}: {each.name}", *_cells(each, None)[1:])
    return table


def _cells(each: Prediction, ahead: Ahead | None) -> list[str]:
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
                "carried": {
                    name: {"score": carried.name, "tau": carried.agreement.tau}
                    for name, carried in each["carried"].items()
                },
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
