"""Which heads of the space take part in a search that screens: enough of them for every stage, and which of them are trained jointly."""

from __future__ import annotations

from pathlib import Path

from headsearch.errors import ExperimentError, RunError
from headsearch.experiment import Experiment
from headsearch.heads import Candidate
from headsearch.search.materials import Materials
from headsearch.search.observer import Observer
from headsearch.search.selection import best_and_spread


def check_candidates(experiment: Experiment, materials: Materials) -> None:
    """Refuse a funnel or screen whose space has fewer heads than a stage was asked to take. Sizes that nobody asked for shrink instead.

    Raises:
        ExperimentError: names the key, and how many there are.
    """
    search = experiment.search
    if search.strategy == "proxies" or search.budget is not None:
        return
    asked = {
        "search.screen.heads": search.screen.heads if "heads" in search.screen.model_fields_set else 0,
        "search.trials": search.trials
        if search.strategy == "funnel" and "trials" in search.model_fields_set
        else 0,
    }
    found = len(materials.distinct(max(asked.values()), seed=experiment.seed)) if any(asked.values()) else 0
    for key, number in asked.items():
        if number > found:
            raise ExperimentError(
                f"{key}: {number} heads are asked for, and {materials.space.name} allows {found}; expected at most {found}"
            )


def heads_to_screen(
    experiment: Experiment, materials: Materials, scores: Path, watcher: Observer
) -> list[Candidate]:
    """Which heads a screen takes. In a funnel this is its first stage, whose scores are kept in the file `scores`.

    Raises:
        RunError: no head of the space can be searched on this base.
    """
    search = experiment.search
    if search.strategy == "proxies":
        return []
    if search.strategy == "screen":
        return materials.distinct(search.screen.heads, seed=experiment.seed)
    assert materials.score_candidates is not None, "a funnel has a first stage"
    rows = materials.score_candidates(search.candidates, scores, watcher.candidates_scored)
    fit = [row for row in rows if row.score is not None]
    chosen = best_and_spread(
        fit, search.screen.heads, score=lambda row: row.score or 0.0, family=lambda row: row.config.family
    )
    if not chosen:
        raise RunError(f"none of {len(rows)} heads can be searched on this base, the last: {rows[-1].reason}")
    return [Candidate(row.config, row.head_id) for row in chosen]
