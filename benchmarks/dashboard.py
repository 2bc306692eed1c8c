"""What the dashboard costs on a large study: its first page, a refresh, and memory, at 5,000 trials.

    python benchmarks/dashboard.py [--trials 5000] [--run DIR] [--json]

A study of toy trials is made through the ledger (13 ms each), or taken from DIR; every third head is stopped early. A process of its own then
opens it and serves pages over HTTP to this one.

`start_seconds` is from the start of the process to its listening, imports included, `first_page_seconds` from then to all that the overview asks
for; `refresh_ms` is what one more trial costs: to notice it, read it, rank, and draw the overview again; `quiet_ms` a look at an unchanged run;
`first_page_cpu_ms` and `refresh_cpu_ms` the server's processor time of either, which depends less on what else the machine does;
`memory_mb` the resident memory beyond that of the imports; `page_mb` what the overview sends.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

LIMITS = {"start_seconds": 3.0, "first_page_seconds": 1.0, "refresh_ms": 500.0, "memory_mb": 500.0}
"""What the figures must stay below."""

_SPACE = """
space: headsearch/space@1
head:
  one_of:
    - convnext: {depth: {int: [1, 4]}, kernel_size: {choice: [3, 5, 7, 9]}, mlp_ratio: {float: [1, 6]}, first_shortcut: {choice: [false, true]}}
    - mixer: {depth: {int: [1, 4]}, mlp_ratio: {float: [1, 6]}, first_shortcut: {choice: [false, true]}}
    - vit: {depth: {int: [1, 4]}, mlp_ratio: {float: [1, 6]}, first_shortcut: {choice: [false, true]}}
    - resmlp: {depth: {int: [1, 4]}, mlp_ratio: {float: [1, 6]}, first_shortcut: {choice: [false, true]}}
"""


def make_study(path: Path, trials: int) -> None:
    """A finished search of toy trials: controls, heads, replicates."""
    from headsearch.testing.toy import ToyEvaluator
    from headsearch.testing.toy_search import run_toy, toy_experiment

    experiment = toy_experiment(
        trials=trials - 9,
        sampler="random",
        finalists=3,
        replicates=2,
        stopping={"kind": "asha", "reduction": 2},
    )
    run_toy(path, experiment, ToyEvaluator(checkpoints=False), space=_SPACE)


def add_trial(path: Path) -> None:
    """One more trial, as a search would write it."""
    from headsearch.heads import Candidate, parse_head
    from headsearch.runs.directory import RunDirectory
    from headsearch.runs.storages import close_storage, open_storage, sqlite_url
    from headsearch.search.ledger import Ledger
    from headsearch.testing.toy import ToyEvaluator, toy_cost
    from headsearch.testing.toy_search import TOY_BASE
    from headsearch.training.trial import TrialResult

    directory = RunDirectory.open(path)
    storage = open_storage(sqlite_url(directory.study_path))
    ledger = Ledger(storage, directory.facts().study, labels=True)
    candidate = Candidate.of(parse_head({"mixer": {"mlp_ratio": 1 + time.time() % 1}}), TOY_BASE)
    record = ledger.start(candidate, seed=1, replicate=0)
    toy = ToyEvaluator()
    rungs = tuple(toy.scores(candidate.config, epoch, 1) for epoch in toy.rungs)
    ledger.end(record.number, TrialResult("complete", rungs, toy_cost(candidate.config)), seconds=1.0)
    close_storage(storage)


def serve(path: Path) -> None:
    """The process that is measured: says where it listens, then how much memory it had after its imports."""
    import plotly.graph_objects

    import headsearch.dashboard.app

    assert plotly.graph_objects
    assert headsearch.dashboard.app
    imported = resident_mb()
    from headsearch.dashboard.server import open_server

    # The page would ask by itself; here only this benchmark asks.
    server, address = open_server([path], host="127.0.0.1", port=0, token=None, refresh=3600)
    print(json.dumps({"url": address.url, "imported_mb": imported, "pid": os.getpid()}), flush=True)
    server.run()


def resident_mb(pid: int | str = "self") -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor_ms(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Page:
    """A browser that reads nothing: it asks for what the overview asks for."""

    def __init__(self, url: str) -> None:
        """`url` of the dashboard, with its slash."""
        self.url = url
        self.version: Any = None

    def open(self) -> int:
        """The page, its scripts, and its callbacks; bytes of the view."""
        for path in ("", "_dash-layout", "_dash-dependencies"):
            self._get(path)
        self.look()
        return self.show()

    def look(self) -> bool:
        """Whether something changed."""
        body = {
            "output": "version.data",
            "outputs": {"id": "version", "property": "data"},
            "inputs": [{"id": "tick", "property": "n_intervals", "value": 1}],
            "state": [
                {"id": "version", "property": "data", "value": self.version},
                {"id": "url", "property": "pathname", "value": "/"},
            ],
            "changedPropIds": ["tick.n_intervals"],
        }
        answer = self._post(body)
        if not answer:
            return False
        self.version = json.loads(answer)["response"]["version"]["data"]
        return True

    def show(self) -> int:
        """The overview; its bytes."""
        body = {
            "output": "..heading.children...live.children..",
            "outputs": [{"id": "heading", "property": "children"}, {"id": "live", "property": "children"}],
            "inputs": [
                {"id": "url", "property": "pathname", "value": "/"},
                {"id": "url", "property": "search", "value": ""},
                {"id": "version", "property": "data", "value": self.version},
            ],
            "changedPropIds": ["version.data"],
        }
        return len(self._post(body))

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return bytes(answer.read())

    def _post(self, body: dict[str, Any]) -> bytes:
        request = urllib.request.Request(
            self.url + "_dash-update-component",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())


def milliseconds(began: float) -> float:
    """Since then."""
    return 1000 * (time.perf_counter() - began)


def measure(path: Path) -> dict[str, float]:
    """All figures for the study in `path`, to which trials are added."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        start = time.perf_counter() - began
        page = Page(told["url"])
        began, spent = time.perf_counter(), processor_ms(told["pid"])
        size = page.open()
        first, first_cpu = time.perf_counter() - began, processor_ms(told["pid"]) - spent
        refreshes, processor, quiet = [], [], []
        for _ in range(5):
            add_trial(path)
            began, spent = time.perf_counter(), processor_ms(told["pid"])
            assert page.look()
            page.show()
            refreshes.append(milliseconds(began))
            processor.append(processor_ms(told["pid"]) - spent)
            # Closing the study folded its log into the file, which is one more change to look at.
            page.look()
            began = time.perf_counter()
            assert not page.look()
            quiet.append(milliseconds(began))
        return {
            "start_seconds": round(start, 2),
            "first_page_seconds": round(first, 2),
            "first_page_cpu_ms": round(first_cpu, 1),
            "refresh_ms": round(sorted(refreshes)[2], 1),
            "refresh_cpu_ms": round(sorted(processor)[2], 1),
            "quiet_ms": round(sorted(quiet)[2], 1),
            "memory_mb": round(resident_mb(told["pid"]) - told["imported_mb"], 1),
            "page_mb": round(size / 1e6, 2),
        }
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--run", type=Path, help="take this run directory, or make it where there is none")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.run or Path(folder) / "run"
        if not path.exists():
            make_study(path, options.trials)
        result = measure(path)
    if options.json:
        print(json.dumps({"trials": options.trials, **result}))
        return
    print(f"{options.trials} trials\n")
    for name, value in result.items():
        limit = LIMITS.get(name)
        print(f"{name:20s} {value:9.2f}" + (f"   limit {limit:g}" if limit is not None else ""))


if __name__ == "__main__":
    main()
