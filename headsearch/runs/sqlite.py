"""Looks into a SQLite file without changing a byte of it or of its folder, also while another process writes it, and after one was killed.

SQLite keeps what was committed last in a second file (`-wal`), and an index of that one in a third (`-shm`), which a reader would write to.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SECONDS = 10.0
"""To wait for a file that another process holds."""
_ATTEMPTS = 20
"""Readings of a file that changes meanwhile, before it is said to be broken."""
_BESIDE = ("", "-wal", "-journal")
"""What a database consists of, by the ends of the files' names. `-shm` can be made anew."""
_LOG_HEADER = 32
"""Bytes of a log before its first page."""


def look(path: Path, ask: Callable[[sqlite3.Connection], T]) -> T:
    """What `ask` gets from the database as it is now. It may be called again, and must only read.

    Raises:
        sqlite3.Error, UnicodeDecodeError: it cannot be read; the latter where its schema is damaged.
        OSError: it cannot be opened.
    """
    for attempt in range(_ATTEMPTS):
        before = stamps(path)
        try:
            with _connected(path) as database:
                answer = ask(database)
            if _held(path) or stamps(path) == before:
                return answer
        except (sqlite3.Error, UnicodeDecodeError, OSError):
            if attempt == _ATTEMPTS - 1 or stamps(path) == before:
                raise
    return answer


def stamps(path: Path) -> tuple[object, ...]:
    """What changes whenever the database does."""
    return tuple(stamp(path.with_name(path.name + end)) for end in _BESIDE)


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever a file does; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _held(path: Path) -> bool:
    """Whether SQLite itself keeps a reader's view whole: there is a log, and the index over which readers and writers agree.

    Not with a log of no page yet: if its writer was killed, SQLite cannot make the index anew, and says "locking protocol".
    """
    return _size(path, "-wal") > _LOG_HEADER and _size(path, "-shm") > 0


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    if _held(path):
        # The index is read where a writer keeps it up to date, and else, after a writer was killed, made anew in memory.
        with _opened(path, "mode=ro&readonly_shm=1") as database:
            yield database
    elif _size(path, "-wal") > 0 or _size(path, "-journal") > 0:
        # What a killed writer left must be worked in before it can be read, which is done to a copy.
        with tempfile.TemporaryDirectory(prefix="headsearch-") as folder:
            for end in _BESIDE:
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(path.with_name(path.name + end), Path(folder) / f"copy.db{end}")
            with _opened(Path(folder) / "copy.db", "mode=rw") as database:
                yield database
    else:
        with _opened(path, "mode=ro&immutable=1") as database:
            yield database


@contextlib.contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?{mode}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=SECONDS)) as database:
        # Of what is no text the rest is shown.
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        # All questions are answered from one state of it.
        database.execute("BEGIN")
        yield database


def _size(path: Path, end: str) -> int:
    found = stamp(path.with_name(path.name + end))
    return 0 if found is None else found[2]
