"""HeadBench: a table of real training curves of the same heads under several schedules, so that scores and search policies are compared in seconds.

Comes in: the run directories of its parts. Goes out: one row per training and rung. `benchmarks/headbench/` makes the tables and describes them.
Imports pandas, so nothing on the command line's fast path uses it.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Hashable, Mapping
from pathlib import Path

import pandas as pd

from headsearch.errors import RunError
from headsearch.files import write_bytes_atomically
from headsearch.results.records import TrialRecord
from headsearch.runs.reading import read_records
from headsearch.scoring.discrepancy import MEASURES
from headsearch.scoring.quality import QUALITIES
from headsearch.scoring.score import head_score
from headsearch.scoring.zero_cost_scores import FILE_NAME, ZeroCostScores, read_scores
from headsearch.training.trial import RungScores

PARTS = ("untrained", "screen", "screen-all", "screen-long", "proxies", "long")
"""How heads were trained, from not at all to the long schedule."""

OVERHEAD = "overhead.json"
"""In a screen's folder: what a step takes beyond one without heads, as a share of the latter; with that of single heads it gives what schedules cost."""

_HEAD = ("part", "head_id", "family", "control", "config", "state", "replicate", "seed")
_SCORES = ("epoch", "loss", "knn", "linear", "rankme_base", "rankme_head", "std_base", "std_head")
_COSTS = ("params", "flops", "overhead", "seconds", "synflow", "naswot")
COLUMNS = (*_HEAD, *_SCORES, *MEASURES, *QUALITIES, *_COSTS)
"""Of the table. Unknown is missing."""


def read_headbench(path: str | Path) -> pd.DataFrame:
    """The table in a file that `write_headbench` has written, with the columns `COLUMNS`, and the label-free score of
    every row (`headsearch.scoring.score`), which is not kept, as `score`.

    One row per training and rung. `part` is one of `PARTS`; `config` the head as JSON; `control` its name where it is one. Of an untrained head
    there is one row, of means over seeds, at epoch 0. `overhead` is that of the step: of a joint run, of all heads in it together. Percent, seconds, and units as in `RungScores` and `ZeroCostScores`.

    Raises:
        RunError: no such file, or it holds something else.
    """
    try:
        table = pd.read_csv(
            path, keep_default_na=False, na_values=[""], low_memory=False, dtype={"seed": "Int64"}
        )
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if missing := [column for column in COLUMNS if column not in table]:
        raise RunError(f"{path}: is no HeadBench: it has no column {missing[0]}")
    table["score"] = [_score(row) for row in table[[*MEASURES, "retrieval.head"]].to_dict("records")]
    return table


def need_parts(path: str | Path, table: pd.DataFrame, *parts: str) -> None:
    """Check that a table has these parts. Raises `RunError`, which says how they are made."""
    if missing := [part for part in parts if not (table["part"] == part).any()]:
        raise RunError(
            f"{path}: has no part {missing[0]}; benchmarks/make_headbench.py makes it (--parts {' '.join(missing)})"
        )


def write_headbench(path: Path, table: pd.DataFrame) -> None:
    """Replace the file: CSV, compressed, with figures of six digits. The same table gives the same bytes."""
    text = table.to_csv(index=False, columns=list(COLUMNS), float_format="%.6g")
    # Without a time, which would change with every call.
    write_bytes_atomically(path, gzip.compress(text.encode(), mtime=0))


def collect(folder: Path) -> pd.DataFrame:
    """The table of the parts that are in `folder`, each a run directory under its name.

    Raises:
        RunError: there is none, or one cannot be read.
    """
    rows: list[dict[str, object]] = []
    for part in PARTS:
        if (folder / part / FILE_NAME).exists() and part == "untrained":
            rows += [_untrained(scores) for scores in read_scores(folder / part / FILE_NAME)]
        elif (folder / part).exists():
            joint = folder / part / OVERHEAD
            overhead = json.loads(joint.read_text(encoding="utf-8")) if joint.exists() else None
            rows += [
                _trained(part, record, rung) | ({} if overhead is None else {"overhead": overhead})
                for record in read_records(folder / part)
                if record.state != "duplicate"
                for rung in record.rungs
            ]
    if not rows:
        raise RunError(f"{folder}: has no part of a HeadBench; expected one of {', '.join(PARTS)}")
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64"})


def _score(row: Mapping[Hashable, float]) -> float:
    """NaN where a measure that it takes is unknown."""
    known = {str(name): value for name, value in row.items() if not math.isnan(value)}
    score = head_score(known, known)
    return math.nan if score is None else score


def _trained(part: str, record: TrialRecord, rung: RungScores) -> dict[str, object]:
    cost = record.cost
    return {
        "part": part,
        "head_id": record.head_id,
        "family": record.config.family,
        "control": record.control,
        "config": json.dumps(record.config.to_dict()),
        "state": record.state,
        "replicate": record.replicate,
        "seed": record.seed,
        **{name: getattr(rung, name) for name in _SCORES},
        **rung.measures,
        **rung.quality,
        "params": None if cost is None else cost.params,
        "flops": None if cost is None else cost.flops,
        "overhead": None if cost is None else cost.overhead,
        "seconds": record.seconds,
    }


def _untrained(scores: ZeroCostScores) -> dict[str, object]:
    return {
        "part": "untrained",
        "head_id": scores.head_id,
        "family": scores.config.family,
        "config": json.dumps(scores.config.to_dict()),
        "state": "complete" if scores.reason is None else "infeasible",
        "replicate": 0,
        # Not left out: as floats, seeds of others would lose their last digits.
        "seed": pd.NA,
        "epoch": 0,
        "rankme_head": scores.rankme_head,
        **scores.measures,
        **scores.quality,
        "params": None if scores.cost is None else scores.cost.params,
        "flops": None if scores.cost is None else scores.cost.flops,
        "synflow": scores.synflow,
        "naswot": scores.naswot,
    }
