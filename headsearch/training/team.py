"""One training by several ranks of this machine, each in a process of its own, on an accelerator where there are any.

The process that asks for it starts them and trains nothing itself, so that it waits for nobody who is gone: it hears of an error of any rank, and of
its death, and however the training ends, no rank outlives it.

rank → here    `(name, *arguments)`, a call of the `TrainingContext`; at the end the `TrainingResult`, or the exception
here → rank    None when the call is done; those of the first rank reach the context, those of the others are their echo
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

import torch
import torch.distributed as dist

from headsearch.cores import cores, take_share
from headsearch.errors import RankLost
from headsearch.processes import end_with_parent, ending, strike, without_main
from headsearch.training.ranks import is_of_a_connection, ranks
from headsearch.training.trial import Evaluate, RungScores, Training, TrainingContext, TrainingResult

CAUSE_SECONDS = 10.0
"""A rank that has lost another says so only after this time: what became of the other comes first."""
_HOST = "127.0.0.1"
_CONTEXT = multiprocessing.get_context("forkserver")


def train_in_ranks(
    evaluate: Evaluate, count: int, device: str, training: Training, context: TrainingContext
) -> TrainingResult:
    """What `evaluate` returns on the first of `count` ranks, which all call it with the training.

    Args:
        evaluate: trains the same on every rank, and together; picklable.
        count: ranks, which divide the cores and threads of this process.
        device: as `ranks` has it.
        training: in a folder that only the first rank writes.
        context: is told what the first rank reports, in this process; what it raises ends the training.

    Raises:
        RankLost: a rank has died.
        Exception: what any of them, or `context`, raises.
    """
    # Forked from a process that has imported what they need, and has used no accelerator.
    _CONTEXT.set_forkserver_preload(["headsearch.training.evaluator"])
    # Opened here, for torch would listen on all addresses.
    door = socket.create_server((_HOST, 0))
    port = door.getsockname()[1]
    store = dist.TCPStore(  # type: ignore[attr-defined]
        _HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=door.detach()
    )
    packed, threads = pickle.dumps(evaluate), max(1, torch.get_num_threads() // count)
    team: dict[Connection, ForkServerProcess] = {}
    try:
        for number in range(count):
            environment = {
                "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
                **os.environ,
                "RANK": str(number),
                "LOCAL_RANK": str(number),
                "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": _HOST,
                "MASTER_PORT": str(store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
            }
            pipe, theirs = _CONTEXT.Pipe()
            arguments = (theirs, environment, threads, packed, device, training)
            process = _CONTEXT.Process(target=_take_part, args=arguments, name=f"rank {number} of {count}")
            with without_main():
                process.start()
            theirs.close()
            team[pipe] = process
        return _heard_out(team, context)
    finally:
        for process in team.values():
            strike(process)
        for pipe, process in team.items():
            process.join()
            pipe.close()


def _heard_out(team: Mapping[Connection, ForkServerProcess], context: TrainingContext) -> TrainingResult:
    """Do what the first rank asks for until it has a result."""
    first, *_ = listened = list(team)
    while True:
        for pipe in wait(listened):
            assert isinstance(pipe, Connection)
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                team[pipe].join()
                raise RankLost(f"{team[pipe].name} ended unexpectedly ({ending(team[pipe])})") from None
            match message:
                case Exception():
                    raise message
                case TrainingResult() if pipe is first:
                    return message
                case TrainingResult():
                    listened.remove(pipe)
                case name, *arguments:
                    if pipe is first:
                        getattr(context, name)(*arguments)
                    # Where it has died since, the next message is missing.
                    with contextlib.suppress(OSError):
                        pipe.send(None)


@dataclass(frozen=True)
class _Relay:
    """The context of a rank, which goes on when the call is done: what it has written lies still meanwhile."""

    pipe: Connection

    def report(self, place: int, scores: RungScores) -> None:
        self._call("report", place, scores)

    def progress(self, epoch: float, epochs: int, loss: float, images_per_second: float) -> None:
        self._call("progress", epoch, epochs, loss, images_per_second)

    def waits(self, why: str) -> None:
        self._call("waits", why)

    def _call(self, *call: object) -> None:
        self.pipe.send(call)
        self.pipe.recv()


def _take_part(
    pipe: Connection,
    environment: Mapping[str, str],
    threads: int,
    packed: bytes,
    device: str,
    training: Training,
) -> None:
    """What runs in the process of a rank."""
    end_with_parent()
    os.environ.update(environment)
    take_share(max(1, cores() // int(environment["WORLD_SIZE"])))
    torch.set_num_threads(threads)
    with ranks(device):
        try:
            evaluate: Evaluate = pickle.loads(packed)
            pipe.send(evaluate(training, _Relay(pipe)))
        except Exception as error:
            # Sent before the group is left: an accelerator may be waited for there.
            if is_of_a_connection(error):
                time.sleep(CAUSE_SECONDS)
                pipe.send(RankLost())
            else:
                pipe.send(_portable(error))
            raise SystemExit(1) from error


def _portable(error: Exception) -> Exception:
    """The error with where it was raised as a note, or what can be said of it where it cannot be sent."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - it may be an error of a plug-in's, which cannot be made anew
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
