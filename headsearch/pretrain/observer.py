"""Who is told how a pretraining goes. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PretrainObserver:
    """Told by the first rank alone, from its training loop: answers should be quick. This one ignores everything."""

    def images_read(self, understood: str) -> None:
        """The images are read; `understood` says in one line how many are for what, and the classes."""

    def started(self, *, epochs: int, epoch: float, steps: int) -> None:
        """Training begins, or goes on, at `epoch`; the schedule has `steps` steps."""

    def progress(self, *, epoch: float, loss: float, images_per_second: float, seconds_left: float) -> None:
        """A few times a second at most."""

    def epoch_ended(self, record: Mapping[str, Any]) -> None:
        """An epoch is over; `record` is its line of `metrics.jsonl`."""

    def note(self, text: str) -> None:
        """Something a person should know: a checkpoint that could not be read, files left out, a collapse."""
