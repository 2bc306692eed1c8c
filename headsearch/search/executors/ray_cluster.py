"""The Ray cluster that trials run on: one of this machine alone, started and ended with the search, or one that is running already."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from headsearch.cores import cores
from headsearch.errors import ExperimentError, require
from headsearch.experiment import RaySpec
from headsearch.signals import kept_handlers

CONNECT_SECONDS = 10.0
"""For a cluster's head to accept a connection."""
START_ATTEMPTS = 3
_OBJECT_STORE_BYTES = 128 * 2**20
"""Nothing large passes through the object store; Ray would reserve a third of the memory."""
_SETTINGS = {
    # Usage statistics are for whoever asks for them; a local cluster alone would send some.
    "RAY_USAGE_STATS_ENABLED": "0",
    # The progress of a search is told by its observer, and its trials are logged in its study.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # As many trials may wait for their workers to start as the searcher hands out.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Ctrl-C is the search's business. Tune would end as if all had gone well.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
_OWN_CLUSTER = {
    # Ray has a switch for this on other systems only by that name: every process then listens on the loopback address alone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # What Ray gives its workers is 15: any other process of this machine would slow the trials down.
    "RAY_worker_niceness": "0",
}
_ONE_ATTEMPT = {"RAY_gcs_server_port_wait_time_s": "1", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Ray would try for minutes to reach a cluster that is not there, and say so every few seconds."""


@contextlib.contextmanager
def connected(spec: RaySpec) -> Iterator[None]:
    """A connection to the cluster that `spec` names, with room for a trial. A process that is connected already stays where it is, unless an
    address names another cluster, which is refused.

    However this ends, a cluster that was started here is shut down, and one that was running is left as it was found.

    Raises:
        MissingPackage: Ray is not installed.
        ExperimentError: no cluster at the address, another than this process is connected to, or none of its nodes has room for a trial.
    """
    require("ray", extra="ray", where="search.executor")
    with _environment(_SETTINGS | (_OWN_CLUSTER if spec.address is None else {}) | _authentication(spec)):
        import ray
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        if ray.is_initialized():
            if spec.address not in (None, "auto"):
                _check_connected(spec.address, ray.get_runtime_context().gcs_address)
            check_room(spec, cluster_nodes())
            yield
            return
        # Ray reads such settings once: it may have been imported before, or have been elsewhere.
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
        try:
            with kept_handlers():
                # Ray's own handler of SIGTERM would leave without a word.
                _connect(spec)
            check_room(spec, cluster_nodes())
            yield
        finally:
            ray.shutdown()


def _authentication(spec: RaySpec) -> dict[str, str]:
    """How this process proves to a cluster that it belongs there.

    Left to itself, Ray writes a token for its own cluster into the home directory, where a later `ray start` finds it; and it sends none to a
    cluster that was running before. So a cluster of our own gets a token that is written nowhere, and any other the user's, where there is one:
    a cluster that asks for none ignores it.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return {}
    if spec.address is None:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _own_token()}
    given = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return {"RAY_AUTH_MODE": "token"} if given or (Path.home() / ".ray" / "auth_token").is_file() else {}


@cache
def _own_token() -> str:
    """One for the life of this process, since Ray reads it once."""
    return secrets.token_hex(16)


def check_room(spec: RaySpec, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Check that one of the nodes can hold a trial.

    Raises:
        ExperimentError: none can.
    """
    if room(spec, nodes) > 0:
        return
    sizes = [_size(node) for node in nodes if node["Alive"]]
    where = "the cluster" if spec.address else "this machine"
    for key, asked, index, unit in (
        ("cpus_per_trial", spec.cpus_per_trial, 0, "CPU"),
        ("gpus_per_trial", spec.gpus_per_trial, 1, "GPU"),
    ):
        most = max((size[index] for size in sizes), default=0.0)
        if asked > most:
            raise ExperimentError(
                f"search.executor.{key}: {asked:g} {unit}(s) per trial, but no node of {where} has more than {most:g}; "
                f"expected at most {most:g}"
            )
    raise ExperimentError(
        f"search.executor: no node of {where} has {spec.cpus_per_trial:g} CPU(s) and {spec.gpus_per_trial:g} GPU(s) at once"
    )


def cluster_nodes() -> list[Mapping[str, Any]]:
    """The nodes of the cluster that this process is connected to."""
    import ray

    nodes: list[Mapping[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes


def room(spec: RaySpec, nodes: Sequence[Mapping[str, Any]]) -> int:
    """How many trials the nodes can hold at once, were they all free."""
    return sum(_fits(spec, *_size(node)) for node in nodes if node["Alive"])


def _fits(spec: RaySpec, cpus: float, gpus: float) -> int:
    trials = int(cpus / spec.cpus_per_trial + 1e-9)
    if spec.gpus_per_trial > 1:
        return int(min(trials, gpus // spec.gpus_per_trial))
    if spec.gpus_per_trial > 0:
        # A share of a GPU is a share of one, not of two.
        return int(min(trials, gpus * int(1 / spec.gpus_per_trial + 1e-9)))
    return trials


def _size(node: Mapping[str, Any]) -> tuple[float, float]:
    return node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)


def _connect(spec: RaySpec) -> None:
    import ray

    # Ray prints what happens to workers on stdout, where only tables belong; the search tells it in its own way.
    ray._private.worker._worker_logs_enabled = False
    if spec.address is None:
        check_room(spec, [{"Alive": True, "Resources": {"CPU": cores(), "GPU": math.inf}}])
        _start(cores())
        return
    if spec.address != "auto":
        reach(spec.address)
    try:
        with _environment(_ONE_ATTEMPT), _captured_stderr() as said:
            ray.init(spec.address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, RuntimeError, ValueError) as error:
        if "InvalidAuthToken" in said[0]:
            raise ExperimentError(
                f"search.executor.address: the Ray cluster at {spec.address!r} does not accept this process's token; expected that of the cluster "
                "in RAY_AUTH_TOKEN, or in the file that RAY_AUTH_TOKEN_PATH names (default ~/.ray/auth_token)"
            ) from None
        raise _unreachable(spec.address, error) from None


def reach(address: str) -> None:
    """Check that something listens at `host:port`. Imports no Ray. Raises `ExperimentError`."""
    host, port = _host_and_port(address)
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, error) from None


def _check_connected(address: str, here: str) -> None:
    """Check that the address is that of the cluster at `here`, by whatever name its host goes."""
    reach(address)
    (host, port), (own_host, own_port) = _host_and_port(address), _host_and_port(here)
    hosts = {socket.gethostbyname(name) for name in (host, own_host)}
    if port != own_port or (len(hosts) > 1 and not any(ip.startswith("127.") for ip in hosts)):
        raise ExperimentError(
            f"search.executor.address: {address!r}, but this process is connected to the Ray cluster at {here!r}; expected that, auto or null"
        )


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _unreachable(address: str, error: Exception) -> ExperimentError:
    return ExperimentError(
        f"search.executor.address: no Ray cluster to be reached at {address!r}: {_line(error)}"
    )


def _start(cores: int) -> None:
    """Start a cluster of this machine. Ray gives its processes half a minute, which is not always enough on a busy machine."""
    import ray

    for attempts_left in reversed(range(START_ATTEMPTS)):
        try:
            # "local", since without an address Ray would join whatever cluster RAY_ADDRESS names.
            ray.init(
                "local",
                num_cpus=cores,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
        except Exception as error:
            ray.shutdown()
            if not attempts_left:
                raise ExperimentError(
                    f"search.executor: Ray does not start on this machine: {_line(error)}"
                ) from error
        else:
            return


@contextlib.contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Keep from stderr what Ray's C++ says there before its log level counts; gives back a list that holds it at the end. The exception names no
    cause."""
    said = [""]
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 2)
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said[0] = file.read().decode(errors="replace")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """The settings as environment variables meanwhile, where they are not set already."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
