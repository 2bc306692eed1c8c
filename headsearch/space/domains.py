"""Value domains: the sets that one number, word or flag of a head may come from, and who chooses within them.

A domain knows its values, their number, which is tried first, and how to ask a `Chooser` for one. Everything that explores a space (a random
generator, Optuna, an enumeration) is a chooser; the space itself never decides.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from headsearch.heads.config import Scalar


class Chooser(Protocol):
    """Decides within a space, one named decision after another. Optuna's `Trial.suggest_*` fits in three lines.

    Names are readable paths such as `family`, `convnext.kernel_size` or `slot2.convnext.kernel_size`; one name always comes with
    one domain.
    """

    def categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of `choices`."""

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        """One of low, low + step, …, high, both ends included; `log` (with step 1 only) asks for a log-uniform draw."""

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """A number from low to high, both ends included; `log` asks for a log-uniform draw."""


@dataclass(frozen=True)
class RandomChooser:
    """Draws every decision independently: uniformly, or log-uniformly where the domain says `log`."""

    rng: random.Random

    def categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of `choices`, all equally likely."""
        return self.rng.choice(choices)

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        """A whole number; with `log`, a log-uniform real number over [low - ½, high + ½], rounded, as Optuna does it."""
        if not log:
            return self.rng.randrange(low, high + 1, step)
        value = round(math.exp(self.rng.uniform(math.log(low - 0.5), math.log(high + 0.5))))
        return min(max(value, low), high)

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """A real number."""
        if not log:
            return min(max(self.rng.uniform(low, high), low), high)
        return min(max(math.exp(self.rng.uniform(math.log(low), math.log(high))), low), high)


@dataclass(frozen=True)
class Fixed:
    """A single value; nobody is asked."""

    value: Scalar

    def draw(self, name: str, chooser: Chooser) -> Scalar:
        """The value."""
        return self.value

    def first(self, fallback: Scalar) -> Scalar:
        """The value."""
        return self.value

    @property
    def count(self) -> int | None:
        """Number of values."""
        return 1

    def values(self) -> Iterator[Scalar]:
        """The one value."""
        yield self.value

    def __contains__(self, value: Scalar) -> bool:
        return same_scalar(value, self.value)

    def to_data(self) -> Any:
        """Normalised meaning, for hashing."""
        return self.value

    def __str__(self) -> str:
        return scalar_text(self.value)


@dataclass(frozen=True)
class Choice:
    """One of a list of distinct values."""

    options: tuple[Scalar, ...]
    default: int | None = None
    """Position of the value tried first; None where the space names none."""

    def draw(self, name: str, chooser: Chooser) -> Scalar:
        """Ask `chooser` for one of the values."""
        return chooser.categorical(name, self.options)

    def first(self, fallback: Scalar) -> Scalar:
        """The default, else `fallback` if it belongs to the domain, else the first value."""
        if self.default is not None:
            return self.options[self.default]
        return fallback if fallback in self else self.options[0]

    def starting(self, fallback: Scalar, steps: int) -> Choice:
        """The same values, tried first `steps` places after the one that would be, round and round."""
        first = self.options.index(self.first(fallback))
        return replace(self, default=(first + steps) % len(self.options))

    @property
    def count(self) -> int | None:
        """Number of values."""
        return len(self.options)

    def values(self) -> Iterator[Scalar]:
        """The values in the order written."""
        return iter(self.options)

    def __contains__(self, value: Scalar) -> bool:
        return any(same_scalar(value, option) for option in self.options)

    def to_data(self) -> Any:
        """Normalised meaning, for hashing."""
        return {"choice": list(self.options), "default": self.default}

    def __str__(self) -> str:
        words = [
            scalar_text(option) + ("*" if i == self.default else "") for i, option in enumerate(self.options)
        ]
        return "{" + ", ".join(words) + "}"


@dataclass(frozen=True)
class Integer:
    """Whole numbers low, low + step, …, high; `high` is always one of them."""

    low: int
    high: int
    step: int = 1
    log: bool = False
    default: int | None = None
    """The value tried first; None where the space names none."""

    def draw(self, name: str, chooser: Chooser) -> Scalar:
        """Ask `chooser` for one of the numbers."""
        return chooser.integer(name, self.low, self.high, self.step, self.log)

    def first(self, fallback: Scalar) -> Scalar:
        """The default, else `fallback` if it belongs to the domain, else `low`."""
        if self.default is not None:
            return self.default
        return fallback if fallback in self else self.low

    @property
    def numbers(self) -> range:
        """All of them."""
        return range(self.low, self.high + 1, self.step)

    def starting(self, fallback: Scalar, steps: int) -> Integer:
        """The same numbers, tried first `steps` places after the one that would be, round and round."""
        place = self.numbers.index(int(self.first(fallback) or 0)) + steps
        return replace(self, default=self.numbers[place % self.count])

    @property
    def count(self) -> int:
        """Number of values, which may be more than `len` can tell."""
        return (self.high - self.low) // self.step + 1

    def values(self) -> Iterator[Scalar]:
        """The numbers, ascending."""
        return iter(self.numbers)

    def __contains__(self, value: Scalar) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            return False
        return int(value) in self.numbers

    def to_data(self) -> Any:
        """Normalised meaning, for hashing."""
        return {"int": [self.low, self.high], "step": self.step, "log": self.log, "default": self.default}

    def __str__(self) -> str:
        return f"{self.low}…{self.high}" + _suffix(step=self.step, log=self.log, default=self.default)


@dataclass(frozen=True)
class Real:
    """Real numbers from low to high: a continuum, unless both are equal."""

    low: float
    high: float
    log: bool = False
    default: float | None = None
    """The value tried first; None where the space names none."""

    def draw(self, name: str, chooser: Chooser) -> Scalar:
        """Ask `chooser` for one of the numbers."""
        return chooser.real(name, self.low, self.high, self.log)

    def first(self, fallback: Scalar) -> Scalar:
        """The default, else `fallback` if it belongs to the domain, else `low`."""
        if self.default is not None:
            return self.default
        return fallback if fallback in self else self.low

    @property
    def count(self) -> int | None:
        """1 where both bounds are equal, else None: a continuum."""
        return 1 if self.low == self.high else None

    def values(self) -> Iterator[Scalar]:
        """The bounds: all there is where they are equal, and what a check of the whole domain has to look at."""
        yield self.low
        if self.high != self.low:
            yield self.high

    def __contains__(self, value: Scalar) -> bool:
        return (
            not isinstance(value, bool) and isinstance(value, int | float) and self.low <= value <= self.high
        )

    def to_data(self) -> Any:
        """Normalised meaning, for hashing."""
        return {"float": [self.low, self.high], "log": self.log, "default": self.default}

    def __str__(self) -> str:
        return f"{self.low:g}…{self.high:g} real" + _suffix(step=1, log=self.log, default=self.default)


Domain = Fixed | Choice | Integer | Real


def same_scalar(a: Scalar, b: Scalar) -> bool:
    """Equality that keeps `True` and `1` apart (they are equal in Python) and takes `7` and `7.0` as the same.

    >>> same_scalar(True, 1), same_scalar(7, 7.0)
    (False, True)
    """
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def scalar_text(value: Scalar) -> str:
    """A value as YAML writes it, on one line.

    >>> scalar_text(True), scalar_text(None), scalar_text(0.5)
    ('true', 'null', '0.5')
    """
    if value is None:
        return "null"
    if isinstance(value, str) and not value.isprintable():
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _suffix(*, step: int, log: bool, default: float | None) -> str:
    parts = [f" step {step}"] if step != 1 else []
    parts += [" log"] if log else []
    parts += [f" (first {default:g})"] if default is not None else []
    return "".join(parts)
