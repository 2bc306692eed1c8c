"""Does a screen order heads as proxies of their own do? Twelve heads, several seeds, on the embedded digits.

Each head gets a proxy per seed; the same heads are screened jointly per seed, with heads drawn in turn and with all in every step. Compared are the
means over seeds, by every measure of discrepancy, and single seeds, as a search has them. τ is Kendall's τ-b. The runs are kept in a folder and
taken up where they were interrupted.

    python benchmarks/screen_agreement.py [--out runs/agreement] [--epochs 12] [--seeds 3] [--workers 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau

from headsearch.experiment import load_experiment
from headsearch.results.trials import TrialRecord
from headsearch.scoring.names import MEASURES
from headsearch.scoring.score import head_score
from headsearch.search.run import run_search

SPACE = """
space: headsearch/space@1
doc: Twelve heads of six kinds, shallow and deep, with and without the first shortcut.
head:
  one_of:
    - vit: {depth: 3, num_heads: 4}
    - mlp: {depth: {choice: [1, 3]}, first_shortcut: false}
    - poolformer: {depth: {choice: [1, 3]}, first_shortcut: false}
    - resnet: {depth: {choice: [1, 3]}, block: bottleneck, first_shortcut: false}
    - convnext: {depth: {choice: [1, 3]}, first_shortcut: false}
    - convnext: {depth: 3, first_shortcut: true}
    - mixer: {depth: {choice: [1, 3]}, first_shortcut: false}
"""
HEADS = 12
SCORES = (*MEASURES, "score", "retrieval.head")
Table = dict[str, dict[int, TrialRecord]]
"""The complete trials of every head by seed."""


def run(name: str, folder: Path, epochs: int, overrides: list[str]) -> Table:
    """One search of all heads, or what an earlier call left of it."""
    space = folder / "space.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    space.write_text(SPACE, encoding="utf-8")
    experiment = load_experiment(
        "digits",
        [
            f"search.space={space}",
            f"proxy.epochs={epochs}",
            "proxy.device=cpu",
            "search.stopping={kind: none}",
            *overrides,
        ],
    )
    out = folder / name
    records = run_search(experiment, out, resume=out.exists()).records
    table: Table = defaultdict(dict)
    for record in records:
        if record.state == "complete":
            table[record.head_id][record.replicate] = record
    return table


def value(record: TrialRecord, score: str) -> float | None:
    """One score of a trial at its full budget."""
    last = record.rungs[-1]
    if score == "score":
        return head_score(last.measures, last.quality)
    return last.measures.get(score, last.quality.get(score))


def agreement(first: Table, second: Table, score: str, seeds: int) -> dict[str, Any]:
    """τ of the means over seeds, and the mean τ of single seeds."""
    heads = [head for head in first if head in second and first[head][0].rungs[-1].discrepancy is not None]

    def tau(a: list[float | None], b: list[float | None]) -> float:
        return float(kendalltau(a, b).statistic)

    def mean(table: Table, head: str) -> float:
        return statistics.fmean(value(table[head][seed], score) or 0.0 for seed in range(seeds))

    single = [
        tau(
            [value(first[head][a], score) for head in heads],
            [value(second[head][b], score) for head in heads],
        )
        for a in range(seeds)
        for b in range(seeds)
        if first is not second or a < b
    ]
    means = tau([mean(first, head) for head in heads], [mean(second, head) for head in heads])
    return {"heads": len(heads), "means": means, "single": statistics.fmean(single) if single else None}


def main() -> None:
    """Train what has not been, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/agreement"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--workers", type=int, default=2, help="processes that train side by side, one thread each"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    process = [f"search.executor={{kind: process, workers: {options.workers}, timeout: 7200}}"]
    replicates = [f"search.replicates={options.seeds}"]
    proxies = run(
        "proxies",
        options.out,
        options.epochs,
        [
            *process,
            *replicates,
            "search.strategy=proxies",
            "search.sampler=grid",
            f"search.trials={HEADS}",
            f"search.finalists={HEADS}",
            "search.controls=[none]",
        ],
    )
    screens = {}
    for name, each in (("in turn", 2), ("all", HEADS)):
        screen = f"search.screen={{heads: {HEADS}, reduction: 1, heads_per_step: {each}}}"
        folder = f"screen-{each}"
        screens[name] = run(
            folder, options.out, options.epochs, [*process, *replicates, "search.strategy=screen", screen]
        )
    tables = {"proxies": proxies, **screens}
    pairs = [
        ("proxies", "in turn"),
        ("proxies", "all"),
        ("proxies", "proxies"),
        ("in turn", "in turn"),
        ("all", "all"),
    ]
    result = {
        f"{a} / {b}": {score: agreement(tables[a], tables[b], score, options.seeds) for score in SCORES}
        for a, b in pairs
    }
    if options.json:
        print(json.dumps({"epochs": options.epochs, "seeds": options.seeds, "tau": result}))
        return
    print(
        f"{HEADS} heads, {options.seeds} seeds, {options.epochs} epochs on digits; τ-b of single seeds (of means over seeds)\n"
    )
    print(f"{'':24}" + "".join(f"{name:>20}" for name in result))
    for score in SCORES:
        cells = []
        for by_score in result.values():
            found = by_score[score]
            single = "-" if found["single"] is None else f"{found['single']:.2f}"
            cells.append(f"{single} ({found['means']:.2f})")
        print(f"{score:24}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    main()
