"""A plug-in of headsearch: an executor of our own, which waits with every training while others use this machine.

    headsearch run --plugin polite_executor.py --set 'search.executor={kind: polite, kwargs: {load: 1.5}}'

An executor asks `source` for trainings, has each attempted wherever it likes, and settles it with the outcome. A training and an outcome are
plain data that can travel to another machine; `attempt` runs one there as it does here.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import Annotated

from pydantic import Field

from headsearch.experiment.guests import ExecutorEntry
from headsearch.options import Options
from headsearch.search.executors import attempt


class PoliteOptions(Options):
    """What `kwargs` may hold."""

    load: Annotated[float, Field(gt=0)] = 1.0
    """Processes that want a core, on average over the last minute, from which on a training waits."""
    seconds: Annotated[float, Field(gt=0)] = 30.0
    """Between two looks."""


class Polite:
    """One training after the other in this process."""

    def __init__(self, options):
        self.options = options

    def run(self, source, evaluate):
        while (training := source.next_training()) is not None:
            if os.getloadavg()[0] >= self.options.load:
                source.note(f"trial {training.number} waits until the machine is free")
            while os.getloadavg()[0] >= self.options.load:
                time.sleep(self.options.seconds)
            outcome = attempt(evaluate, training, source.report, source.progress, source.waits)
            source.settle(training, outcome)


@contextmanager
def open_polite(options, run, device):
    """The executor, for as long as the context lasts. Connect to what it needs here, and raise a `UserError` of headsearch's where that fails."""
    yield Polite(options)


PLUGINS = [ExecutorEntry("polite", PoliteOptions, open_polite)]
