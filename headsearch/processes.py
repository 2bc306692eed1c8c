"""Processes that train for another: they begin without its script, end with it, and can be ended with all that they have started."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import ModuleType


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Meanwhile, a process that is started does not begin by importing the script that runs here: nothing of it is needed, and one that calls
    `headsearch.search` outside of `if __name__ == "__main__"` would search again."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def end_with_parent() -> None:
    """Have this process end as soon as the one that started it is gone, however it went, and with it all that this one has started."""
    end_after(parent_ends)


def end_after(gone: Callable[[], object]) -> None:
    """Have this process end, and with it all that it has started, once `gone` has returned, which is called in a thread.

    It gets a group of its own: Ctrl-C in the terminal is the business of who started it.
    """
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    threading.Thread(target=_end, args=(gone,), daemon=True).start()


def parent_ends() -> None:
    """Wait until the process that started this one is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "called by a process that another has started"
    wait([parent.sentinel])


def strike(process: BaseProcess) -> None:
    """Kill a process that called `end_after`, and all it has started; do not wait for it."""
    if process.pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        # Where it had no time to make its group.
        process.kill()


def ending(process: BaseProcess) -> str:
    """How a process that is over ended, for people."""
    code = process.exitcode
    return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def _end(gone: Callable[[], object]) -> None:
    gone()
    os.killpg(0, signal.SIGKILL)
