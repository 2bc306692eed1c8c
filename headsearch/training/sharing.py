"""A GPU that trainings of several processes share. One that finds it full is tried again alone: a neighbour may have been the cause.

Every training on a GPU holds a lock of the GPU together with the others. One that is tried again takes it alone, and new ones wait meanwhile.
The lock is of this machine (`flock`), so it does not matter who started the neighbours: this search, another, or Ray. A process that is
killed lets go of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

ALONE_SECONDS = 7200.0
"""For the others to end what they train. Where they do not, the training has failed, and its head is not blamed."""
LOOK_SECONDS = 0.5
"""Between two looks at the lock."""

Result = TypeVar("Result")


def device_was_full(error: Exception) -> bool:
    """Whether an error is torch's, or a library's below it, about a GPU without free memory."""
    signs = ("out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


class SharedGPU:
    """A GPU as all processes of this machine know it."""

    def __init__(self, name: str, waits: Callable[[str], None]) -> None:
        """`name` is the same in all processes, whatever number the GPU has in each: its UUID. `waits` is called all the time while a
        training waits, the first time with the reason, for people, and then with nothing."""
        folder = Path(tempfile.gettempdir())
        self._lock = folder / f"headsearch-{name}.lock"
        # Passed on the way to the lock. Who wants to be alone keeps it shut, or the others could take turns at the lock forever.
        self._gate = folder / f"headsearch-{name}.gate"
        self._waits = waits

    def train(self, training: Callable[[], Result]) -> Result:
        """What `training` returns; where the GPU was full, what it returns when it is called again with no other on the GPU.

        Raises:
            TimeoutError: the GPU was full, and others did not leave it within `ALONE_SECONDS`.
            Exception: whatever the training raises; that the GPU is full, where it was alone.
        """
        with self._beside_others(), _memory_given_back():
            try:
                return training()
            except RuntimeError as error:
                if not device_was_full(error):
                    raise
        with self._alone(), _memory_given_back():
            return training()

    @contextlib.contextmanager
    def _beside_others(self) -> Iterator[None]:
        why = "waits: another has found their GPU full, and is tried again alone"
        with contextlib.ExitStack() as held:
            with self._held(self._gate, fcntl.LOCK_SH, why):
                held.enter_context(self._held(self._lock, fcntl.LOCK_SH, why))
            yield

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        why = "found its GPU full, and waits until it can be tried again alone"
        with (
            self._held(self._gate, fcntl.LOCK_EX, why),
            self._held(self._lock, fcntl.LOCK_EX, why, seconds=ALONE_SECONDS),
        ):
            yield

    @contextlib.contextmanager
    def _held(self, path: Path, operation: int, why: str, seconds: float = math.inf) -> Iterator[None]:
        file = _opened(path)
        try:
            until = time.monotonic() + seconds
            while not _taken(file, operation):
                if time.monotonic() > until:
                    raise TimeoutError(f"the GPU was full, and others did not leave it within {seconds:g} s")
                self._waits(why)
                why = ""
                time.sleep(LOOK_SECONDS)
            yield
        finally:
            # Closing is not enough: processes that the training has forked may have the file open, too.
            fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)


def _opened(path: Path) -> int:
    """A file descriptor for the lock at `path`, which whoever comes first makes; other users need only be able to read it."""
    with contextlib.suppress(FileExistsError):
        path.touch(exist_ok=False)
        path.chmod(0o644)
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def _taken(file: int, operation: int) -> bool:
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _memory_given_back() -> Iterator[None]:
    """What a training took of the GPU is free again for other processes, however it ended."""
    try:
        yield
    except BaseException as error:
        # Its frames hold the tensors.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        gc.collect()
        # Without torch nothing of a GPU is held.
        if (torch := sys.modules.get("torch")) is not None:
            torch.cuda.empty_cache()
