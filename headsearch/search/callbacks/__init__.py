"""Callbacks: what else is told how a search goes, as the experiment's `search.callbacks` says.

A callback is an `Observer` that is closed in the end. It is told everything in the coordinating process, after it has been written to the
study; should it fail, it is told no more, and the search goes on. `broadcast.py` sees to that, `tracker.py` is for callbacks that keep
one log per trial, and `tensorboard.py`, `mlflow.py` and `wandb.py` are such. No package of theirs is imported unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headsearch.errors import require

if TYPE_CHECKING:
    from headsearch.experiment.callbacks import CallbackSpec
    from headsearch.search.callbacks.broadcast import Callback
    from headsearch.search.callbacks.tracker import Subject


def _tensorboard(spec: Any, subject: Subject) -> Callback:
    from headsearch.search.callbacks.tensorboard import TensorBoardCallback

    return TensorBoardCallback(subject)


def _mlflow(spec: Any, subject: Subject) -> Callback:
    from headsearch.search.callbacks.mlflow import MlflowCallback

    return MlflowCallback(subject, tracking_uri=spec.tracking_uri, experiment=spec.experiment)


def _wandb(spec: Any, subject: Subject) -> Callback:
    from headsearch.search.callbacks.wandb import WandbCallback

    return WandbCallback(subject, project=spec.project, mode=spec.mode)


_MAKERS: Mapping[str, Callable[[Any, Subject], Callback]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
"""By the `kind` of a spec, which is also the package that it needs."""


def check_callbacks(specs: Sequence[CallbackSpec]) -> None:
    """Check that what the callbacks need is installed. Raises `MissingPackage`, which names the extra."""
    for spec in specs:
        require(spec.kind, extra=spec.kind, where="search.callbacks")


def build_callbacks(specs: Sequence[CallbackSpec], subject: Subject) -> list[Callback]:
    """The callbacks of a search, ready to be told.

    Raises:
        RunError: a server that one of them writes to cannot be reached, or wants credentials.
    """
    return [_MAKERS[spec.kind](spec, subject) for spec in specs]
