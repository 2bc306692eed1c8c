import os
import subprocess
import sys
import time
from pathlib import Path

from database_servers import GrpcProxy

STARTED = """
import os, sys, signal
from database_servers import GrpcProxy
server = GrpcProxy("sqlite:///" + sys.argv[1])
print(server._server._number, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def gone(number: int) -> bool:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{number}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not Path(f"/proc/{number}").exists()


def test_a_server_ends_with_the_process_that_started_it_however_that_ends(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTED, str(tmp_path / "studies.db")],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == -9
    assert gone(int(done.stdout))


def test_a_server_that_is_stopped_is_gone(tmp_path: Path) -> None:
    server = GrpcProxy(f"sqlite:///{tmp_path}/studies.db")
    assert server._server is not None
    number = server._server._number
    assert Path(f"/proc/{number}").exists()
    server.stop()
    assert gone(number)
