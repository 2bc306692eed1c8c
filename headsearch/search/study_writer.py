"""Writes to the study of a run, which has one writer: while the study is still ours, and again where its database was away."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from headsearch.errors import RunError
from headsearch.runs.failures import NumberTaken, in_one_line
from headsearch.search.lease import Lease, StudyLost
from headsearch.search.patience import Patience

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

METRICS = ("discrepancy", "probe")
"""Names of the objectives, in order; without labels only the first."""

Result = TypeVar("Result")


class StudyWriter:
    """The writes of a ledger. Any of them raises `StudyLost` where the study is another's by now."""

    def __init__(self, storage: BaseStorage, study: int, patience: Patience, lease: Lease | None) -> None:
        """`study` is its id. `patience` is for a database that goes away; `lease` is held, and is looked at before every write."""
        self._storage = storage
        self._study = study
        self._patience = patience
        self._lease = lease

    def confirm(self) -> None:
        """Check that the study is still there and ours. Raises `StudyLost`."""
        if self._lease is not None:
            self._patience(self._lease.confirm)

    def create(self, trial: FrozenTrial) -> int:
        """Create a trial under its number; its id."""
        self.confirm()
        return self._patiently(lambda: self._append(trial), lambda: self._append_again(trial))

    def note(self, trial: int, key: str, value: Any) -> None:
        """Keep something with a trial, for the ledger to read back."""
        self._patiently(lambda: self._storage.set_trial_system_attr(trial, key, value))

    def end(
        self,
        trial: int,
        noted: Mapping[str, Any],
        told: Mapping[str, Any],
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """End a trial. What is `noted` is for the ledger to read back, what is `told` for people who look at the study.

        In a database all of it is one transaction. Elsewhere it is as many writes, in that order: the first must say it all.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        from headsearch.runs.database import Database

        storage = self._storage
        if isinstance(storage, Database):

            def end() -> None:
                storage.end_trial(trial, noted, told, state, values)

        else:
            for key, value in noted.items():
                self.note(trial, key, value)
            for key, value in told.items():
                self._patiently(partial(storage.set_trial_user_attr, trial, key, value))

            def end() -> None:
                storage.set_trial_state_values(trial, state, values)

        def end_again() -> None:
            with contextlib.suppress(UpdateFinishedTrialError):
                end()

        self._patiently(end, end_again)

    def _patiently(self, write: Callable[[], Result], again: Callable[[], Result] | None = None) -> Result:
        """Write to the study as `Patience` does, where it is still ours. Raises `StudyLost` where it is not."""
        if self._lease is not None:
            self._patience(self._lease.check)
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            return self._patience(write, again)
        except (KeyError, UpdateFinishedTrialError):
            raise StudyLost("the study no longer holds the trials of this search") from None

    def _append(self, trial: FrozenTrial) -> int:
        """Create a trial under its number; its id. Nothing is done where that is there already."""
        try:
            return self._storage.create_new_trial(self._study, template_trial=trial)
        except NumberTaken:
            return self._written(trial)

    def _append_again(self, trial: FrozenTrial) -> int:
        """The same after an attempt that may have come through."""
        try:
            return self._written(trial)
        except KeyError:
            return self._append(trial)

    def _written(self, trial: FrozenTrial) -> int:
        """The id of a trial that has been written. Raises `KeyError` where it has not."""
        there = self._storage.get_trial_id_from_study_id_trial_number(self._study, trial.number)
        if self._storage.get_trial(there).system_attrs.get("trial") != trial.system_attrs["trial"]:
            raise RunError(
                f"trial {trial.number} of the study was written by somebody else; a study has one writer"
            )
        return there


def make_study(storage: BaseStorage, name: str, *, labels: bool, facts: Mapping[str, Any]) -> None:
    """Make the study. `facts` about the run are kept with it. Raises `RunError` where the name is taken, or the storage fails."""
    import optuna

    metrics = METRICS if labels else METRICS[:1]
    with in_one_line("the study cannot be written"):
        try:
            study = optuna.create_study(
                storage=storage, study_name=name, directions=["maximize"] * len(metrics)
            )
        except optuna.exceptions.DuplicatedStudyError:
            raise RunError(
                f"search.storage: it has a study '{name}' already; expected another name"
            ) from None
        study.set_user_attr("headsearch", dict(facts))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(metrics))


def foreign_trial(number: int) -> FrozenTrial:
    """A trial that keeps the number of one that somebody else put into the study."""
    from optuna.trial import TrialState, create_trial

    trial = create_trial(state=TrialState.FAIL)
    trial.number = number
    return trial
