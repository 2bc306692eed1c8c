"""Whom a Ray cluster listens to, and how a search proves that it belongs there. Each in a process of its own, since Ray reads such things once."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SEARCH = """
import json, os, subprocess, sys
from pathlib import Path
from headsearch.errors import ExperimentError
from headsearch.experiment import RaySpec
from headsearch.search.executors.ray_cluster import connected
address = sys.argv[1] or None
try:
    with connected(RaySpec(kind="ray", address=address)):
        import ray
        @ray.remote
        def nice():
            return os.nice(0)
        told = {"nice": ray.get(nice.remote()), "address": ray.get_runtime_context().gcs_address}
except ExperimentError as error:
    told = {"error": str(error)}
print(json.dumps(told | {"home": [str(path) for path in Path.home().rglob("*")]}))
"""


def search(home: Path, address: str = "", **environment: str) -> dict[str, object]:
    """What a process finds that connects as a search does, with `home` as its home directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    result = subprocess.run(
        [sys.executable, "-c", SEARCH, address],
        capture_output=True,
        text=True,
        timeout=120,
        env=kept | {"HOME": str(home)} | environment,
    )
    assert result.returncode == 0, result.stderr
    told: dict[str, object] = json.loads(result.stdout)
    return told


def test_a_cluster_of_this_machine_listens_to_it_alone_and_leaves_nothing_in_the_home_directory(
    tmp_path: Path,
) -> None:
    told = search(tmp_path)
    assert str(told["address"]).startswith("127.0.0.1:")
    assert told["home"] == []
    assert told["nice"] == os.nice(0), "Ray would have trials yield to everything else"


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and home directory of a cluster that wants a token, started as a person does it."""
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("0123456789abcdef0123456789abcdef")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # Below the ports that Ray keeps for its workers.
        port = 6000 + taken.getsockname()[1] % 1000
    ray = Path(sys.executable).parent / "ray"
    environment = {n: v for n, v in os.environ.items() if not n.startswith("RAY_AUTH")} | {"HOME": str(home)}
    options = ["--include-dashboard=false", "--num-cpus=1", "--disable-usage-stats", f"--port={port}"]
    # Not by `ray stop` in the end, which stops every cluster of this machine.
    process = subprocess.Popen(
        [str(ray), "start", "--head", "--block", "--node-ip-address=127.0.0.1", *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}", home
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.slow
def test_a_cluster_that_wants_a_token_gets_the_users_and_says_when_it_is_another(
    locked: tuple[str, Path], tmp_path: Path
) -> None:
    address, home = locked
    assert "error" not in search(home, address)
    refused = search(home, address, RAY_AUTH_TOKEN="fedcba9876543210fedcba9876543210")
    assert "does not accept this process's token" in str(refused["error"])
    assert "RAY_AUTH_TOKEN" in str(refused["error"])
    empty = tmp_path / "nobody"
    empty.mkdir()
    assert "does not accept this process's token" in str(search(empty, address)["error"])
