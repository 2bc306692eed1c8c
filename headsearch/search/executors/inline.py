"""Trainings one after the other in this process: the simplest executor, and the one whose order is always the same."""

from __future__ import annotations

from headsearch.search.executors import TrainingSource, attempt
from headsearch.training.trial import Evaluate


class InlineExecutor:
    """Evaluates here and now."""

    def run(self, source: TrainingSource, evaluate: Evaluate) -> None:
        """Evaluate all that `source` hands out, in that order."""
        while (training := source.next_training()) is not None:
            source.settle(training, attempt(evaluate, training, source.report, source.progress))
        assert source.done, "nothing runs elsewhere, so there is nothing to wait for"
