"""What every callback must do. A new callback is done when `check_callback` passes and the tool's own reader has read its log back.

>>> check_callback("diary", folder)        # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headsearch.experiment import Experiment
from headsearch.results.records import TrialRecord
from headsearch.search.callbacks import build_callbacks
from headsearch.search.callbacks.tracker import Subject
from headsearch.testing.executors import Watcher, interrupted
from headsearch.testing.toy import Failure, ToyEvaluator
from headsearch.testing.toy_search import results, run_toy, toy_experiment


def check_callback(kind: str, folder: Path, kwargs: Mapping[str, Any] | None = None) -> Path:
    """Check that a callback follows an interrupted and resumed search with failing heads to its end, does not change it, and can be closed at any time.

    Args:
        kind: kind of the callback, as in `search.callbacks`.
        folder: the folder to write to.
        kwargs: options of the callback.

    Returns:
        The run directory, from which you can read the log.

    Raises:
        AssertionError: naming what the callback does wrong.
    """
    spec = {"kind": kind, **({} if kwargs is None else {"kwargs": dict(kwargs)})}
    failures: dict[str, Failure] = {"vit": "collapse", "mlp": "error"}
    experiment = toy_experiment(trials=3, finalists=2, replicates=2, sampler="grid", callbacks=[spec])
    folder.mkdir(parents=True, exist_ok=True)
    subject = Subject(name="toy", key="toy-0", folder=folder, experiment=experiment.to_yaml())
    for made in build_callbacks(experiment.search.callbacks, subject):
        made.close()
    records, notes = _interrupted(folder / "run", experiment, ToyEvaluator(failures=failures))
    dropped = [note for note in notes if "is switched off" in note]
    assert not dropped, dropped[0]
    untold = toy_experiment(trials=3, finalists=2, replicates=2, sampler="grid")
    alone, _ = _interrupted(folder / "untold", untold, ToyEvaluator(failures=failures))
    assert results(records) == results(alone), f"{kind} has changed the search"
    return folder / "run"


def _interrupted(
    out: Path, experiment: Experiment, evaluate: ToyEvaluator
) -> tuple[list[TrialRecord], list[str]]:
    """Every trial of a search that is interrupted once and resumed, and the notes."""
    first, then = Watcher(interrupt_after=4), Watcher()
    with interrupted():
        run_toy(out, experiment, evaluate, observer=first)
    records = run_toy(out, experiment, evaluate, resume=True, observer=then)
    return records, [*first.notes, *then.notes]
