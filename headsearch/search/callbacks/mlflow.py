"""MLflow: a run for the search, and below it one for every trial. Found again by their tags when the search is resumed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from headsearch.errors import RunError
from headsearch.results.records import State
from headsearch.runs.storages import without_password
from headsearch.search.callbacks.tracker import LoggedTrial, Subject, Tracker
from headsearch.search.observer import SearchStatus

# Read when MLflow is imported or used. A server that has gone is given up after seconds, where MLflow itself would try for minutes; and
# nothing but the ranking goes to stdout.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

SEARCH_TAG, TRIAL_TAG, PARENT_TAG = "headsearch.search", "headsearch.trial", "mlflow.parentRunId"
_STATUS: Mapping[State, str] = {
    "complete": "FINISHED",
    "stopped": "KILLED",
    "infeasible": "FAILED",
    "failed": "FAILED",
}


class MlflowCallback(Tracker):
    """Loss and scores as metrics whose step is the epoch, the head's parameters as parameters."""

    name = "mlflow"

    def __init__(self, subject: Subject, *, tracking_uri: str | None, experiment: str | None) -> None:
        """`tracking_uri` is MLflow's own default where it is None, `experiment` the experiment's name.

        Raises:
            RunError: the server or file cannot be had.
        """
        super().__init__()
        self._key = subject.key
        self._runs: dict[int, str] = {}
        try:
            self._client = MlflowClient(tracking_uri=tracking_uri)
            name = experiment or subject.name
            known = self._client.get_experiment_by_name(name)
            self._experiment = self._client.create_experiment(name) if known is None else known.experiment_id
            self._search = self._run(SEARCH_TAG, subject.key, subject.name, {})
            self._client.set_tag(self._search, "mlflow.note.content", f"```yaml\n{subject.experiment}```")
        except (MlflowException, OSError) as error:
            reason = without_password(" ".join(str(error).split()))[:300]
            raise RunError(f"search.callbacks: mlflow cannot be written to: {reason}") from None

    def begin(self, trial: LoggedTrial) -> None:
        run = self._run(
            TRIAL_TAG,
            f"{self._key}/{trial.number}",
            trial.title,
            {PARENT_TAG: self._search, "headsearch.head_id": trial.candidate.head_id},
        )
        self._runs[trial.number] = run
        described = {**trial.parameters, "seed": trial.seed}
        self._client.log_batch(run, params=[Param(name, str(value)) for name, value in described.items()])

    def log(self, number: int, epoch: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, epoch) for name, value in values.items()]
        self._client.log_batch(self._runs[number], metrics=metrics)

    def end(self, number: int, state: State, reason: str | None) -> None:
        run = self._runs.pop(number)
        noted = {"headsearch.state": state, "headsearch.reason": reason}
        tags = [RunTag(key, value) for key, value in noted.items() if value is not None]
        self._client.log_batch(run, tags=tags)
        self._client.set_terminated(run, _STATUS[state])

    def search_ended(self, status: SearchStatus) -> None:
        self._client.set_terminated(self._search, "FINISHED")
        self._search = ""

    def close(self) -> None:
        for run in (*self._runs.values(), self._search):
            if run:
                self._client.set_terminated(run, "KILLED")
        self._runs.clear()

    def _run(self, tag: str, value: str, name: str, tags: Mapping[str, str]) -> str:
        """The run with this tag, of a former session or new."""
        found = self._client.search_runs([self._experiment], f"tags.`{tag}` = '{value}'", max_results=1)
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return str(found[0].info.run_id)
        made = self._client.create_run(self._experiment, tags={tag: value, **tags}, run_name=name)
        return str(made.info.run_id)
