"""A thousand SIGKILLs at random moments, over the ways in which a search can run: nothing that is finished is lost, nothing outlives it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headsearch.runs.run import read_records
from headsearch.testing.toy_search import run_toy, scores, toy_experiment

KILLS = 250
"""Of each way; HEADSEARCH_KILLS sets another number."""

WAYS = {
    "inline": {},
    "two processes": {"executor": {"kind": "process", "workers": 2}},
    "funnel": {"strategy": "funnel", "candidates": 40, "screen": {"heads": 12}},
    "journal": {"storage": "journal:///studies.log"},
}

SEARCH = """
import json, sys
from pathlib import Path
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import run_toy, toy_experiment
experiment = toy_experiment(**json.loads(sys.argv[1]))
run_toy(Path("run"), experiment, ToyEvaluator(seconds_per_epoch=0.004), resume=Path("run").exists())
"""


def family(pid: int) -> list[int]:
    """Every process of a session."""
    found = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "Z" not in line.split()[1]]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS)
def test_kills_at_random_moments_lose_nothing(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = {"trials": 8, "finalists": 2, "replicates": 2, **WAYS[way]}
    chance, wanted = random.Random(way), int(os.environ.get("HEADSEARCH_KILLS", KILLS))
    kills = searches = 0
    while kills < wanted:
        folder = tmp_path / str(searches)
        folder.mkdir()
        monkeypatch.chdir(folder)
        undisturbed = scores(run_toy(folder / "undisturbed", toy_experiment(**keys)))
        finished: dict[object, object] = {}
        while True:
            search = subprocess.Popen(
                [sys.executable, "-c", SEARCH, json.dumps(keys)],
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            # A session begins when it has started another trial; before that there is little to lose.
            begun, until = len(list(folder.glob("run/trials/*"))), time.monotonic() + 60
            while (
                search.poll() is None
                and len(list(folder.glob("run/trials/*"))) <= begun
                and time.monotonic() < until
            ):
                time.sleep(0.005)
            if kills < wanted:
                time.sleep(chance.uniform(0, 0.15))
                search.send_signal(signal.SIGKILL)
            _, errors = search.communicate(timeout=120)
            until = time.monotonic() + 120
            while family(search.pid) and time.monotonic() < until:
                time.sleep(0.02)
            assert family(search.pid) == [], "a worker outlives its search"
            if search.returncode == 0:
                break
            assert search.returncode == -signal.SIGKILL, errors
            kills += 1
            ended = [
                record
                for record in read_records(folder / "run")
                if record.state not in ("running", "duplicate")
            ]
            assert finished.items() <= scores(ended).items(), "something finished is gone, or has changed"
            finished = dict(scores(ended))
        assert scores(read_records(folder / "run")) == undisturbed
        searches += 1
    print(f"{way}: {kills} kills over {searches} searches, nothing lost")
