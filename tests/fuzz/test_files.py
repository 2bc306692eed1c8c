"""Mutated files and values: each is refused in one line of ours, or read. Nothing else, in bounded time and memory.

`make fuzz` tries 78 times as many. `tests/fuzz/worker.py TARGET 1 NUMBER` tries one again.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FACTOR = int(os.environ.get("HEADSEARCH_FUZZ", "1"))
COUNTS = {
    "space": 80,
    "experiment": 80,
    "override": 300,
    "head": 60,
    "pretraining": 60,
    "plan": 100,
    "weights": 40,
}
"""Inputs of each kind; in all, with images, weights and runs, about 850."""


@pytest.mark.parametrize("target", COUNTS)
def test_a_mutated_file_is_refused_in_one_line_or_read(target: str) -> None:
    count = COUNTS[target] * FACTOR
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "worker.py"), target, str(count), "0"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr[-2_000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert not found["failures"], "\n".join(found["failures"])
    assert found["refused"] + found["accepted"] == count
    # Both happen, or nothing is tried.
    assert found["refused"] > count / 20
    assert found["accepted"] > 0
    print(f"{target}: {found['refused']} refused, {found['accepted']} read")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("raise KeyError('grid')", "KeyError"),
        ("import time; time.sleep(60)", "Hangs"),
        ("while True: pass", "Hangs"),
        ("len(bytearray(3 * 10**9))", "MemoryError"),
    ],
)
def test_the_fuzzer_notices(body: str, expected: str) -> None:
    code = (
        "import json, resource, sys; sys.argv = ['worker', 'space', '1', '0']\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import worker\n"
        f"def broken():\n    {body}\n"
        f"worker.SECONDS = worker.PATIENCE = {1 if expected == 'Hangs' else 300}\n"
        "worker.TARGETS['space'] = lambda rng, folder: broken\n"
        "worker.limit_memory()\n"
        "print(json.dumps(worker.fuzz('space', 1, 0)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    [failure] = json.loads(ended.stdout)["failures"]
    assert expected in failure
