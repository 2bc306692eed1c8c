"""HeadBench: tables of real training curves of the same heads under several schedules, so that scores and search policies are compared in seconds.

`README.md` describes them, `making.py` makes them. To read them takes pandas, and not torch.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from headsearch.errors import RunError
from headsearch.scoring.score import DIFFERENT, head_score

VERSION = 2
"""Of what is written. Version 1 has neither the column `version` nor `miou`."""

PARTS = ("untrained", "screen", "screen-all", "screen-long", "proxies", "long")
"""How heads were trained, from not at all to the long schedule."""

HEAD = ("part", "head_id", "family", "control", "config", "state", "replicate", "seed")
SCORES = ("epoch", "loss", "knn", "linear", "rankme_base", "rankme_head", "std_base", "std_head")
_SCORED = (*DIFFERENT, "retrieval.head")
"""What the label-free score is made of."""


def read_headbench(path: str | Path) -> pd.DataFrame:
    """The table in a file that `headbench.making.write_headbench` has written, and the label-free score of
    every row (`headsearch.scoring.score`), which is not kept, as `score`.

    One row per training and rung. `part` is one of `PARTS`; `config` the head as JSON; `control` its name where it is one. Of an untrained head
    there is one row, of means over seeds, at epoch 0. `miou` is the mean IoU of a linear layer on the base's map, and missing where nothing was segmented. `overhead` is that of the step: of a joint run, of all heads in it together. Percent, seconds, and units as in `RungScores` and `ZeroCostScores`.

    Raises:
        RunError: no such file, or it holds something else or a later version.
    """
    try:
        table = pd.read_csv(
            path, keep_default_na=False, na_values=[""], low_memory=False, dtype={"seed": "Int64"}
        )
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if missing := [column for column in (*HEAD, *SCORES, *_SCORED) if column not in table]:
        raise RunError(f"{path}: is no HeadBench: it has no column {missing[0]}")
    if "version" not in table:
        table = table.assign(version=1, miou=math.nan)
    if (latest := table["version"].max()) > VERSION:
        raise RunError(f"{path}: has version {latest} of HeadBench; this reads 1 to {VERSION}")
    table["score"] = [_score(row) for row in table[list(_SCORED)].to_dict("records")]
    return table


def need_parts(path: str | Path, table: pd.DataFrame, *parts: str) -> None:
    """Check that a table has these parts. Raises `RunError`, which says how they are made."""
    if missing := [part for part in parts if not (table["part"] == part).any()]:
        raise RunError(
            f"{path}: has no part {missing[0]}; benchmarks/make_headbench.py makes it (--parts {' '.join(missing)})"
        )


def plain(values: Iterable[float]) -> list[float | None]:
    """Numbers as `headsearch.results.agreement` takes them: None where one is unknown."""
    return [float(value) if math.isfinite(value) else None for value in values]


def _score(row: Mapping[Hashable, float]) -> float:
    """NaN where a measure that it takes is unknown."""
    known = {str(name): value for name, value in row.items() if not math.isnan(value)}
    score = head_score(known, known)
    return math.nan if score is None else score
