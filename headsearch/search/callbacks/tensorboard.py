"""TensorBoard: an event file per trial in `<run>/tensorboard/<trial>/`. `tensorboard --logdir runs` shows them, also while the search runs.

Written with TensorBoard's own writer, which needs neither torch nor TensorFlow.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from headsearch.results.records import State
from headsearch.search.callbacks.tracker import LoggedTrial, Subject, Tracker

FLUSH_SECONDS = 30
"""After which a reader sees what was logged, at the latest."""


class TensorBoardCallback(Tracker):
    """Loss and scores as scalars, the head's parameters as hyperparameters, head and experiment as text."""

    name = "tensorboard"

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self._subject = subject
        self._writers: dict[int, EventFileWriter] = {}

    def begin(self, trial: LoggedTrial) -> None:
        folder = self._subject.folder / "tensorboard" / trial.title
        # One file more for every session.
        writer = EventFileWriter(str(folder), flush_secs=FLUSH_SECONDS)
        self._writers[trial.number] = writer
        parameters = {name: "null" if value is None else value for name, value in trial.parameters.items()}
        self._write(writer, 0, hparams_pb(parameters, trial_id=f"{self._subject.key}/{trial.number}"))
        self._write(writer, 0, text_pb("head", _as_code(trial.candidate.head_id)))
        self._write(writer, 0, text_pb("experiment", _as_code(self._subject.experiment)))

    def log(self, number: int, epoch: int, values: Mapping[str, float]) -> None:
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(self._writers[number], epoch, Summary(value=scalars))

    def end(self, number: int, state: State, reason: str | None) -> None:
        writer = self._writers.pop(number)
        self._write(writer, 0, text_pb("end", state if reason is None else f"{state}: {reason}"))
        writer.close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _write(self, writer: EventFileWriter, epoch: int, summary: Summary) -> None:
        writer.add_event(Event(wall_time=time.time(), step=epoch, summary=summary))


def _as_code(text: str) -> str:
    """Markdown that shows the text as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())
