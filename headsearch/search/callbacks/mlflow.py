"""MLflow: a run for the search, and below it one for every trial. Found again by their tags when the search is resumed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib.util import find_spec

import yaml

from headsearch.errors import RunError
from headsearch.results.records import State
from headsearch.search.callbacks.tracker import LoggedTrial, Subject, Tracker
from headsearch.search.observer import SearchStatus
from headsearch.secrecy import redacted, resolved

# Read when MLflow is imported or used. A server that has gone is given up after seconds, where MLflow itself would try for minutes; and
# nothing but the ranking goes to stdout.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.store.db import utils as database

# The same for a database, of which it makes ten attempts in 101 seconds.
database.MAX_RETRY_COUNT = 4

MOST_PARAMS, MOST_CHARACTERS = 100, 500
"""That every MLflow server takes: parameters at a time, and characters of one."""

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
        self._folder = subject.folder
        self._runs: dict[int, str] = {}
        try:
            if tracking_uri is not None:
                tracking_uri = resolved(tracking_uri, "search.callbacks: tracking_uri")
            self._client = MlflowClient(tracking_uri=tracking_uri)
            name = experiment or subject.name
            known = self._client.get_experiment_by_name(name)
            self._experiment = self._client.create_experiment(name) if known is None else known.experiment_id
            self._search = self._run(SEARCH_TAG, subject.key, subject.name, {})
            self._client.set_tag(self._search, "mlflow.note.content", f"```yaml\n{subject.experiment}```")
            self._describe(self._search, _flat(yaml.safe_load(subject.experiment)))
        except RunError:
            raise
        except Exception as error:  # noqa: BLE001 - SQLAlchemy, requests and MLflow's own, as the address has it
            reason = redacted(" ".join(str(error).split()))[:300]
            if "MLFLOW_ALLOW_FILE_STORE" in str(error):
                reason = "this MLflow keeps no runs in folders; expected a database (tracking_uri: sqlite:///mlflow.db) or a server (http://host:5000)"
            raise RunError(f"search.callbacks: mlflow cannot be written to: {reason}") from None

    def begin(self, trial: LoggedTrial) -> None:
        run = self._run(
            TRIAL_TAG,
            f"{self._key}/{trial.number}",
            trial.title,
            {PARENT_TAG: self._search, "headsearch.head_id": trial.candidate.head_id},
        )
        self._runs[trial.number] = run
        self._describe(run, {**trial.parameters, "seed": trial.seed})

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
        self._conclude()
        self._client.set_terminated(self._search, "FINISHED")
        self._search = ""

    def close(self) -> None:
        for run in (*self._runs.values(), self._search):
            if run:
                self._client.set_terminated(run, "KILLED")
        self._runs.clear()

    def _conclude(self) -> None:
        """What the search came to: figures of the winner, the verdict, and the report."""
        from headsearch.runs.run import read_run

        found = read_run(self._folder)
        winner = found.ranked[0] if found.ranked else None
        now, noted = int(1000 * time.time()), {"headsearch.verdict": found.verdict}
        figures: dict[str, float] = {"trials": len(found.records), "ranked": len(found.ranked)}
        if winner is not None:
            noted["headsearch.winner"] = winner.head_id
            figures |= {
                f"winner/{name}": float(value)
                for name, value in winner.to_dict().items()
                if isinstance(value, int | float) and not isinstance(value, bool)
            }
        self._client.log_batch(
            self._search,
            metrics=[Metric(name, value, now, 0) for name, value in figures.items()],
            tags=[RunTag(key, value) for key, value in noted.items()],
        )
        if find_spec("dash") is None:
            # Pages and figures need the extra `dashboard`.
            return
        from headsearch.report.markdown import markdown_report
        from headsearch.report.named_figures import FIGURES

        self._client.log_text(self._search, markdown_report(found), "report.md")
        for name, make in FIGURES.items():
            self._client.log_figure(self._search, make(found), f"figures/{name}.html")

    def _describe(self, run: str, described: Mapping[str, object]) -> None:
        """Parameters of a run; those that it has from a former session stay, as MLflow wants it."""
        known = self._client.get_run(run).data.params
        params = [
            Param(name, str(value)[:MOST_CHARACTERS])
            for name, value in described.items()
            if name not in known
        ]
        for start in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(run, params=params[start : start + MOST_PARAMS])

    def _run(self, tag: str, value: str, name: str, tags: Mapping[str, str]) -> str:
        """The run with this tag, of a former session or new."""
        found = self._client.search_runs([self._experiment], f"tags.`{tag}` = '{value}'", max_results=1)
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return str(found[0].info.run_id)
        made = self._client.create_run(self._experiment, tags={tag: value, **tags}, run_name=name)
        return str(made.info.run_id)


def _flat(content: Mapping[str, object], path: str = "") -> dict[str, object]:
    """Nested plain data by dotted keys; lists as they are."""
    flat: dict[str, object] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{path}{key}.")
        else:
            flat[f"{path}{key}"] = value
    return flat
