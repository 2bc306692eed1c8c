"""A plug-in of headsearch: a callback of our own, which writes a line for every trial that has ended.

    headsearch run --plugin diary_callback.py --set 'search.callbacks=[{kind: diary, kwargs: {file: diary.txt}}]'

A callback is told everything after it has been written to the study. Should it fail, it is told no more, and the search goes on. For a log per
trial, with values over epochs, extend `headsearch.search.callbacks.tracker.Tracker`.
"""

from __future__ import annotations

from headsearch.experiment.guests import CallbackEntry
from headsearch.options import Options
from headsearch.search.callbacks.broadcast import Callback


class DiaryOptions(Options):
    """What `kwargs` may hold."""

    file: str = "diary.txt"
    """In the run directory."""


class Diary(Callback):
    """Number, head and end of every trial. `headsearch.search.observer.Observer` says what else a callback is told."""

    def __init__(self, options, subject):
        # A search that goes on, goes on in its file.
        self.file = (subject.folder / options.file).open("a", encoding="utf-8", buffering=1)

    def training_ended(self, records, status):
        for record in records:
            self.file.write(f"{record.number} {record.head_id} {record.state}\n")

    def close(self):
        self.file.close()


PLUGINS = [CallbackEntry("diary", DiaryOptions, Diary)]
