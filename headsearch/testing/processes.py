"""Functions called in processes of their own: as ranks of one training, or to be killed.

The processes come from a server that has imported torch and the training already, so that one starts in a fraction of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

from headsearch.errors import HeadsearchError

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["headsearch.pretrain.run", "headsearch.methods.mocov3"])
_PATIENCE = 120.0
"""Seconds after which a process that does not answer is killed."""


class Started:
    """A process that calls a function."""

    def __init__(
        self, function: Callable[..., Any], *arguments: Any, environment: dict[str, str] | None = None
    ) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self.process: ForkServerProcess = _CONTEXT.Process(
            target=_call, args=(theirs, environment or {}, function, arguments)
        )
        self.process.start()
        theirs.close()

    def result(self) -> Any:
        """What the function returns, or the `HeadsearchError` that it raises, once the process has ended.

        Raises:
            RuntimeError: the process ended otherwise, or did not end.
        """
        try:
            if not self._pipe.poll(_PATIENCE):
                raise RuntimeError(f"no answer within {_PATIENCE:.0f} s")
            return self._pipe.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"the process ended with code {self.process.exitcode}") from None
        finally:
            self.process.kill()
            self.process.join()


def in_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What the function returns, or the `HeadsearchError` it raises, in each of `count` ranks."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    ranks = [
        Started(
            function,
            *arguments,
            environment={
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "localhost",
                "MASTER_PORT": port,
            },
        )
        for rank in range(count)
    ]
    return [rank.result() for rank in ranks]


def _call(
    pipe: Connection, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment)
    try:
        pipe.send(function(*arguments))
    except HeadsearchError as error:
        pipe.send(error)
