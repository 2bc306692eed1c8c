"""Callbacks: what else is told how a search goes, as the experiment's `search.callbacks` says.

A callback is an `Observer` that is closed in the end. It is told everything in the coordinating process, after it has been written to the
study; should it fail, it is told no more, and the search goes on. `broadcast.py` sees to that, `tracker.py` is for callbacks that keep
one log per trial, and `tensorboard.py`, `mlflow.py` and `wandb.py` are such. No package of theirs is imported unless it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headsearch.errors import PluginError, require
from headsearch.experiment.guests import CALLBACKS, GuestSpec
from headsearch.plugins import run_by_a_guest

if TYPE_CHECKING:
    from headsearch.experiment.callbacks import CallbackSpec
    from headsearch.search.callbacks.broadcast import Callback
    from headsearch.search.callbacks.tracker import Subject


_CLASSES = {"tensorboard": "TensorBoardCallback", "mlflow": "MlflowCallback", "wandb": "WandbCallback"}
"""By the `kind` of a spec, which is also the package that it needs and the module here. The other keys of a spec are the class's arguments."""


def check_callbacks(specs: Sequence[CallbackSpec]) -> None:
    """Check that what the callbacks need is installed. Raises `MissingPackage`, which names the extra."""
    for spec in specs:
        if not isinstance(spec, GuestSpec):
            require(spec.kind, extra=spec.kind, where="search.callbacks")


def build_callbacks(specs: Sequence[CallbackSpec], subject: Subject) -> list[Callback]:
    """The callbacks of a search, ready to be told.

    Raises:
        RunError: a server that one of them writes to cannot be reached, or wants credentials.
        PluginError: one of a plug-in's raises something, or is no callback.
    """
    made: list[Callback] = []
    for spec in specs:
        if isinstance(spec, GuestSpec):
            made.append(_of_a_guest(spec, subject))
            continue
        module = importlib.import_module(f"{__name__}.{spec.kind}")
        made.append(getattr(module, _CLASSES[spec.kind])(subject, **spec.model_dump(exclude={"kind"})))
    return made


def _of_a_guest(spec: GuestSpec, subject: Subject) -> Callback:
    from headsearch.search.callbacks.broadcast import Callback

    with run_by_a_guest(f"search.callbacks: {spec.kind}"):
        made: object = CALLBACKS[spec.kind].open(spec.options, subject)
    if not isinstance(made, Callback):
        raise PluginError(f"search.callbacks: {spec.kind} makes a {type(made).__name__}; expected a Callback")
    made.name = spec.kind
    return made
