"""Makes a table of HeadBench from one that `photographs.py` has written."""

from __future__ import annotations

import argparse
import json

import pandas as pd
from headbench.making import COLUMNS, untrained_row, write_headbench
from photographs import HEADS, HERE, experiment

from headsearch.heads import Candidate
from headsearch.heads.registry import parse_head
from headsearch.search.zero_cost import ZeroCostScorer
from headsearch.training.seeds import derived_seed


def headbench(options: argparse.Namespace) -> None:
    """Write screens, long trainings, and what the random heads score untrained. `none-equal-time` is no schedule of HeadBench's, and left out."""
    described = json.loads(HEADS.read_text(encoding="utf-8"))[options.bench]
    drawn = [head["config"] for head in described["heads"]]
    candidates = [Candidate.of(parse_head(head)) for head in (*drawn, {"paper": {}}, described["mlp"], None)]
    configs = {candidate.head_id: candidate.config for candidate in candidates}
    scorer = ZeroCostScorer(experiment(options.bench, None, options))
    scored = [scorer.score(candidate) for candidate in candidates[: len(drawn)]]
    costs = {each.head_id: each.cost for each in scored}
    rows = [untrained_row(each) for each in scored]
    for row in pd.read_csv(options.table).to_dict("records"):
        if row["arm"] == "none-equal-time":
            continue
        config, cost = configs[row["head_id"]], costs.get(row["head_id"])
        rows.append(
            {name: row.get(name) for name in COLUMNS}
            | {
                "part": "screen" if row["arm"] == "screen" else "long",
                "family": config.family,
                "config": json.dumps(config.to_dict()),
                "control": row["arm"] if row["arm"] in ("none", "mlp") else None,
                "state": "infeasible" if isinstance(row["reason"], str) else "complete",
                "params": None if cost is None else cost.params,
                "flops": None if cost is None else cost.flops,
                "seed": derived_seed(0, "photographs", row["arm"], row["replicate"]),
            }
        )
    path = HERE.parent / "headbench" / f"photographs-{options.bench}.csv.gz"
    write_headbench(path, pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64"}))
