"""Who decides while a head is drawn from a space: an Optuna trial, or a count through all there is.

Both are choosers for `Space.draw`. The space asks for the same names in either case, so the decisions of one can be given to the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headsearch.heads.config import Scalar
from headsearch.space.tree import enumerate_walks, walk

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

    from headsearch.space import Space
    from headsearch.space.domains import Domain


@dataclass(frozen=True)
class Draw:
    """The decisions behind a head, as Optuna knows them."""

    params: Mapping[str, Scalar] = field(default_factory=dict)
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    sampler_state: Mapping[str, Any] = field(default_factory=dict)
    """What the sampler noted on the trial and needs to see again (NSGA-II: its generation)."""


@dataclass(frozen=True)
class OptunaChooser:
    """Lets an Optuna trial decide, one `suggest` per decision."""

    trial: Trial

    def categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of `choices`."""
        chosen: Scalar = self.trial.suggest_categorical(name, list(choices))
        return chosen

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        """From `low` to `high`, both included."""
        return self.trial.suggest_int(name, low, high, step=step, log=log)

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """From `low` to `high`."""
        return self.trial.suggest_float(name, low, high, log=log)


def default_decisions(space: Space) -> dict[str, Scalar]:
    """The decisions that lead to `space.default()`, by name."""
    decisions: dict[str, Scalar] = {}

    def first(name: str, domain: Domain, fallback: Scalar) -> Scalar:
        decisions[name] = domain.first(fallback)
        return decisions[name]

    walk(space.head, first)
    return decisions


def all_decisions(space: Space) -> Iterator[dict[str, Scalar]]:
    """The decisions behind every head of a finite space, in the order of `space.enumerate()`."""
    return (decisions for _, decisions in enumerate_walks(space.head))
