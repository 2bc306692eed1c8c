"""The one training loop, of proxies, screens and pretrainings: epochs, batches, checkpoints, progress. What differs are hooks.

What a checkpoint holds and why a resumed training is bit for bit the undisturbed one: weights, optimiser, and how far training is,
down to the batch. Random numbers need no state, since they follow from seed and step (`headsearch.training.seeds`).
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from headsearch.data.sets import ImageSet, StreamedImages, index_batches
from headsearch.errors import RunError
from headsearch.methods.collectives import rank
from headsearch.training.checkpoint import Checkpoints
from headsearch.training.metrics import MetricsLog
from headsearch.training.ranks import own_rows
from headsearch.training.seeds import derived_generator
from headsearch.training.trainer import Trainer

_PROGRESS_SECONDS = 0.2
_BETWEEN_CHECKPOINTS = 20.0
"""Times as long as one takes: between rungs and epochs, no more than a twentieth of a training goes into them."""


@dataclass
class TrainingState:
    """How far a training is."""

    epoch: int = 0
    """Complete epochs."""
    batch: int = 0
    """Steps done in the present epoch."""
    loss_sum: float = 0.0
    """Of those steps, at the last checkpoint."""
    seconds: float = 0.0
    """Spent by earlier attempts."""
    train_seconds: float = 0.0
    images: int = 0
    """Trained on, for the throughput."""
    metrics_size: int = 0


_State = TypeVar("_State", bound=TrainingState)


class TrainingLoop(ABC, Generic[_State]):
    """Trains one student/teacher pair to the end of its schedule, from its newest checkpoint where there is one.

    Of several ranks, only the first writes and tells.
    """

    _state: _State

    def __init__(
        self,
        trainer: Trainer,
        images: ImageSet,
        *,
        seed: int,
        identity: str,
        checkpoints: Checkpoints,
        checkpoint_seconds: float,
        metrics: Path,
        note: Callable[[str], None],
    ) -> None:
        """Resume where there is a checkpoint.

        Args:
            trainer: at its start.
            images: to train on.
            seed: of everything random.
            identity: names what decides the course of the training: a checkpoint of anything else is refused.
            checkpoints: where they are.
            checkpoint_seconds: work that a crash may cost; more where a checkpoint takes long to write. 0: no step.
            metrics: the `metrics.jsonl` to write.
            note: is told of damaged checkpoints, and of networks that cannot be compiled.

        Raises:
            RunError: a checkpoint of another training, or none of them readable; or a file that cannot be written.
        """
        self.trainer = trainer
        self.images = images
        self.seed = seed
        self.identity = identity
        self.checkpoints = checkpoints
        self.checkpoint_seconds = checkpoint_seconds
        self._note = note
        self._begun = self._told = time.perf_counter()
        self._due = self._begun + checkpoint_seconds
        """When the next checkpoint is written, but for those at rungs and epochs."""
        self._state = self._resumed(note)
        self._loss_sum = torch.tensor(self._state.loss_sum, dtype=torch.float64, device=trainer.device)
        self._metrics = MetricsLog(metrics, self._state.metrics_size) if rank() == 0 else None

    @abstractmethod
    def _new_state(self) -> _State:
        """The state of a training that is not begun."""

    @abstractmethod
    def _train(self, images: Tensor, step: int) -> Tensor:
        """One training step on uint8 images; its loss, a detached scalar that all ranks have in common."""

    @abstractmethod
    def _epoch_ended(self, loss: float) -> None:
        """An epoch is complete; `loss` is its mean."""

    @abstractmethod
    def _tell(self, loss: float) -> None:
        """Training goes on, at this loss. Called a few times a second, on the first rank."""

    @abstractmethod
    def _not_finite(self, message: str) -> Exception:
        """What to raise where the loss is not finite."""

    def _own(self, batch: Tensor) -> Tensor:
        """Which positions of a batch this rank trains on."""
        (rows,) = own_rows(len(batch))
        return batch[rows]

    def _state_of(self, saved: dict[str, Any]) -> _State:
        """The state that a checkpoint holds."""
        return replace(self._new_state(), **saved)

    def _restored(self) -> None:
        """The state is that of a checkpoint, whose weights are loaded next."""

    def train(self) -> None:
        """Train to the end of the schedule. Raises what the hooks raise, and `RunError` where a file cannot be written."""
        while self._state.epoch < self.trainer.recipe.epochs:
            self._epoch_ended(self.train_epoch())

    def train_epoch(self) -> float:
        """Train to the end of the present epoch; its mean loss."""
        state, trainer = self._state, self.trainer
        batch_size = trainer.recipe.batch_size
        order = derived_generator(self.seed, "order", state.epoch)
        batches = list(index_batches(len(self.images), batch_size, order, drop_last=True))
        lap = time.perf_counter()
        for images in self.images.read([self._own(batch) for batch in batches[state.batch :]]):
            loss = self._take_step(images)
            self._loss_sum += loss
            state.batch += 1
            state.images += batch_size
            now = time.perf_counter()
            state.train_seconds += now - lap
            lap = now
            if rank() == 0 and now - self._told > _PROGRESS_SECONDS:
                # The first rank alone must not end the training: the others would wait for it.
                self._tell(float(loss))
                self._told = time.perf_counter()
            if rank() == 0 and now > self._due:
                self._save()
        mean = self._checked(float(self._loss_sum) / max(1, state.batch))
        state.train_seconds += time.perf_counter() - lap
        state.epoch, state.batch = state.epoch + 1, 0
        self._loss_sum.zero_()
        return mean

    def _take_step(self, images: Tensor) -> Tensor:
        """One training step; if torch cannot compile the networks, the same step again, and all others, as they are written."""
        before = dict(vars(self._state))
        try:
            return self._train(images, self._step)
        except RuntimeError as error:
            why = self.trainer.give_up_compiling(error)
            self._note(f"compile: torch cannot compile here, and training goes on without: {why}")
            vars(self._state).update(before)
            return self._train(images, self._step)

    @property
    def seconds(self) -> float:
        """Wall time over all attempts."""
        return self._state.seconds + time.perf_counter() - self._begun

    @property
    def images_per_second(self) -> float:
        """Training throughput of all ranks, scoring left out."""
        return self._state.images / max(self._state.train_seconds, 1e-9)

    @property
    def _step(self) -> int:
        """Steps done."""
        return self._state.epoch * self.trainer.steps_per_epoch + self._state.batch

    @property
    def _epochs(self) -> float:
        """Epochs done, with the part of the present one."""
        return self._state.epoch + self._state.batch / self.trainer.steps_per_epoch

    def _record(self, loss: float) -> dict[str, Any]:
        """The line of `metrics.jsonl` for the epoch that has ended."""
        images = self.images
        broken = {"unreadable": len(images.left_out.unreadable)} if isinstance(images, StreamedImages) else {}
        return {
            "epoch": self._state.epoch,
            "loss": loss,
            "learning_rate": self.trainer.learning_rate(self._step - 1),
            "images_per_second": self.images_per_second,
            **broken,
        }

    def _write(self, kind: str, record: Mapping[str, Any]) -> None:
        """A line of `metrics.jsonl`, on the first rank."""
        if self._metrics is not None:
            self._metrics.append(kind, record)

    def _checked(self, loss: float) -> float:
        """A loss that is finite."""
        if not math.isfinite(loss):
            raise self._not_finite(f"the loss is not finite ({loss}, epoch {self._state.epoch + 1})")
        return loss

    def _save(self) -> None:
        """Write a checkpoint, on the first rank. One with a loss that is not finite would replace a better one."""
        began, loss_sum = time.perf_counter(), float(self._loss_sum)
        if self._metrics is None or not math.isfinite(loss_sum):
            return
        now = {"loss_sum": loss_sum, "seconds": self.seconds, "metrics_size": self._metrics.size}
        content = {
            "identity": self.identity,
            "trainer": self.trainer.state_dict(),
            "run": vars(self._state) | now,
        }
        self.checkpoints.save(self._step, content)
        self._due = ended = time.perf_counter()
        if self.checkpoint_seconds > 0:
            self._due += max(self.checkpoint_seconds, _BETWEEN_CHECKPOINTS * (ended - began))

    def _resumed(self, note: Callable[[str], None]) -> _State:
        """The state of the newest checkpoint, whose weights are then the trainer's; else that of a start."""
        saved = self.checkpoints.load(self.trainer.device, identity=self.identity, note=note)
        if saved is None:
            return self._new_state()
        try:
            # Pretrainings of former versions keep the sum beside the rest of the state.
            former = {"loss_sum": saved["loss_sum"]} if "loss_sum" in saved else {}
            self._state = self._state_of({**saved["run"], **former})
            self._restored()
            self.trainer.load_state_dict(saved["trainer"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise RunError(
                f"{self.checkpoints.folder}: its checkpoint does not fit this training ({type(error).__name__}); remove it to train from the start"
            ) from error
        return self._state
