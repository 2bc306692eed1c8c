"""Live progress of a pretraining on stderr: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from headsearch.pretrain.observer import PretrainObserver
from headsearch.results.text import duration


@contextmanager
def pretrain_display(*, quiet: bool) -> Iterator[PretrainObserver]:
    """The observer that suits where stderr goes. Notes are shown even when quiet."""
    console = Console(stderr=True, highlight=False)
    if quiet or not console.is_terminal:
        yield LineDisplay(console, quiet=quiet)
        return
    with bars_on(console) as bars:
        yield BarDisplay(bars)


def bars_on(console: Console) -> Progress:
    """Bars that go when they are done, with what is `told` of each behind it; lines of its console stand above them."""
    told = TextColumn("{task.fields[told]}", markup=False)
    named = TextColumn("{task.description}", markup=False)
    return Progress(named, BarColumn(bar_width=24), told, console=console, transient=True)


class LineDisplay(PretrainObserver):
    """A line for each epoch: for logs and pipes."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet

    def images_read(self, understood: str) -> None:
        self._line(understood)

    def started(self, *, epochs: int, epoch: float, steps: int) -> None:
        self._line(
            f"{'resuming' if epoch else 'starting'} at epoch {epoch:.2f} of {epochs}, {steps:,} steps in all"
        )

    def epoch_ended(self, record: Mapping[str, Any]) -> None:
        self._line(_told(record))

    def note(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, soft_wrap=True)

    def _line(self, text: str) -> None:
        if not self._quiet:
            self.note(text)


class BarDisplay(LineDisplay):
    """A bar for the schedule, and a line for each epoch above it."""

    def __init__(self, bars: Progress) -> None:
        super().__init__(bars.console)
        self._bars = bars
        self._bar = bars.add_task("pretraining", total=1.0, told="")

    def started(self, *, epochs: int, epoch: float, steps: int) -> None:
        super().started(epochs=epochs, epoch=epoch, steps=steps)
        self._bars.update(self._bar, total=epochs, completed=epoch)

    def progress(self, *, epoch: float, loss: float, images_per_second: float, seconds_left: float) -> None:
        told = f"epoch {epoch:.2f}  loss {loss:.3f}  {images_per_second:,.0f} images/s  about {duration(seconds_left)} left"
        self._bars.update(self._bar, completed=epoch, told=told)


def _told(record: Mapping[str, Any]) -> str:
    parts = [
        f"epoch {record['epoch']}: loss {record['loss']:.4f}",
        f"{record['images_per_second']:,.0f} images/s",
    ]
    if record.get("knn") is not None:
        parts.append(f"k-NN {record['knn']:.1f} %")
    if record.get("discrepancy") is not None:
        parts.append(f"discrepancy {record['discrepancy']:.3f}")
    return ", ".join(parts)
