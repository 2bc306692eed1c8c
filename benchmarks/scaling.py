"""How much faster a search is with two workers, in processes or on Ray, than with one: trials per hour on the digits experiment, one thread each.

Both search the same heads (sampler `grid`) on the same schedule from an empty run directory, and train as many. Counted is the wall time of the whole
search, starting the workers and reading the images included, which a longer search makes up for; `--quick` is a smoke test and says nothing.
Run it on an otherwise idle machine with at least two cores.

    python benchmarks/scaling.py [--trials 12] [--epochs 10] [--workers 1 2] [--executor process|ray] [--quick] [--json]

`ratio` is the last of the trials per hour over the first.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from headsearch.experiment import load_experiment
from headsearch.search.session import conduct, gather


def trials_per_hour(
    workers: int, *, executor: str, trials: int, epochs: int, folder: Path
) -> tuple[float, int]:
    """Of a search with so many workers, and how many trials it trained."""
    experiment = load_experiment(
        "digits",
        [
            f"proxy.epochs={epochs}",
            "proxy.device=cpu",
            "search.strategy=proxies",
            f"search.trials={trials}",
            "search.finalists=0",
            "search.replicates=1",
            "search.sampler=grid",
            f"search.executor.kind={executor}",
            f"search.executor.workers={workers}",
        ],
    )
    materials = gather(experiment)
    began = time.perf_counter()
    summary = conduct(experiment, materials, folder / str(workers))
    seconds = time.perf_counter() - began
    trained = sum(record.state == "complete" for record in summary.records)
    return 3600 * trained / seconds, trained


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=12, help="heads; three controls come on top")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--executor", choices=["process", "ray"], default="process")
    parser.add_argument("--quick", action="store_true", help="two heads, one epoch")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    trials, epochs = (2, 1) if options.quick else (options.trials, options.epochs)
    # One thread each, whatever the number of workers; they take the limit over.
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            (
                workers,
                *trials_per_hour(
                    workers, executor=options.executor, trials=trials, epochs=epochs, folder=Path(folder)
                ),
            )
            for workers in options.workers
        ]
    ratio = rows[-1][1] / rows[0][1]
    if options.json:
        result = {
            "experiment": "digits",
            "executor": options.executor,
            "epochs": epochs,
            "trials": {str(workers): trained for workers, _, trained in rows},
            "trials_per_hour": {str(workers): round(rate, 1) for workers, rate, _ in rows},
            "ratio": round(ratio, 3),
        }
        print(json.dumps(result))
        return
    print(
        f"digits, {options.executor}, {epochs} epochs, one thread a worker\n\nworkers   trials   trials per hour"
    )
    for workers, rate, trained in rows:
        print(f"{workers:7d}   {trained:6d}   {rate:15.1f}")
    print(f"\nratio of {rows[-1][0]} to {rows[0][0]}: {ratio:.2f}")


if __name__ == "__main__":
    main()
