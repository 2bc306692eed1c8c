"""Files of a data set that are not used: how many, which, and why. No torch here.

Nothing is left out silently. A data set is refused if a large part of it cannot be read, unless the user accepts that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from headsearch.errors import DataError, printable

TOO_MANY = 0.2
"""A data set is refused if so large a share of its files cannot be read."""

_NAMED = 3
"""How many files a line names; the others are only counted."""


@dataclass
class LeftOut:
    """Files of a data set that are not used. It grows as streamed files are first read."""

    unreadable: dict[str, str] = field(default_factory=dict)
    """The reason by the file's name."""
    beside: dict[str, str] = field(default_factory=dict)
    """Images that could be read but have no place in the data set; also the reason by name."""
    rule: Literal["refuse", "accept"] = "refuse"
    """What to do if too many cannot be read."""
    place: str = "the data set"
    """What the files are of."""
    files: int = 0
    """How many there are, with those that cannot be read; 0 while that is unknown."""
    troubles: dict[str, bool] = field(default_factory=dict)
    """Problems of the cache rather than of the images, a line each, and whether the user has been told."""

    def __len__(self) -> int:
        return len(self.unreadable) + len(self.beside)

    def check(self, files: int | None = None) -> None:
        """Raise `DataError` where too many cannot be read: of all, or of the `files` that were looked at."""
        count = len(self.unreadable)
        of = self.files if files is None else files
        if self.rule == "refuse" and count and of and count >= TOO_MANY * of:
            raise DataError(
                f"data: {count:,} of {of:,} files of {self.place} cannot be read: {_some(self.unreadable)}; "
                "fix or remove them, or set data.unreadable to accept"
            )

    def told(self) -> list[str]:
        """One line for unreadable files and one for those beside the data set, with some names; none if nothing is left out."""
        lines = self.told_unreadable()
        if self.beside:
            lines.append(f"{_files(self.beside)} left out, beside the data set: {_some(self.beside)}")
        return lines

    def told_unreadable(self, since: int = 0) -> list[str]:
        """One line for unreadable files after the first `since`, and each problem of the cache that has not been told yet."""
        named = dict(list(self.unreadable.items())[since:])
        lines = [f"{_files(named)} left out, cannot be read: {_some(named)}"] if named else []
        lines += [trouble for trouble, told in self.troubles.items() if not told]
        self.troubles = dict.fromkeys(self.troubles, True)
        return lines

    def listed(self) -> str:
        """All of them, a line each."""
        return "".join(f"{printable(name)}: {why}\n" for name, why in (self.unreadable | self.beside).items())


def _files(named: Mapping[str, str]) -> str:
    return f"{len(named):,} file{'' if len(named) == 1 else 's'}"


def _some(named: Mapping[str, str]) -> str:
    first = [f"{printable(name)} ({why})" for name, why in list(named.items())[:_NAMED]]
    more = len(named) - len(first)
    return ", ".join(first) + (f", and {more:,} more" if more else "")
