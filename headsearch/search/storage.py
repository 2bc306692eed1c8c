"""Opens the storage of a study. The only place that knows which kinds of storage there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headsearch.errors import RunError

if TYPE_CHECKING:
    import sqlite3

    from optuna.storages import BaseStorage


def open_storage(url: str) -> BaseStorage:
    """The storage at an Optuna URL (`sqlite:///…`, `postgresql://…`, `mysql://…`), its tables made where they are missing.

    Raises:
        RunError: the URL makes no sense, its driver is not installed, or the database cannot be reached.
    """
    import sqlalchemy.event
    import sqlalchemy.exc
    from optuna.storages import RDBStorage

    try:
        storage = RDBStorage(url)
    except (ValueError, sqlalchemy.exc.ArgumentError):
        raise RunError(
            f"search.storage: {url!r} is not a storage URL; expected e.g. sqlite:///study.db"
        ) from None
    except ImportError:
        raise RunError(f"search.storage: the driver for {_safe(url)} is not installed") from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise RunError(
            f"search.storage: {_safe(url)} cannot be reached: {' '.join(str(cause).split())}"
        ) from None

    if storage.engine.dialect.name == "sqlite":
        sqlalchemy.event.listen(storage.engine, "connect", _write_ahead)
        # The connection that made the tables is let go, so that every one in use has been told.
        storage.engine.dispose()
    return storage


def sqlite_url(path: Path) -> str:
    """The URL of a study in a file."""
    import sqlalchemy

    url = sqlalchemy.URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)
    # Optuna takes a URL for a template.
    return url.replace("{", "{{").replace("}", "}}")


def close_storage(storage: BaseStorage) -> None:
    """Let go of connections; SQLite then folds its log into the file, which alone can be copied away."""
    from optuna.storages import RDBStorage

    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def _write_ahead(connection: sqlite3.Connection, _record: object) -> None:
    """Write ahead: readers do not hold up the writer, and a commit need not wait for the disk (26 ms on a busy one, five times a trial).

    A killed process loses nothing. After a power cut the last commits may be missing, never half of one: those trials are run again.
    """
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _safe(url: str) -> str:
    """The URL without its password."""
    import sqlalchemy

    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "the storage"
