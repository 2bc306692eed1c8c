"""Optuna's samplers as choosers of heads from a table, for simulated searches (`headbench.simulation`)."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

from headsearch.search.stopping import Objectives

Params = Mapping[str, Any]
"""What tells heads apart, as a sampler may know it."""


class OptunaSearch:
    """Heads that a sampler chooses, none twice: where it proposes one that was seen, or that is none, the unseen head with the most parameters in common.

    A stopped trial is told as PRUNED.
    """

    def __init__(
        self,
        sampler: optuna.samplers.BaseSampler,
        heads: Sequence[Params],
        suggest: Callable[[optuna.Trial], Params],
        *,
        directions: int,
        seed: int,
    ) -> None:
        self._study = optuna.create_study(directions=["maximize"] * directions, sampler=sampler)
        self._heads, self._suggest = heads, suggest
        self._unseen = set(range(len(heads)))
        self._trials: dict[int, optuna.Trial] = {}
        self._random = random.Random(seed)

    def ask(self) -> int | None:
        """The next head; None when there are no more."""
        if not self._unseen:
            return None
        trial = self._study.ask()
        wanted = self._suggest(trial)
        head = next((head for head in sorted(self._unseen) if self._heads[head] == wanted), None)
        if head is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            unseen = self._random.sample(sorted(self._unseen), len(self._unseen))
            head = max(unseen, key=lambda other: len(wanted.items() & self._heads[other].items()))
            self._study.enqueue_trial(dict(self._heads[head]))
            trial = self._study.ask()
            self._suggest(trial)
        self._unseen.remove(head)
        self._trials[head] = trial
        return head

    def tell(self, head: int, objectives: Objectives | None) -> None:
        """Objectives at full budget; None when it was stopped."""
        stopped = optuna.trial.TrialState.PRUNED if objectives is None else None
        self._study.tell(self._trials[head], objectives, stopped)
