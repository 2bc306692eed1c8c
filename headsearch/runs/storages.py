"""Opens the storage of a study. The only place that knows which kinds of storage there are.

    null                                study.db in the run directory (SQLite)
    sqlite:///study.db                  a file
    postgresql://me@host/database       PostgreSQL, through psycopg
    mysql://me@host/database            MySQL and MariaDB, through PyMySQL
    journal:///study.log                a file of Optuna's that is only appended to, which network file systems bear
    grpc://host:13000                   Optuna's proxy in front of a database

`${NAME}` in a URL stands for an environment variable (`headsearch.secrecy`), so that a password need not be written down.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from headsearch.errors import RunError
from headsearch.runs.failures import cause_of
from headsearch.secrecy import masked, resolved

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage

PROXY_SECONDS = 10.0
"""For a proxy to answer."""
PROXY_PORT = 13000
"""Optuna's default."""
_JOURNAL = b'{"op_code":'
"""What every line of a journal begins with. A file that does not is somebody's, and left alone."""


def open_storage(setting: str, *, reading: bool = False) -> BaseStorage:
    """The storage that `search.storage` names; what it needs (tables, a file) is made where it is missing, unless it is only read.

    Raises:
        RunError: the URL makes no sense, what it needs is not installed, or the storage cannot be reached.
    """
    url, shown = resolved(setting, "search.storage"), masked(setting)
    scheme, _, address = url.partition("://")
    if scheme == "journal":
        return _open_journal(address, shown, reading=reading)
    if scheme == "grpc":
        return _open_proxy(address, shown)

    from headsearch.runs.database import open_database

    return open_database(url, shown, reading=reading)


def sqlite_url(path: Path) -> str:
    """The URL of a study in a file."""
    import sqlalchemy

    return sqlalchemy.URL.create("sqlite", database=str(path.absolute())).render_as_string(
        hide_password=False
    )


def close_storage(storage: BaseStorage) -> None:
    """Let go of connections; SQLite then folds its log into the file, which alone can be copied away."""
    from optuna.storages import GrpcStorageProxy, RDBStorage

    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()
    elif isinstance(storage, GrpcStorageProxy):
        storage.close()


def _open_journal(address: str, shown: str, *, reading: bool) -> JournalStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if not address.startswith("/") or address == "/":
        raise RunError(
            f"search.storage: '{shown}' names no file; expected journal:///relative.log or journal:////absolute/path.log"
        )
    # Absolute, because the lock beside it is a link to it.
    path = Path(address[1:]).absolute()
    if reading and not path.exists():
        raise RunError(f"search.storage: there is no file {path}")
    try:
        if not reading:
            _mend_journal(path)
        return JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        raise RunError(f"search.storage: {cause_of(error)}") from None
    except (ValueError, KeyError, TypeError):
        raise RunError(f"search.storage: {path} is not a journal of Optuna's") from None


def _mend_journal(path: Path) -> None:
    """Cut off half a line at the end, as a full disk or a power cut leaves it: what is appended to it could never be read.

    Raises:
        OSError: the file, or its folder, which is to hold the lock, cannot be written.
        ValueError: it is something else than a journal.
    """
    from optuna.storages.journal import JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        with path.open("ab+") as file:
            end = file.tell()
            file.seek(0)
            if end > 0 and file.read(len(_JOURNAL)) != _JOURNAL:
                raise ValueError(f"{path} does not begin with {_JOURNAL!r}")
            file.seek(0)
            whole = sum(len(line) for line in file if line.endswith(b"\n"))
            if whole < end:
                file.truncate(whole)
    finally:
        lock.release()


def _open_proxy(address: str, shown: str) -> GrpcStorageProxy:
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import GrpcStorageProxy

    found = re.fullmatch(r"([\w.-]+|\[[0-9a-fA-F:]+\])(?::(\d+))?/?", address)
    if found is None:
        raise RunError(f"search.storage: '{shown}' is not an address; expected grpc://host:{PROXY_PORT}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            storage = GrpcStorageProxy(host=found[1], port=int(found[2] or PROXY_PORT))
    except ImportError:
        raise RunError(
            f"search.storage: what {shown} needs is not installed; install it with: pip install 'headsearch[grpc]'"
        ) from None
    try:
        storage.wait_server_ready(PROXY_SECONDS)
    except ConnectionError:
        storage.close()
        raise RunError(
            f"search.storage: {shown} cannot be reached: no answer within {PROXY_SECONDS:g} s"
        ) from None
    return storage
