"""What a SLURM job runs: a worker that connects to the coordinator, shows that it knows the key of the search, and serves it until it is gone.

python -m headsearch.search.executors.slurm_worker HOST PORT
"""

from __future__ import annotations

import os
import pickle
import select
import socket
import sys
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

from headsearch.search.executors.worker import work

KEY = "HEADSEARCH_SEARCH_KEY"
"""The environment variable with the key, as hexadecimal digits."""
CONNECT_SECONDS = 30.0
LOST_MILLISECONDS = 60_000
"""A coordinator whose machine has not answered for so long is gone."""


def main(host: str, port: int) -> None:
    """Serve the coordinator that listens there."""
    try:
        plug = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
    except OSError as error:
        sys.exit(
            f"{socket.gethostname()} cannot reach {host}:{port}, where headsearch listens: {error}; "
            "expected search.executor.host to be a name that nodes know, and its ports to be open to them"
        )
    plug.settimeout(None)
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, LOST_MILLISECONDS // 2000),
        (socket.TCP_KEEPINTVL, 10),
        (socket.TCP_USER_TIMEOUT, LOST_MILLISECONDS),
    ):
        plug.setsockopt(socket.IPPROTO_TCP, option, value)
    pipe = Connection(plug.detach())
    key = bytes.fromhex(os.environ.pop(KEY))
    answer_challenge(pipe, key)
    deliver_challenge(pipe, key)
    pipe.send(os.environ["SLURM_JOB_ID"])
    placement, packed = pickle.loads(pipe.recv_bytes())
    line = select.poll()
    line.register(pipe.fileno(), select.POLLRDHUP)
    work(pipe, placement, packed, gone=line.poll)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
