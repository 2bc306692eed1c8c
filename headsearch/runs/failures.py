"""How storages fail: what may pass and what may not, and what people are told, in one line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from headsearch.errors import HeadsearchError, RunError
from headsearch.secrecy import redacted


class StorageAway(HeadsearchError):
    """A database that does not answer, and may do so again. Nobody knows whether what was asked of it last has been done."""


class NumberTaken(HeadsearchError):
    """A trial was not created, because its study has a trial of that number."""


@contextlib.contextmanager
def in_one_line(failed: str, then: str = "") -> Iterator[None]:
    """Have a storage that fails end what was attempted with one line: `failed`, the cause, and what to do `then`."""
    try:
        yield
    except _errors() as error:
        raise RunError(f"{failed}: {cause_of(error)}{then}") from error


@contextlib.contextmanager
def telling_when_away() -> Iterator[None]:
    """Have an error of the gRPC proxy that may pass be a `StorageAway`. Databases raise that by themselves."""
    grpc = sys.modules.get("grpc")
    if grpc is None:
        yield
        return
    try:
        yield
    except grpc.RpcError as error:
        # UNKNOWN: an exception on the proxy's side, where a database that is away is the likely one.
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN):
            raise StorageAway(cause_of(error)) from error
        raise


def cause_of(error: BaseException) -> str:
    """What is behind an error of a storage, in one line."""
    cause = getattr(error.__cause__, "orig", None) or getattr(error, "orig", None) or error
    if isinstance(cause, OSError) and cause.strerror:
        return redacted(f"{cause.filename}: {cause.strerror}" if cause.filename else cause.strerror)
    details = getattr(cause, "details", None)
    text = str(details() if callable(details) else cause)
    # PyMySQL's errors are pairs of a number and a text.
    if isinstance(cause, Exception) and len(cause.args) == 2 and isinstance(cause.args[0], int):
        text = str(cause.args[1])
    # psycopg repeats itself for every address that a host name has.
    return redacted(" ".join(text.split("Multiple connection attempts failed")[0].split()))


def _errors() -> tuple[type[Exception], ...]:
    """What Optuna's storages raise when they fail."""
    import sqlalchemy.exc
    from optuna.exceptions import StorageInternalError

    grpc = sys.modules.get("grpc")
    of_proxy = () if grpc is None else (grpc.RpcError,)
    return (StorageAway, StorageInternalError, sqlalchemy.exc.SQLAlchemyError, OSError, *of_proxy)
