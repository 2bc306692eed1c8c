"""How much of a search is training: a cold `headsearch run` of ten heads on digits with one thread, by the clock. The rest is imports, reading, scoring
and the machinery.

    python benchmarks/cold_start.py [--heads 10] [--epochs 40]

Training is what `images_per_second` counts: steps, without scores and checkpoints. Controls are left out.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headsearch.runs.run import read_records

IMAGES = 1280
"""Of the embedded digits, that are trained on."""


def main() -> None:
    """Run, and print the share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    changed = {
        "proxy.epochs": options.epochs,
        "proxy.rungs": f"[{math.ceil(options.epochs / 4)}, {math.ceil(options.epochs / 2)}, {options.epochs}]",
        "search.trials": options.heads,
        "search.finalists": 0,
        "search.replicates": 1,
        "search.controls": "[]",
    }
    settings = [part for key, value in changed.items() for part in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "headsearch", "run", "digits_proxies", "--out", str(run), *settings]
        began = time.perf_counter()
        subprocess.run(
            command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
        )
        whole = time.perf_counter() - began
        records = [record for record in read_records(run) if record.images_per_second]
    trained = sum(
        IMAGES * record.rungs[-1].epoch / record.images_per_second
        for record in records
        if record.images_per_second
    )
    attempts = sum(record.seconds or 0.0 for record in records)
    print(
        f"{len(records)} heads, {options.epochs} epochs each: {whole:.1f} s, of which trainings with their scores {attempts:.1f} s"
    )
    print(f"in steps: {trained:.1f} s, {trained / whole:.3f} of the whole")


if __name__ == "__main__":
    main()
