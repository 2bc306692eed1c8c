"""Mutated images and `.npz` files: each is read, or refused with a reason in one line. See `test_files.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FACTOR = int(os.environ.get("HEADSEARCH_FUZZ", "1"))


@pytest.mark.parametrize(("target", "count"), [("image", 100), ("npz", 30)])
def test_a_mutated_image_is_read_or_left_out_with_a_reason(target: str, count: int) -> None:
    count *= FACTOR
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "worker.py"), target, str(count), "0"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr[-2_000:]
    # No decoder writes to the terminal by itself, and no warning comes out raw.
    assert ended.stderr == ""
    found = json.loads(ended.stdout.splitlines()[-1])
    assert not found["failures"], "\n".join(found["failures"])
    assert found["refused"] + found["accepted"] == count
    assert found["refused"] > count / 20
    assert found["accepted"] > count / 20
    print(f"{target}: {found['refused']} refused, {found['accepted']} read")
