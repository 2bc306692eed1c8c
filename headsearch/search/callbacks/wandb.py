"""Weights & Biases: one group of runs per search, one run per trial, whose id stays the same when the search is resumed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Literal

import wandb

from headsearch.errors import RunError
from headsearch.results.records import State
from headsearch.search.callbacks.tracker import LoggedTrial, Subject, Tracker

INIT_SECONDS = 30.0
"""For the server to take a new run, after which it is given up."""


class WandbCallback(Tracker):
    """Loss and scores over epochs, the head's parameters as the run's config."""

    name = "wandb"

    def __init__(self, subject: Subject, *, project: str, mode: Literal["online", "offline"] | None) -> None:
        """`mode` is wandb's own default (`WANDB_MODE`, else online) where it is None.

        Raises:
            RunError: runs are to go to the server, and there are no credentials for it.
        """
        super().__init__()
        self._subject = subject
        self._project = project
        self._mode: Literal["online", "offline"] | None = mode
        self._runs: dict[int, wandb.Run] = {}
        online = (mode or os.environ.get("WANDB_MODE", "online")) == "online"
        if online and not wandb.login(prompt=False, verify=False):
            raise RunError(
                "search.callbacks: wandb has no credentials; expected WANDB_API_KEY, a former `wandb login`, or mode: offline"
            )

    def begin(self, trial: LoggedTrial) -> None:
        run = wandb.init(
            project=self._project,
            group=self._subject.key,
            job_type="control" if trial.control else trial.stage,
            name=trial.title,
            id=_run_id(self._subject.key, trial.number),
            config={**trial.parameters, "seed": trial.seed, "head_id": trial.candidate.head_id},
            notes=self._subject.experiment,
            dir=self._subject.folder,
            mode=self._mode,
            resume="allow",
            # Trials run side by side.
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_SECONDS),
        )
        # A resumed trial reports an epoch again, which a step of wandb's own may not.
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        self._runs[trial.number] = run

    def log(self, number: int, epoch: int, values: Mapping[str, float]) -> None:
        self._runs[number].log({"epoch": epoch, **values})

    def end(self, number: int, state: State, reason: str | None) -> None:
        run = self._runs.pop(number)
        run.summary.update({"state": state, "reason": reason or ""})
        run.finish(exit_code=0 if state in ("complete", "stopped") else 1)

    def close(self) -> None:
        for run in self._runs.values():
            run.mark_preempting()
            run.finish(exit_code=1)
        self._runs.clear()


def _run_id(key: str, number: int) -> str:
    """Of few characters, as wandb's ids are."""
    return f"{hashlib.sha256(key.encode()).hexdigest()[:10]}-{number}"
