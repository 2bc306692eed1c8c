"""Signals that ask a process to end: all are as gentle as Ctrl-C. Clusters, systemd and `timeout` send SIGTERM, an ssh connection that
closes SIGHUP, SLURM SIGUSR1 where it is told to."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Signals that ask for an end."""


_came: int = signal.SIGINT
"""The signal behind a `KeyboardInterrupt`. Not an attribute of the exception: Ray's C++ raises one of its own in its place."""


def exit_code() -> int:
    """What a shell expects of a process that was interrupted: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + _came


@contextlib.contextmanager
def like_ctrl_c() -> Iterator[None]:
    """Meanwhile, the first of the other signals raises `KeyboardInterrupt` in the main thread; those that follow change nothing. What was ignored
    before (`nohup`) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    others = [number for number in ENDING[1:] if signal.getsignal(number) is signal.SIG_DFL]

    def interrupt(number: int, frame: FrameType | None) -> None:
        global _came
        _came = number
        for other in others:
            signal.signal(other, lambda *_: None)
        raise KeyboardInterrupt

    for number in others:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in others:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def interrupted_once() -> Iterator[None]:
    """Meanwhile, a signal interrupts as ever, but one more does not interrupt what the first has set off: ending workers takes no time, and
    Python would wait for ever for one that was left out."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: handler for number in ENDING if callable(handler := signal.getsignal(number))}

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Not SIG_IGN, which a process that is being started would inherit.
        for other in former:
            signal.signal(other, lambda *_: None)
        former[signal.Signals(number)](number, frame)

    for number in former:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def noted() -> Iterator[list[int]]:
    """The numbers of the signals that come meanwhile, which end nothing, however often they come: a scheduler and torchrun may both pass the same
    one on. Outside the main thread, where Python lets nobody handle signals, none is noted."""
    received: list[int] = []
    with kept_handlers():
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                signal.signal(number, lambda number, _: received.append(number))
        yield received


@contextlib.contextmanager
def kept_handlers() -> Iterator[None]:
    """Put back what a library does to the handlers meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
