"""Trials one after the other in this process: the simplest executor, and the one whose order is always the same."""

from __future__ import annotations

from headsearch.search.executors import JobSource, attempt
from headsearch.training.trial import Evaluate


class InlineExecutor:
    """Evaluates jobs here and now."""

    def run(self, jobs: JobSource, evaluate: Evaluate) -> None:
        """Evaluate every job that `jobs` hands out, in that order."""
        while (job := jobs.next_job()) is not None:
            jobs.settle(job, attempt(evaluate, job, jobs.report, jobs.progress))
        assert jobs.done, "nothing runs elsewhere, so there is nothing to wait for"
