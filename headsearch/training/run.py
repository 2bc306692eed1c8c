"""One proxy from its first step (or its checkpoint) to its full budget: the training loop, with scores at the rungs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from headsearch.data.augment import Views
from headsearch.data.sets import ImageSet
from headsearch.errors import InfeasibleHead
from headsearch.scoring.between_bases import kept_embeddings
from headsearch.training.checkpoint import Checkpoints, save_tensors
from headsearch.training.loop import TrainingLoop, TrainingState
from headsearch.training.scorer import Scorer
from headsearch.training.seeds import derived_generator, derived_seed
from headsearch.training.trainer import Trainer
from headsearch.training.trial import EMBEDDINGS, RungScores, TrialContext

CHECKPOINT_SECONDS = 30.0
"""Work that a crash may cost, beyond what was done since the last rung."""


@dataclass
class RunState(TrainingState):
    """How far a proxy is."""

    collapsed: bool = False
    """Whether the last rung looked collapsed."""
    rungs: list[dict[str, Any]] = field(default_factory=list)


class ProxyRun(TrainingLoop[RunState]):
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
        self.scorer = scorer
        self.views = views
        self.context = context
        self.rung_epochs = rungs
        super().__init__(
            trainer,
            images,
            seed=context.seed,
            identity=identity,
            checkpoints=Checkpoints(context.workdir, prefix="checkpoint."),
            checkpoint_seconds=checkpoint_seconds,
            metrics=context.workdir / "metrics.jsonl",
            note=lambda _: None,
        )

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
        self.train()
        return self.rungs

    @property
    def rungs(self) -> tuple[RungScores, ...]:
        """Scores so far."""
        return tuple(RungScores(**scores) for scores in self._state.rungs)

    def _new_state(self) -> RunState:
        return RunState()

    def _train(self, images: Tensor, step: int) -> Tensor:
        torch.manual_seed(derived_seed(self.seed, "network", step))
        views = self.views(images, derived_generator(self.seed, "views", step), self.trainer.device)
        return self._train_on(views, step)

    def _train_on(self, views: Sequence[Tensor], step: int) -> Tensor:
        """One training step; its loss, a detached scalar."""
        return self.trainer.step(views, step)

    def _epoch_ended(self, loss: float) -> None:
        self._write("epoch", self._record(loss))
        if self._state.epoch in self.rung_epochs:
            self._rung(loss)

    def _rung(self, loss: float) -> None:
        """Score, save, and report, in this order: a rung that the search has heard of is never scored again."""
        scores = self._score(loss)
        self._save()
        self.context.report(scores)

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
        self._write("rung", record)
        return rung.scores

    def _tell(self, loss: float) -> None:
        self._checked(loss)
        self.context.progress(self._epochs, self.trainer.recipe.epochs, loss, self.images_per_second)

    def _not_finite(self, message: str) -> Exception:
        return InfeasibleHead(message)
