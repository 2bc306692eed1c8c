"""What the machinery of a search costs per trial: everything but training, on an objective that takes no time.

Counted are drawing, canonical form and constraints, the study (SQLite, every rung written), the coordinator and the executor. The
sampler is `random` unless told otherwise, because what TPE takes to think is Optuna's and grows with what it has seen.

    python benchmarks/orchestration.py [--trials 500 2000 5000] [--sampler random] [--executor inline|process] [--callbacks] [--json]

`ms_per_trial` is the mean wall time over a search of that many heads from an empty study, `cpu_ms_per_trial` the coordinator's processor time of
it, which depends less on what else the machine does; `growth` is the last of either over the first. `process` are two workers, whose start is
counted. `--callbacks` adds TensorBoard.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from headsearch.search.session import conduct
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import toy_experiment, toy_materials

SPACE = """
space: headsearch/space@1
head:
  one_of:
    - convnext: {depth: {int: [1, 4]}, kernel_size: {choice: [3, 5, 7, 9]}, mlp_ratio: {float: [1, 6]}, first_shortcut: {choice: [false, true]}}
    - mixer: {depth: {int: [1, 4]}, mlp_ratio: {float: [1, 6]}, first_shortcut: {choice: [false, true]}}
    - resmlp: {depth: {int: [1, 4]}, mlp_ratio: {float: [1, 6]}, first_shortcut: {choice: [false, true]}}
constraints:
  - params <= 0.5 * base.params
"""


EXECUTORS = {"inline": {"kind": "inline"}, "process": {"kind": "process", "workers": 2}}


def milliseconds_per_trial(
    trials: int, sampler: str, executor: str, callbacks: bool = False
) -> tuple[float, float]:
    """Mean wall time, and processor time of the coordinator, per trial of a search over `trials` heads."""
    experiment = toy_experiment(
        sampler=sampler,
        trials=trials,
        finalists=3,
        replicates=3,
        executor=EXECUTORS[executor],
        callbacks=[{"kind": "tensorboard"}] if callbacks else [],
    )
    materials = toy_materials(experiment, ToyEvaluator(checkpoints=False), space=SPACE)
    with tempfile.TemporaryDirectory() as folder:
        began, began_cpu = time.perf_counter(), time.process_time()
        summary = conduct(experiment, materials, Path(folder) / "run")
        wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return 1000 * wall / len(summary.records), 1000 * cpu / len(summary.records)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[500, 2000, 5000])
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--executor", choices=EXECUTORS, default="inline")
    parser.add_argument("--callbacks", action="store_true", help="write TensorBoard's files too")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    # Imports, and the first statements that SQLAlchemy compiles, are no trial's.
    milliseconds_per_trial(3, options.sampler, "inline", options.callbacks)
    rows = [
        (
            trials,
            *milliseconds_per_trial(trials, options.sampler, options.executor, options.callbacks),
        )
        for trials in options.trials
    ]
    growth, growth_cpu = rows[-1][1] / rows[0][1], rows[-1][2] / rows[0][2]
    if options.json:
        result = {
            "executor": options.executor,
            "sampler": options.sampler,
            "ms_per_trial": {str(trials): round(wall, 2) for trials, wall, _ in rows},
            "cpu_ms_per_trial": {str(trials): round(cpu, 2) for trials, _, cpu in rows},
            "growth": round(growth, 3),
            "cpu_growth": round(growth_cpu, 3),
        }
        print(json.dumps(result))
        return
    print(
        f"executor {options.executor}, sampler {options.sampler}, SQLite\n\ntrials   ms per trial   of it processor"
    )
    for trials, wall, cpu in rows:
        print(f"{trials:6d}   {wall:12.1f}   {cpu:15.1f}")
    print(f"\ngrowth from {rows[0][0]} to {rows[-1][0]}: {growth:.2f} (processor {growth_cpu:.2f})")


if __name__ == "__main__":
    main()
