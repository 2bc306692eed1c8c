"""A screen: many heads trained jointly on one base, each scored on its own and without labels. Weak ones are dropped on the way.

A step costs one pass of base and teacher per view and the heads that take part in it, which are drawn in turn: every head is trained
equally often, and the cost of a step does not grow with their number. A head that is dropped frees its memory.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from headsearch.data.augment import Views
from headsearch.data.sets import ImageSet
from headsearch.errors import InfeasibleHead
from headsearch.heads.cost import HeadCost
from headsearch.scoring.score import head_score
from headsearch.training.run import ProxyRun, RunState
from headsearch.training.scorer import Scorer
from headsearch.training.seeds import derived_generator
from headsearch.training.trainer import Trainer
from headsearch.training.trial import MemberScores, RungScores, ScreenedHead, ScreenResult, TrialContext


@dataclass
class ScreenState(RunState):
    """How far a screen is. Lists have one entry per head."""

    queue: list[int] = field(default_factory=list)
    """Heads that have not had their turn in this round."""
    rounds: int = 0
    """Rounds begun: in each, every head has one turn."""
    left: list[str | None] = field(default_factory=list)
    """How a head left before the end: `stopped` or `infeasible`; None while it is trained."""
    reasons: list[str | None] = field(default_factory=list)
    looked_collapsed: list[bool] = field(default_factory=list)
    """Whether a head looked collapsed at the last rung."""
    scored: list[list[dict[str, Any]]] = field(default_factory=list)
    """Scores at all rungs so far."""
    loss_sums: list[float] = field(default_factory=list)
    """Of the steps of the present epoch in which a head took part."""
    turns: list[int] = field(default_factory=list)
    """How many those were."""


class ScreenRun(ProxyRun):
    """Trains the heads of one joint run and scores them at the rungs."""

    _state: ScreenState

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
        heads_per_step: int,
        reduction: int,
        kept: Collection[int] = (),
    ) -> None:
        """Resume as a `ProxyRun` does.

        `heads_per_step` heads take part in every step; at every rung but the last one of `reduction` goes on; those in `kept` are never
        dropped for their score.
        """
        self._heads_per_step = heads_per_step
        self._reduction = reduction
        self._kept = frozenset(kept)
        self._count = len(trainer.hssl.pairings)
        super().__init__(
            trainer,
            scorer,
            images,
            views,
            context,
            rungs=rungs,
            identity=identity,
            checkpoint_seconds=checkpoint_seconds,
        )

    def screen(self, costs: Sequence[HeadCost]) -> ScreenResult:
        """Train to the full budget; how every head ended. `costs` are those of the heads.

        Rungs that an earlier attempt scored are reported again, in case the search has not heard of them.

        Raises:
            InfeasibleHead: the base collapsed, or no head is left.
        """
        for epoch in self.rung_epochs:
            self._report(epoch)
        self.train()
        state = self._state
        heads = tuple(
            ScreenedHead(
                state=state.left[index] or "complete",  # type: ignore[arg-type]
                rungs=tuple(RungScores(**scores) for scores in state.scored[index]),
                cost=cost,
                reason=state.reasons[index],
            )
            for index, cost in enumerate(costs)
        )
        return ScreenResult(heads, self.seconds, self.images_per_second)

    @property
    def alive(self) -> list[int]:
        """Heads that are still trained."""
        return [index for index, left in enumerate(self._state.left) if left is None]

    def train_epoch(self) -> float:
        """As a `ProxyRun`'s, with the mean loss of every head beside that of all."""
        if self._state.batch == 0:
            self._state.loss_sums = [0.0] * self._count
            self._state.turns = [0] * self._count
        return super().train_epoch()

    def _rung(self, loss: float) -> None:
        self._score_heads(loss)
        self._save()
        self._report(self._state.epoch)

    def _train_on(self, views: Sequence[Tensor], step: int) -> Tensor:
        active = self._take_turns()
        losses = self.trainer.losses(views, step, active)
        values = losses.tolist()
        # Looked at before the weights move: one head's overflow must not reach the base that all share.
        while not all(map(math.isfinite, values)):
            for index, value in zip(active, values, strict=True):
                if not math.isfinite(value):
                    self._leave(
                        index,
                        "infeasible",
                        f"the loss is not finite ({value}, epoch {self._state.epoch + 1})",
                    )
            active = [index for index in active if self._state.left[index] is None] or self._take_turns()
            losses = self.trainer.losses(views, step, active)
            values = losses.tolist()
        loss = losses.mean()
        self.trainer.update(loss, step, active)
        for index, value in zip(active, values, strict=True):
            self._state.loss_sums[index] += value
            self._state.turns[index] += 1
        detached: Tensor = loss.detach()
        return detached

    def _take_turns(self) -> list[int]:
        """The heads of the next step: those whose turn it is, in an order that is drawn anew for every round."""
        state, alive = self._state, self.alive
        wanted = min(self._heads_per_step, len(alive))
        active = state.queue[:wanted]
        state.queue = state.queue[wanted:]
        if len(active) < wanted:
            generator = derived_generator(self.context.seed, "heads", state.rounds)
            order = [alive[place] for place in torch.randperm(len(alive), generator=generator).tolist()]
            state.rounds += 1
            fresh = [index for index in order if index not in active]
            taken = fresh[: wanted - len(active)]
            state.queue = [index for index in order if index not in taken]
            active += taken
        return sorted(active)

    def _score_heads(self, loss: float) -> None:
        """Score every head that is left, and let go of those that are worthless or weak."""
        state, trainer = self._state, self.trainer
        final = state.epoch == trainer.recipe.epochs
        alive = self.alive
        student = trainer.hssl.student
        heads = [student.heads[index] for index in alive]
        rungs = self.scorer.score_heads(student.base, heads, epoch=state.epoch, loss=loss)
        good: dict[int, float] = {}
        for index, rung in zip(alive, rungs, strict=True):
            collapsed = rung.collapsed is not None
            if rung.scores is None or (collapsed and (final or state.looked_collapsed[index])):
                self._leave(index, "infeasible", f"{rung.collapsed} (epoch {state.epoch})")
                continue
            state.looked_collapsed[index] = collapsed
            record = rung.scores.to_dict()
            if state.turns[index]:
                record["loss"] = state.loss_sums[index] / state.turns[index]
            state.scored[index].append(record)
            self._write("rung", {"member": index, **record})
            score = head_score(rung.scores.measures, rung.scores.quality)
            if not collapsed:
                good[index] = -math.inf if score is None else score
        if not final:
            self._drop_the_weak(good)

    def _drop_the_weak(self, score_of: dict[int, float]) -> None:
        """Keep the best one of `reduction`, and those that are never dropped."""
        order = sorted(score_of, key=lambda index: (-score_of[index], index))
        going_on = math.ceil(len(order) / self._reduction)
        for place, index in enumerate(order, start=1):
            if place > going_on and index not in self._kept:
                where = f"place {place} of {len(order)} by score at epoch {self._state.epoch} of the screen"
                self._leave(index, "stopped", f"{where}; the best {going_on} went on")

    def _leave(self, index: int, how: str, reason: str) -> None:
        state = self._state
        state.left[index], state.reasons[index] = how, reason
        state.queue = [other for other in state.queue if other != index]
        if not self.alive:
            raise InfeasibleHead(f"no head of the screen is left, the last: {reason}")
        self.trainer.drop(index)

    def _report(self, epoch: int) -> None:
        for index, scored in enumerate(self._state.scored):
            for scores in scored:
                if scores["epoch"] == epoch:
                    self.context.report(MemberScores(**scores, member=index))

    def _new_state(self) -> ScreenState:
        return ScreenState(
            left=[None] * self._count,
            reasons=[None] * self._count,
            looked_collapsed=[False] * self._count,
            scored=[[] for _ in range(self._count)],
        )

    def _restored(self) -> None:
        for index, left in enumerate(self._state.left):
            if left is not None:
                self.trainer.drop(index)
