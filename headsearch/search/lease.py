"""Who may write a study: one process at a time, whatever machine it is on. The lease is kept in the study, where all of them see it.

Its holder writes a beat every few seconds. A lease is dead where its holder's process has gone from this machine, or where no new beat comes for
`SILENT_SECONDS`; no two clocks are compared. Whoever takes over a dead one writes its own token, and the former holder, should it still live, stops
before its next write. So does the holder of a study that was removed, emptied or replaced meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headsearch.errors import RunError
from headsearch.runs.failures import in_one_line, telling_when_away
from headsearch.search.patience import Patience

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

KEY = "headsearch:lease"
"""The attribute of the study that holds it."""
CANNOT_BE_READ = "the study cannot be read"
BEAT_SECONDS = 5.0
SILENT_SECONDS = 30.0
"""Without a new beat, after which a holder on another machine is taken for dead."""
SETTLE_SECONDS = 0.5
"""Two that take a lease at the same time both see, after so long, who wrote last."""


_held: set[str] = set()
"""Tokens of the leases that this process holds."""


class StudyLost(RunError):
    """The study is not there any more, or is not ours any more."""


class Lease:
    """The right to write one study, as long as `held` lasts."""

    def __init__(self, storage: BaseStorage, study: str, file: Path | None, patience: Patience) -> None:
        """`file` is the study's, where it is one file of SQLite; `patience` is for a database that is away meanwhile.

        Raises:
            RunError: the storage fails.
            KeyError: it has no such study.
        """
        self._storage, self._name, self._file, self._patience = storage, study, file, patience
        self._study = patience(lambda: storage.get_study_id_from_name(study))
        self._content: dict[str, Any] = {
            "token": secrets.token_hex(8),
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "since": datetime.now().isoformat(timespec="seconds"),
            "beat": 0,
        }
        self._inode = None if file is None else _inode(file)
        self._confirmed = 0.0
        self._released = threading.Event()

    @contextlib.contextmanager
    def held(self, *, shared: bool, note: Callable[[str], None]) -> Iterator[None]:
        """Take the lease and give it back. A study that is `shared` by several machines takes half a second to be sure of.

        Raises:
            RunError: another process holds it.
        """
        self._patience(lambda: self._wait_for_a_dead_one(note))
        self._patience(self._write)
        if shared:
            time.sleep(SETTLE_SECONDS)
        self._patience(self.confirm)
        _held.add(self._content["token"])
        beats = threading.Thread(target=self._beat, name="lease", daemon=True)
        beats.start()
        try:
            yield
        finally:
            self._released.set()
            beats.join()
            _held.discard(self._content["token"])
            # Where the study is lost or away, there is nothing to give back.
            with contextlib.suppress(RunError), in_one_line(CANNOT_BE_READ):
                self.confirm()
                self._store(None)

    def check(self) -> None:
        """Check, at little cost, that the study is still ours. Raises `StudyLost`, and whatever the storage raises."""
        if self._file is not None and _inode(self._file) != self._inode:
            raise StudyLost(
                f"{self._file}: was removed or replaced while the search ran; go on with --resume"
            )
        # A process that was stopped for a while may have been taken for dead.
        if time.time() - self._confirmed > SILENT_SECONDS / 2:
            self.confirm()

    def confirm(self) -> None:
        """The same by a look into the study."""
        found = self._read()
        if found is None:
            raise StudyLost(f"the study '{self._name}' was emptied or replaced while the search ran")
        if found["token"] != self._content["token"]:
            raise StudyLost(
                f"the study '{self._name}' was taken over by another headsearch run ({_named(found)})"
            )
        self._confirmed = time.time()

    def _wait_for_a_dead_one(self, note: Callable[[str], None]) -> None:
        found = self._read()
        if found is None or _is_gone(found):
            return
        held = f"the study '{self._name}' is held by another headsearch run ({_named(found)})"
        if found["machine"] != self._content["machine"]:
            note(f"{held}; waiting {SILENT_SECONDS:g} s for a sign of life")
            until = time.monotonic() + SILENT_SECONDS
            while (now := self._read()) == found:
                if time.monotonic() > until:
                    return
                time.sleep(BEAT_SECONDS / 5)
            if now is None:
                return
        raise RunError(f"{held}; wait for it or stop it")

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            # Whatever is wrong, the next write of the search says it.
            with contextlib.suppress(RunError), in_one_line(CANNOT_BE_READ):
                self.check()
                self.confirm()
                self._write()

    def _write(self) -> None:
        self._content["beat"] += 1
        self._store(dict(self._content))

    def _store(self, content: dict[str, Any] | None) -> None:
        with telling_when_away():
            self._storage.set_study_system_attr(self._study, KEY, content)

    def _read(self) -> dict[str, Any] | None:
        try:
            with telling_when_away():
                found: dict[str, Any] | None = self._storage.get_study_system_attrs(self._study).get(KEY)
        except KeyError:
            return None
        return found


def _named(content: dict[str, Any]) -> str:
    return f"process {content['pid']} on {content['host']}, since {content['since']}"


def _is_gone(content: dict[str, Any]) -> bool:
    """Whether the holder is a process of this machine that is no more, or this one, which could not give it back."""
    here: bool = content["machine"] == _machine()
    if here and content["pid"] == os.getpid() and content["started"] == _started(os.getpid()):
        return content["token"] not in _held
    return here and content["started"] != _started(content["pid"])


def _machine() -> str:
    """What tells this machine from others, as far as its processes can be seen from here: two containers are two machines."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process began, as the system counts; None where there is none. Numbers of processes come again."""
    try:
        # The name, in brackets, may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except OSError:
        return None
