"""The toy objective for executors: it leaves in a folder what was trained, and by which process, however the process ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headsearch.testing.toy import ToyEvaluator
from headsearch.training.trial import RungScores, Training, TrainingContext, TrainingResult

MEETING_SECONDS = 300.0
"""For the first trials to find each other: workers may have to start."""


@dataclass(frozen=True)
class DiaryToy:
    """The toy objective, with a diary of what was trained that outlives the process. Implements `Evaluate`; picklable."""

    diary: Path
    """A folder on the disk of the tester."""
    toy: ToyEvaluator = field(default_factory=ToyEvaluator)
    deaths: Mapping[str, int] = field(default_factory=dict)
    """At which epoch a trial kills its process when it is trained for the first time, by family."""
    together: int = 0
    """So many trials wait for each other before any is trained, and say so."""

    def __call__(self, training: Training, context: TrainingContext) -> TrainingResult:
        """Train in words only, and write it down."""
        family = training.candidates[0].config.family
        file = self.diary / f"diary-{family}-{training.seed}.txt"
        again = file.exists()
        Diary.write(file, f"begin {os.getpid()}")
        if self.together:
            self._meet(context)
        death = None if again else self.deaths.get(family)
        return self.toy(training, _Noted(context, file, death))

    def _meet(self, context: TrainingContext) -> None:
        """Raises `AssertionError` where the others do not come."""
        deadline = time.monotonic() + MEETING_SECONDS
        why = "waits for the others"
        while True:
            context.waits(why)
            if len(list(self.diary.glob("diary-*"))) >= self.together:
                return
            assert time.monotonic() < deadline, f"fewer than {self.together} trials run at once"
            why = ""
            time.sleep(0.01)


@dataclass(frozen=True)
class _Noted:
    """A training's context that writes down every epoch."""

    context: TrainingContext
    file: Path
    death: int | None

    def report(self, place: int, scores: RungScores) -> None:
        self.context.report(place, scores)

    def progress(self, epoch: float, epochs: int, loss: float, images_per_second: float) -> None:
        Diary.write(self.file, str(int(epoch)))
        if epoch == self.death:
            os.kill(os.getpid(), signal.SIGKILL)
        self.context.progress(epoch, epochs, loss, images_per_second)

    def waits(self, why: str) -> None:
        self.context.waits(why)


class Diary:
    """What was trained of one head with one seed."""

    def __init__(self, folder: Path, head_id: str, seed: int) -> None:
        (file,) = folder.glob(f"diary-*-{seed}.txt")
        text = file.read_text(encoding="utf-8")
        attempts = [[int(number) for number in attempt.split()] for attempt in text.split("begin")[1:]]
        self.attempts = [epochs for _, *epochs in attempts]
        """The epochs of every attempt."""
        self.processes = [process for process, *_ in attempts]
        """The process of every attempt."""

    @staticmethod
    def write(file: Path, line: str) -> None:
        """Add a line that a process killed right after has still written."""
        with file.open("a", encoding="utf-8") as diary:
            diary.write(f"{line}\n")

    @staticmethod
    def lines(folder: Path) -> int:
        """How much has been written in all."""
        return sum(len(file.read_text(encoding="utf-8").split()) for file in folder.glob("diary-*"))
