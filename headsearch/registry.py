"""What there is of one kind (families of heads, methods, measures, …) by name: ours first, then what plug-ins add. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Entry:
    """Something that a registry holds."""

    name: str
    """What experiments and spaces call it: small letters, digits and `_`."""

    def check(self) -> None:
        """Look for mistakes that the type does not rule out. Raises `ValueError`, which says in one line what was expected."""


E = TypeVar("E", bound=Entry)

_REGISTRIES: dict[type[Entry], Registry[Any]] = {}


class Registry(Mapping[str, E], Generic[E]):
    """A mapping from names to entries, in the order in which they came. What is ours cannot be replaced."""

    def __init__(self, kind: type[E], what: str, ours: Iterable[E], *, taken: Iterable[str] = ()) -> None:
        """`what` names an entry in messages, `taken` are names of ours that are no entries. There is one registry of a kind."""
        self.what = what
        self.taken = tuple(taken)
        self._ours = {entry.name: entry for entry in ours}
        self._guests: dict[str, E] = {}
        _REGISTRIES[kind] = self

    def __getitem__(self, name: str) -> E:
        return self._ours[name] if name in self._ours else self._guests[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._ours
        yield from self._guests

    def __len__(self) -> int:
        return len(self._ours) + len(self._guests)

    @property
    def guests(self) -> frozenset[str]:
        """Names of what plug-ins have brought."""
        return frozenset(self._guests)

    def add(self, entry: E) -> None:
        """Add what a plug-in brings. A former guest of that name makes way. Raises `ValueError` where the entry cannot be used."""
        if not _NAME.fullmatch(entry.name):
            raise ValueError(f"{self.what} {entry.name!r}: expected a name of small letters, digits and '_'")
        if entry.name in self._ours or entry.name in self.taken:
            raise ValueError(f"{self.what} '{entry.name}': headsearch has one of that name; choose another")
        try:
            entry.check()
        except ValueError as error:
            raise ValueError(f"{self.what} '{entry.name}': {error}") from None
        self._guests[entry.name] = entry


def registry_of(entry: object) -> Registry[Any] | None:
    """The registry that takes such an entry; None where none does."""
    return next((_REGISTRIES[kind] for kind in type(entry).__mro__ if kind in _REGISTRIES), None)
