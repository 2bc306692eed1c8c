"""Executors and callbacks of plug-ins: what a plug-in declares of them, and how experiments name them, `{kind: polite, kwargs: {load: 2.0}}`.

Neither is anything to the rest of an experiment. What they do is said where ours are: `headsearch.search.executors`, `headsearch.search.callbacks`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from headsearch.errors import did_you_mean
from headsearch.experiment.sections import Section, is_recorded
from headsearch.options import Options, checked_options
from headsearch.registry import Entry, Registry


@dataclass(frozen=True)
class ExecutorEntry(Entry):
    """Runs trainings somewhere else, or otherwise."""

    options: type[Options]
    """What `kwargs` may hold."""
    open: Callable[[Any, Path, str], AbstractContextManager[Any]]
    """From the options, the run directory and `proxy.device`: a `headsearch.search.executors.Executor`, for as long as the context lasts. Raises a
    `UserError` where something that it needs is not there."""
    apart: bool = False
    """Whether trainings run in other processes, each of which reads the images: this one then need not keep them."""


@dataclass(frozen=True)
class CallbackEntry(Entry):
    """Is told how a search goes."""

    options: type[Options]
    """What `kwargs` may hold."""
    open: Callable[[Any, Any], Any]
    """From the options and the `headsearch.search.callbacks.tracker.Subject`: a `headsearch.search.callbacks.broadcast.Callback`. Raises a `UserError`
    where something that it needs is not there."""


EXECUTORS: Registry[ExecutorEntry] = Registry(
    ExecutorEntry, "executor", (), taken=("inline", "process", "ray", "slurm")
)
"""Executors of plug-ins."""

CALLBACKS: Registry[CallbackEntry] = Registry(
    CallbackEntry, "callback", (), taken=("tensorboard", "mlflow", "wandb")
)
"""Callbacks of plug-ins."""

GUEST = "guest"
"""What a spec of a plug-in's is called among the kinds of a key."""


class GuestSpec(Section):
    """Something that a plug-in brings, and its options."""

    registry: ClassVar[Registry[Any]]

    kind: str
    kwargs: dict[str, Any] = Field(default_factory=dict)

    @field_validator("kind")
    @classmethod
    def _is_known(cls, kind: str, info: ValidationInfo) -> str:
        known = cls.registry
        if kind not in known and not is_recorded(info):
            raise ValueError(f"'{kind}' is not known{did_you_mean(kind, [*known.taken, *known])}")
        return kind

    @model_validator(mode="after")
    def _has_its_options(self) -> Self:
        if self.kind in self.registry:
            self.options  # noqa: B018 - checked by being made
        return self

    @property
    def options(self) -> Options:
        """The options, complete. Raises `ExperimentError`."""
        schema: type[Options] = self.registry[self.kind].options
        return checked_options(schema, self.kwargs, "kwargs", self.kind)


class GuestExecutor(GuestSpec):
    """An executor of a plug-in's."""

    registry = EXECUTORS


class GuestCallback(GuestSpec):
    """A callback of a plug-in's."""

    registry = CALLBACKS


def kind_of(registry: Registry[Any]) -> Callable[[Any], str | None]:
    """Tells which of a union's sections a value is: ours by their kind, and one for all others."""

    def told(value: Any) -> str | None:
        kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
        return None if not isinstance(kind, str) else kind if kind in registry.taken else GUEST

    return told
