"""SIGTERM, Ctrl-C and their like as a wish to stop at the next step, which the training loop asks for: a scheduler's pre-emption loses nothing."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from headsearch.signals import ENDING


class StopSignals:
    """While the context lasts, the signals are noted instead of ending the process, however often they come: a scheduler and torchrun
    may both pass the same one on.

    Outside the main thread, where Python lets nobody handle signals, it notes nothing.
    """

    def __init__(self) -> None:
        self.received = 0
        """The number of the signal that came, 0 while none has."""
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in ENDING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
