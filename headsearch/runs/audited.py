"""The audit of a run."""

from __future__ import annotations

from headsearch.errors import RunError
from headsearch.results.audit import Audit, BasePair, audit
from headsearch.runs.directory import RunDirectory
from headsearch.runs.run import Run
from headsearch.training.trial import EMBEDDINGS


def audited(run: Run) -> Audit:
    """See `Run.audit`."""
    if run.experiment is None:
        raise RunError(run.problems[0])
    try:
        bases, missing = _bases(run, run.experiment.seed), None
    except RunError as error:
        bases, missing = [], str(error)
    return audit(
        run.records,
        run.candidates,
        labels=run.labels,
        measure=run.experiment.search.discrepancy,
        stage=run.ranked_stage,
        screen_order=run.screen_order,
        by_chance=run.by_chance,
        chance_is_told=None not in run.taken.values(),
        bases=bases,
        bases_missing=missing,
    )


def _bases(run: Run, seed: int) -> list[BasePair]:
    """The bases of the control `none` compared, where at least two seeds kept their embeddings."""
    complete = {
        r.seed: r.number
        for r in run.records
        if r.control == "none" and r.state == "complete" and r.stage == "proxy"
    }
    folder = RunDirectory(run.path).trial_folder
    kept = {n: file for n in complete.values() if (file := folder(n) / EMBEDDINGS).exists()}
    if len(kept) < 2:
        return []
    from headsearch.scoring.between_bases import compare_bases

    return [BasePair(*compared) for compared in compare_bases(kept, seed=seed)]
