"""What runs in a Ray worker: one trial at a time, in a folder of the node's own, and messages about it through Tune.

The trial's folder travels as a Tune checkpoint, with every rung, with every new checkpoint, and at the end. The coordinating
process unpacks it into the run directory; a worker on another node that takes the trial up begins with it.
"""

from __future__ import annotations

import os
import pickle
import socket
import tempfile
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.fs
from ray import tune

from headsearch.search.executors import Failed, attempt, failure
from headsearch.search.executors.placement import Placement
from headsearch.search.executors.worker import Ended, Message, Progressed, Reported, Waits
from headsearch.training.trial import CHECKPOINTS, Evaluate, RungScores, Training

MESSAGE = "message"
"""Under which key of a Tune result a message is found."""
MARKER = ".headsearch"
"""A file in the folder that checkpoints travel through."""
PROGRESS_SECONDS = 1.0
"""Between two messages about progress: each has the trial wait until the coordinating process has read it."""


@dataclass(frozen=True)
class Assignment:
    """What a worker is told of a training."""

    training: Training
    placement: Placement
    directory: Path
    """Where the coordinating process runs; relative paths of the experiment start there."""
    passage: str
    """What checkpoints travel through, as a path or URL."""
    resume: str | None
    """Where the folder of a trial that was begun in an earlier session lies, as a path or URL; None for a new trial."""


def run_trial(config: dict[str, Any], packed: bytes) -> None:
    """Tune's trainable: run the assignment of `config` with the pickled evaluator in `packed`."""
    # Tune lets go of a worker whose trial was stopped but has not unwound yet, and forgets the next trial with it.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "600"
    assignment: Assignment = config["assignment"]
    if not _sees(assignment.passage):
        reason = (
            f"{socket.gethostname()} does not see {assignment.passage}, which checkpoints travel through; "
            "expected search.executor.storage to be a folder that all nodes see, or a URL"
        )
        tune.report({MESSAGE: Ended(Failed(reason, "halt"))})
        return
    checkpoint = tune.get_checkpoint()
    if checkpoint is None and assignment.resume is not None:
        checkpoint = tune.Checkpoint(assignment.resume)
    # In the folder that Ray has made for the trial on this node, and removes with the rest of its session.
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        if checkpoint is not None:
            checkpoint.to_directory(folder)
        if assignment.directory.is_dir():
            os.chdir(assignment.directory)
        assignment.placement.apply()
        evaluate = _unpacked(packed)
        assignment.placement.apply()
        _Conversation(Path(folder)).hold(evaluate, assignment.training)


def _sees(passage: str) -> bool:
    """Whether this node sees the folder that the coordinating process has made."""
    filesystem, path = pyarrow.fs.FileSystem.from_uri(passage)
    found: bool = filesystem.get_file_info(f"{path}/{MARKER}").type != pyarrow.fs.FileType.NotFound
    return found


@lru_cache(maxsize=1)
def _unpacked(packed: bytes) -> Evaluate:
    """The evaluator, kept from trial to trial: it reads the images once. Unpacking it may import torch."""
    evaluate: Evaluate = pickle.loads(packed)
    return evaluate


class _Conversation:
    """What a worker tells about its trial. The coordinating process never answers: it stops the trial, or lets it go on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sent = self._checkpoints()
        self._told = 0.0

    def hold(self, evaluate: Evaluate, training: Training) -> None:
        """Run the training to its end and tell about it."""
        try:
            here = replace(training, workdir=self._folder)
            outcome = attempt(evaluate, here, self._report, self._progress, self._waits)
            self._tell(Ended(outcome), folder=True)
        except OSError as error:
            # The folder could not be sent.
            self._tell(Ended(failure(error)), folder=False)

    def _report(self, training: Training, place: int, scores: RungScores) -> bool:
        # Here the training may end, and its folder must have arrived; that of several candidates travels once a rung.
        alone = len(training.trials) == 1
        self._tell(Reported(place, scores), folder=alone or self._checkpoints() != self._sent)
        return True

    def _progress(
        self, training: Training, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            message = Progressed(epoch, epochs, loss, images_per_second)
            self._tell(message, folder=self._checkpoints() != self._sent)

    def _waits(self, training: Training, why: str) -> None:
        self._tell(Waits(why), folder=False)

    def _tell(self, message: Message, *, folder: bool) -> None:
        """Say `message`, and send the folder along. Does not return where the trial is stopped: Tune ends its thread (SystemExit)."""
        sent = None
        if folder:
            self._sent = self._checkpoints()
            sent = tune.Checkpoint.from_directory(str(self._folder))
        tune.report({MESSAGE: message}, checkpoint=sent)

    def _checkpoints(self) -> set[tuple[str, int]]:
        """The checkpoint as it is now: names and when they were written."""
        return {(file.name, file.stat().st_mtime_ns) for file in self._folder.glob(CHECKPOINTS)}
