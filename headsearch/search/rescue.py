"""What becomes of a study whose file was removed, emptied or replaced while a search wrote it: it is written anew from memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from headsearch.errors import RunError
from headsearch.runs.directory import RunDirectory
from headsearch.runs.run import read_records
from headsearch.runs.storages import close_storage, open_storage, sqlite_url
from headsearch.search.ledger import Ledger

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


@contextlib.contextmanager
def rescued(directory: RunDirectory, ledger: Ledger, storage: BaseStorage) -> Iterator[None]:
    """However what is done meanwhile ends, the run's own study is then on disk with every trial that the ledger has.

    Raises:
        RunError: it had to be written anew.
    """
    try:
        yield
    finally:
        # Until nobody is connected to it, a file that is gone can be read.
        close_storage(storage)
        if not _is_whole(directory, ledger):
            raise RunError(
                f"{directory.study_path} was removed, damaged or replaced while the search ran; {_write_anew(directory, ledger)}"
            )


def _is_whole(directory: RunDirectory, ledger: Ledger) -> bool:
    try:
        found = read_records(directory.path)
    except RunError:
        return False
    return {record.number for record in ledger.records} <= {record.number for record in found}


def _write_anew(directory: RunDirectory, ledger: Ledger) -> str:
    """Write the study from the ledger; whatever is in its place is kept beside it.

    Returns what was done, for people.

    Raises:
        RunError: it cannot be written.
    """
    path, facts = directory.study_path, directory.facts()
    fresh = path.with_name("study.db.new")
    kept = ""
    try:
        for suffix in ("", "-wal", "-shm"):
            fresh.with_name(f"{fresh.name}{suffix}").unlink(missing_ok=True)
        storage = open_storage(sqlite_url(fresh))
        try:
            ledger.copy_to(storage, facts.study, facts.to_dict())
        finally:
            close_storage(storage)
        for suffix in ("-wal", "-shm"):
            path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
        if path.exists():
            lost = path.with_name("study.db.lost")
            path.replace(lost)
            kept = f", what was in its place is {lost.name}"
        fresh.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written anew: {error.strerror or error}") from None
    return (
        f"it has been written anew from memory, with {len(ledger.records)} trials{kept}; go on with --resume"
    )
