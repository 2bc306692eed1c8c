"""One proxy from its first step (or its checkpoint) to its full budget: epochs, rungs, checkpoints, progress.

What a checkpoint holds and why a resumed run is bit for bit the uninterrupted one: weights, optimiser, and how far the run is,
down to the batch. Random numbers need no state, since they follow from seed and step (`headsearch.training.seeds`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from headsearch.data.augment import Views
from headsearch.data.sets import ImageSet
from headsearch.errors import InfeasibleHead, RunError
from headsearch.scoring.between_bases import kept_embeddings
from headsearch.training.checkpoint import load_checkpoint, save_checkpoint, save_tensors
from headsearch.training.metrics import MetricsLog
from headsearch.training.scorer import Scorer
from headsearch.training.seeds import derived_generator, derived_seed
from headsearch.training.trainer import Trainer
from headsearch.training.trial import EMBEDDINGS, RungScores, TrialContext

CHECKPOINT_SECONDS = 30.0
"""Work that a crash may cost, beyond what was done since the last rung."""
_PROGRESS_SECONDS = 0.2


@dataclass
class RunState:
    """How far a run is."""

    epoch: int = 0
    """Complete epochs."""
    batch: int = 0
    """Steps done in the present epoch."""
    loss_sum: float = 0.0
    """Of those steps."""
    seconds: float = 0.0
    """Spent by earlier attempts."""
    train_seconds: float = 0.0
    images: int = 0
    """Trained on, for the throughput."""
    collapsed: bool = False
    """Whether the last rung looked collapsed."""
    metrics_size: int = 0
    rungs: list[dict[str, Any]] = field(default_factory=list)


class ProxyRun:
    """Trains one head's pair and scores it at the rungs."""

    def __init__(
        self,
        trainer: Trainer,
        scorer: Scorer,
        images: ImageSet,
        views: Views,
        context: TrialContext,
        *,
        rungs: Sequence[int],
        identity: str,
        checkpoint_seconds: float,
    ) -> None:
        """Resume from the work directory's checkpoint where there is one. `rungs` are the epochs at which the trial is scored.

        `identity` names head, seed and experiment: a checkpoint of anything else is refused with a `RunError`.
        """
        self.trainer = trainer
        self.scorer = scorer
        self.images = images
        self.views = views
        self.context = context
        self.rung_epochs = rungs
        self.identity = identity
        self.checkpoint_seconds = checkpoint_seconds
        self.checkpoint = context.workdir / "checkpoint.pt"
        self._begun = self._saved = self._told = time.perf_counter()
        self._state = self._resumed() if self.checkpoint.exists() else self._new_state()
        self._metrics = MetricsLog(context.workdir / "metrics.jsonl", self._state.metrics_size)

    def run(self) -> tuple[RungScores, ...]:
        """Train to the full budget; the scores of all rungs.

        Rungs that an earlier attempt scored are reported again, in case the search has not heard of them.

        Raises:
            InfeasibleHead: the loss or the features are not finite; or the representations are collapsed at the full budget or
                at two rungs in a row. One collapsed rung before that is forgiven: a slow start looks the same.
            TrialStopped: the search wants no more of this trial.
        """
        for scores in self.rungs:
            self.context.report(scores)
        while self._state.epoch < self.trainer.recipe.epochs:
            loss = self.train_epoch()
            if self._state.epoch in self.rung_epochs:
                scores = self._score(loss)
                self._save()
                self.context.report(scores)
        return self.rungs

    @property
    def rungs(self) -> tuple[RungScores, ...]:
        """Scores so far."""
        return tuple(RungScores(**scores) for scores in self._state.rungs)

    @property
    def seconds(self) -> float:
        """Wall time over all attempts."""
        return self._state.seconds + time.perf_counter() - self._begun

    @property
    def images_per_second(self) -> float:
        """Training throughput, scoring left out."""
        return self._state.images / max(self._state.train_seconds, 1e-9)

    def train_epoch(self) -> float:
        """Train to the end of the present epoch; its mean loss."""
        state, trainer, seed = self._state, self.trainer, self.context.seed
        order = derived_generator(seed, "order", state.epoch)
        batches = self.images.batches(trainer.recipe.batch_size, generator=order, drop_last=True)
        loss_sum = torch.tensor(state.loss_sum, dtype=torch.float64, device=trainer.device)
        lap = time.perf_counter()
        for images, _ in islice(batches, state.batch, None):
            step = state.epoch * trainer.steps_per_epoch + state.batch
            torch.manual_seed(derived_seed(seed, "network", step))
            views = self.views(images, derived_generator(seed, "views", step), trainer.device)
            loss = self._train(views, step)
            loss_sum += loss
            state.batch += 1
            state.images += len(images)
            now = time.perf_counter()
            state.train_seconds += now - lap
            lap = now
            if now - self._told > _PROGRESS_SECONDS:
                self._tell(loss)
            if now - self._saved > self.checkpoint_seconds:
                state.loss_sum = float(loss_sum)
                self._save()
        mean = float(loss_sum) / max(1, state.batch)
        state.train_seconds += time.perf_counter() - lap
        self._check(mean)
        state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0
        last_step = state.epoch * trainer.steps_per_epoch - 1
        self._metrics.append(
            "epoch",
            {
                "epoch": state.epoch,
                "loss": mean,
                "learning_rate": trainer.learning_rate(last_step),
                "images_per_second": self.images_per_second,
            },
        )
        return mean

    def _train(self, views: Sequence[Tensor], step: int) -> Tensor:
        """One training step; its loss, a detached scalar."""
        return self.trainer.step(views, step)

    def _score(self, loss: float) -> RungScores:
        state = self._state
        full_budget = state.epoch == self.trainer.recipe.epochs
        rung = self.scorer.score(
            self.trainer.hssl.student, epoch=state.epoch, loss=loss, full_budget=full_budget
        )
        if rung.scores is None or (rung.collapsed is not None and (full_budget or state.collapsed)):
            raise InfeasibleHead(f"{rung.collapsed} (epoch {state.epoch})")
        state.collapsed = rung.collapsed is not None
        if full_budget and not self.trainer.hssl.student.heads:
            # Before the rung is reported: from then on the trial may be over. How far two seeds of it are apart is the scale of a discrepancy.
            kept = kept_embeddings(self.scorer.base_embeddings(self.trainer.hssl.student.base))
            save_tensors(self.context.workdir / EMBEDDINGS, kept)
        record = rung.scores.to_dict()
        state.rungs.append(record)
        self._metrics.append("rung", record)
        return rung.scores

    def _tell(self, loss: Tensor) -> None:
        value = float(loss)
        self._check(value)
        epochs = self._state.epoch + self._state.batch / self.trainer.steps_per_epoch
        self.context.progress(epochs, self.trainer.recipe.epochs, value, self.images_per_second)
        self._told = time.perf_counter()

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise InfeasibleHead(f"the loss is not finite ({loss}, epoch {self._state.epoch + 1})")

    def _save(self) -> None:
        state = {
            "identity": self.identity,
            "trainer": self.trainer.state_dict(),
            "run": vars(self._state) | {"seconds": self.seconds, "metrics_size": self._metrics.size},
        }
        save_checkpoint(self.checkpoint, state)
        self._saved = time.perf_counter()

    def _resumed(self) -> RunState:
        saved = load_checkpoint(self.checkpoint, self.trainer.device)
        if saved.get("identity") != self.identity:
            raise RunError(
                f"{self.checkpoint}: belongs to another trial or experiment; remove it to train from the start"
            )
        return self._restored(saved)

    def _new_state(self) -> RunState:
        return RunState()

    def _restored(self, saved: dict[str, Any]) -> RunState:
        """Put a checkpoint's content back."""
        self.trainer.load_state_dict(saved["trainer"])
        return RunState(**saved["run"])
