"""A training of candidates from its first step (or its checkpoint) to its full budget: the training loop, with scores at the rungs.

A proxy has one candidate, which is in every step and is probed where there are labels. In a screen each of many is scored on its own and
without labels, and weak ones are dropped on the way. A step then costs one pass of base and teacher per view and the heads that take part in
it, which are drawn in turn: all are trained equally often, and the cost of a step does not grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from headsearch.base.model import Base
from headsearch.errors import InfeasibleHead
from headsearch.heads.cost import HeadCost
from headsearch.methods.collectives import mean_over_ranks, on_first, rank, world_size
from headsearch.methods.hssl import Student
from headsearch.scoring.between_bases import kept_embeddings
from headsearch.scoring.score import head_score
from headsearch.training.checkpoint import Checkpoints, save_tensors
from headsearch.training.loop import TrainingLoop, TrainingState
from headsearch.training.ranks import own_rows
from headsearch.training.scorer import Rung, Scorer
from headsearch.training.seeds import derived_generator, derived_seed
from headsearch.training.trainer import Trainer
from headsearch.training.trial import (
    EMBEDDINGS,
    TRUNK,
    RungScores,
    Training,
    TrainingContext,
    TrainingResult,
    TrialResult,
)

CHECKPOINT_SECONDS = 30.0
"""Work that a crash may cost, beyond what was done since the last rung."""

Left = Literal["stopped", "infeasible"]


@dataclass
class RunState(TrainingState):
    """How far a training of candidates is. Lists have one entry per candidate."""

    left: list[Left | None] = field(default_factory=list)
    """How a candidate left before the end; None while it is trained."""
    reasons: list[str | None] = field(default_factory=list)
    looked_collapsed: list[bool] = field(default_factory=list)
    """Whether a candidate looked collapsed at the last rung."""
    scored: list[list[dict[str, Any]]] = field(default_factory=list)
    """Scores at all rungs so far."""
    loss_sums: list[float] = field(default_factory=list)
    """Of the steps of the present epoch in which a candidate took its turn."""
    turns: list[int] = field(default_factory=list)
    """How many those were; 0 where there are no turns."""
    queue: list[int] = field(default_factory=list)
    """Candidates that have not had their turn in this round."""
    rounds: int = 0
    """Rounds begun: in each, every candidate has one turn."""


class CandidatesRun(TrainingLoop[RunState]):
    """Trains the candidates of one training and scores them at the rungs. Where there are several, each is a single head."""

    def __init__(
        self,
        training: Training,
        context: TrainingContext,
        trainer: Trainer,
        scorer: Scorer,
        *,
        rungs: Sequence[int],
        identity: str,
        checkpoint_seconds: float,
        heads_per_step: int = 1,
        reduction: int = 1,
        kept: Collection[int] = (),
    ) -> None:
        """Resume from the checkpoint in the training's folder where there is one.

        Args:
            training: what is trained.
            context: is told of rungs and progress.
            trainer: of the pair with the candidates' heads, at its start.
            scorer: scores the student, and knows the images to train on.
            rungs: epochs at which candidates are scored.
            identity: names candidates, seed and experiment: a checkpoint of anything else is refused with a `RunError`.
            checkpoint_seconds: work that a crash may cost.
            heads_per_step: so many of several candidates take part in every step.
            reduction: at every rung but the last one of so many goes on.
            kept: places of those that are never dropped for their score.
        """
        self.training = training
        self.context = context
        self.scorer = scorer
        self.views = scorer.views
        self.rung_epochs = rungs
        self.notes: list[str] = []
        """What a person should know of this attempt, a line each."""
        self._count = len(training.trials)
        self._heads_per_step = heads_per_step
        self._reduction = reduction
        self._kept = frozenset(kept)
        super().__init__(
            trainer,
            scorer.dataset.train,
            seed=training.seed,
            identity=identity,
            checkpoints=Checkpoints(training.workdir, prefix="checkpoint."),
            checkpoint_seconds=checkpoint_seconds,
            metrics=training.workdir / "metrics.jsonl",
            note=self.notes.append,
        )

    def run(self) -> None:
        """Train to the full budget. Rungs that an earlier attempt scored are reported again, in case the search has not heard of them.

        Raises:
            InfeasibleHead: no candidate is left. One leaves where its loss or features are not finite, or where its representations are
                collapsed at the full budget or at two rungs in a row. One collapsed rung before that is forgiven: a slow start looks the same.
            TrialStopped: the search wants no more of this training.
        """
        for epoch in self.rung_epochs:
            self._report(epoch)
        self.train()

    def result(self, costs: Sequence[HeadCost]) -> TrainingResult:
        """How every candidate ended, given what each costs."""
        state = self._state
        return TrainingResult(
            tuple(
                TrialResult(state.left[place] or "complete", self.rungs(place), cost, state.reasons[place])
                for place, cost in enumerate(costs)
            ),
            self.seconds,
            self.images_per_second,
        )

    def rungs(self, place: int) -> tuple[RungScores, ...]:
        """Scores so far of the candidate at `place`."""
        return tuple(RungScores(**scores) for scores in self._state.scored[place])

    @property
    def alive(self) -> list[int]:
        """Places of the candidates that are still trained."""
        return [place for place, left in enumerate(self._state.left) if left is None]

    def _new_state(self) -> RunState:
        return RunState(
            left=[None] * self._count,
            reasons=[None] * self._count,
            looked_collapsed=[False] * self._count,
            scored=[[] for _ in range(self._count)],
            loss_sums=[0.0] * self._count,
            turns=[0] * self._count,
        )

    def _state_of(self, saved: dict[str, Any]) -> RunState:
        # In former versions the state of a proxy held no lists, and that of a screen held both.
        rungs, collapsed = saved.pop("rungs", []), saved.pop("collapsed", False)
        return super()._state_of({"scored": [rungs], "looked_collapsed": [collapsed], **saved})

    def _restored(self) -> None:
        for place, left in enumerate(self._state.left):
            if left is not None:
                self.trainer.drop(place)

    def _train(self, images: Tensor, step: int) -> Tensor:
        batch_size = self.trainer.recipe.batch_size
        (rows,) = own_rows(batch_size)
        torch.manual_seed(derived_seed(self.seed, "network", step))
        masks = None
        if world_size() > 1:
            # As one rank draws them for the whole batch; what comes after, each draws for itself.
            masks = self.trainer.hssl.masks(batch_size)
            masks = None if masks is None else masks[:, rows]
            torch.manual_seed(derived_seed(self.seed, "network", step, rank()))
        generator = derived_generator(self.seed, "views", step)
        views = self.views(images, generator, self.trainer.device, rows=rows, batch_size=batch_size)
        if self._count > 1:
            return self._train_in_turns(views, step, masks)
        # A candidate that is alone harms nobody: its loss is looked at now and then, and an accelerator is not waited for.
        return mean_over_ranks(self.trainer.step(views, step, masks))

    def _train_in_turns(self, views: Sequence[Tensor], step: int, masks: Tensor | None) -> Tensor:
        """A step of the candidates whose turn it is; its loss. Losses are looked at before the weights move: one head's overflow must not
        reach the base that all share."""
        state = self._state
        active = self._take_turns()
        losses = dict(zip(active, self.trainer.losses(views, step, active, masks), strict=True))
        common = mean_over_ranks(torch.stack([*losses.values()]).detach())
        values = dict(zip(active, common.tolist(), strict=True))
        finite = [place for place in active if math.isfinite(values[place])]
        for place in set(active) - set(finite):
            reason = f"the loss is not finite ({values[place]}, epoch {state.epoch + 1})"
            self._leave(place, "infeasible", reason)
        if not finite:
            # A lost step, which leaves the mean of the epoch as it is.
            return self._loss_sum / max(1, state.batch)
        loss = torch.stack([losses[place] for place in finite]).mean()
        self.trainer.update(loss, step, finite)
        for place in finite:
            state.loss_sums[place] += values[place]
            state.turns[place] += 1
        return mean_over_ranks(loss.detach())

    def _take_turns(self) -> list[int]:
        """Who is in the next step: those whose turn it is, in an order that is drawn anew for every round."""
        state, alive = self._state, self.alive
        wanted = min(self._heads_per_step, len(alive))
        queue = [place for place in state.queue if place in alive]
        active, state.queue = queue[:wanted], queue[wanted:]
        if len(active) < wanted:
            generator = derived_generator(self.seed, "heads", state.rounds)
            order = [alive[place] for place in torch.randperm(len(alive), generator=generator).tolist()]
            state.rounds += 1
            fresh = [place for place in order if place not in active]
            taken = fresh[: wanted - len(active)]
            state.queue = [place for place in order if place not in taken]
            active += taken
        return sorted(active)

    def _epoch_ended(self, loss: float) -> None:
        state = self._state
        self._write("epoch", self._record(loss))
        reached = state.epoch in self.rung_epochs
        if reached:
            self._score(loss)
        state.loss_sums, state.turns = [0.0] * self._count, [0] * self._count
        if reached:
            # Saved first: a rung that the search has heard of is never scored again.
            self._save()
            self._report(state.epoch)

    def _score(self, loss: float) -> None:
        """Score every candidate that is left, and let go of those that are worthless or weak."""
        state, student = self._state, self.trainer.hssl.student
        final = state.epoch == self.trainer.recipe.epochs
        alive = self.alive

        def scored() -> list[Rung]:
            if self.training.stage == "screen":
                heads = [student.heads[place] for place in alive]
                return self.scorer.score_heads(student.base, heads, epoch=state.epoch, loss=loss)
            return [self.scorer.score(student, epoch=state.epoch, loss=loss, full_budget=final)]

        with self.trainer.uncompiled():
            rungs = on_first(scored)
        good: dict[int, float] = {}
        for place, rung in zip(alive, rungs, strict=True):
            collapsed = rung.collapsed is not None
            if rung.scores is None or (collapsed and (final or state.looked_collapsed[place])):
                self._leave(place, "infeasible", f"{rung.collapsed} (epoch {state.epoch})")
                continue
            state.looked_collapsed[place] = collapsed
            record = rung.scores.to_dict()
            if state.turns[place]:
                record["loss"] = state.loss_sums[place] / state.turns[place]
            state.scored[place].append(record)
            self._write("rung", {"trial": self.training.trials[place].number, **record})
            score = head_score(rung.scores.measures, rung.scores.quality)
            if not collapsed:
                good[place] = -math.inf if score is None else score
        if not final:
            self._drop_the_weak(good)
        elif rank() == 0:
            self._keep(student)

    def _keep(self, student: Student[Base]) -> None:
        """Write what the end of some trainings is for."""
        if self.training.stage == "trunk":
            save_tensors(self.training.workdir / TRUNK, student.base.model.state_dict())
        elif not student.heads:
            # How far two seeds of a base without a head are apart is the scale of a discrepancy.
            kept = kept_embeddings(self.scorer.base_embeddings(student.base))
            save_tensors(self.training.workdir / EMBEDDINGS, kept)

    def _drop_the_weak(self, score_of: dict[int, float]) -> None:
        """Keep the best one of `reduction`, and those that are never dropped."""
        order = sorted(score_of, key=lambda place: (-score_of[place], place))
        going_on = math.ceil(len(order) / self._reduction)
        for standing, place in enumerate(order, start=1):
            if standing > going_on and place not in self._kept:
                where = (
                    f"place {standing} of {len(order)} by score at epoch {self._state.epoch} of the screen"
                )
                self._leave(place, "stopped", f"{where}; the best {going_on} went on")

    def _leave(self, place: int, how: Left, reason: str) -> None:
        """Train a candidate no further; what is the last one's fault is the training's end."""
        state = self._state
        state.left[place], state.reasons[place] = how, reason
        if not self.alive:
            alone = self._count == 1
            raise InfeasibleHead(reason if alone else f"no head of the screen is left, the last: {reason}")
        self.trainer.drop(place)

    def _report(self, epoch: int) -> None:
        for place, scored in enumerate(self._state.scored):
            for scores in scored:
                if scores["epoch"] == epoch:
                    self.context.report(place, RungScores(**scores))

    def _tell(self, loss: float) -> None:
        self._checked(loss)
        self.context.progress(self._epochs, self.trainer.recipe.epochs, loss, self.images_per_second)

    def _not_finite(self, message: str) -> Exception:
        return InfeasibleHead(message)
