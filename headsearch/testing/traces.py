"""The toy objective for executors: it leaves in a folder what was trained, by which process, and beside whom, however the process ends.

DiaryToy      writes down every epoch, can kill its process, and lets trials wait for each other
CrowdedToy    trains on a GPU that has room for one training
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headsearch.testing.toy import ToyEvaluator
from headsearch.training.sharing import SharedGPU
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
    together: int = 1
    """So many trials wait for each other before any is trained."""

    def __call__(self, training: Training, context: TrainingContext) -> TrainingResult:
        """Train in words only, and write it down."""
        family = training.candidates[0].config.family
        file = self.diary / f"diary-{family}-{training.seed}.txt"
        again = file.exists()
        Diary.write(file, f"begin {os.getpid()}")
        meet(self.diary, "diary-*", self.together)
        death = None if again else self.deaths.get(family)
        return self.toy(training, _Noted(context, file, death))


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


@dataclass(frozen=True)
class CrowdedToy:
    """The toy objective on a GPU that holds one training, with what is at work there in a folder. Implements `Evaluate`; picklable."""

    folder: Path
    """On the disk of the tester."""
    together: int
    """So many trials wait for each other before any is trained."""

    def __call__(self, training: Training, context: TrainingContext) -> TrainingResult:
        """Train in words only, alone where others were there before."""

        def waits(why: str) -> None:
            (self.folder / f"waits-{training.number:03}").touch()
            context.waits(why)

        gpu = SharedGPU(hashlib.sha256(str(self.folder).encode()).hexdigest()[:12], waits)
        return gpu.train(lambda: self._trained(training, context))

    def _trained(self, training: Training, context: TrainingContext) -> TrainingResult:
        here = self.folder / f"at-work-{training.number:03}"
        again = (self.folder / f"tried-{training.number:03}").exists()
        # In this order: whoever has met the others sees all of them at work.
        here.touch()
        (self.folder / f"tried-{training.number:03}").touch()
        try:
            if again:
                assert self._at_work() == [here], "it is tried again beside others"
                return ToyEvaluator(seconds_per_epoch=0.1)(training, context)
            meet(self.folder, "tried-*", self.together)
            if self._at_work()[0] != here:
                raise RuntimeError("CUDA out of memory: toy")
            # It stays until the others have seen that they must wait.
            meet(self.folder, "waits-*", self.together - 1)
            return ToyEvaluator()(training, context)
        finally:
            assert not again or self._at_work() == [here], "another began while it was tried again alone"
            here.unlink()

    def _at_work(self) -> list[Path]:
        return sorted(self.folder.glob("at-work-*"))


def meet(folder: Path, files: str, count: int) -> None:
    """Wait until there are so many files in the folder. Raises `AssertionError` where they do not come."""
    deadline = time.monotonic() + MEETING_SECONDS
    while len(list(folder.glob(files))) < count:
        if time.monotonic() > deadline:
            raise AssertionError(f"fewer than {count} trials run at once")
        time.sleep(0.01)
