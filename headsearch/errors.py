"""The exceptions of headsearch: one tree, one root.

A `UserError` is something the user can correct: the command line prints its message on one line and exits with 2.
`InfeasibleHead` and `TrialStopped` are not mistakes: they end a trial early.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable


class HeadsearchError(Exception):
    """Root of all errors that headsearch raises on purpose."""


class UserError(HeadsearchError, ValueError):
    """Bad input. The message is one line: what is wrong, where, and what was expected."""


class SpaceError(UserError):
    """A search space (or a head description) that cannot be read."""


class ExperimentError(UserError):
    """An experiment file or an override that cannot be read."""


class DataError(UserError):
    """Images or labels that cannot be used."""


class LabelsMissing(DataError):
    """Labels are required, but there are none that a probe could use."""

    def __init__(self, problem: str, advice: str) -> None:
        """`advice` is how to do without; who cannot do without has the problem alone."""
        super().__init__(problem, advice)
        self.problem = problem

    def __str__(self) -> str:
        return "; ".join(self.args)


class BaseModelError(UserError):
    """A base model that cannot be built, loaded, or fed."""


class HeadError(UserError):
    """A head that cannot be built on this base, or run on this feature map."""


class PluginError(UserError):
    """A plug-in, or the module of a base, that cannot be found, imported or used; or one that has changed since a run began."""


class RunError(UserError):
    """A run directory that cannot be created, opened, or resumed."""


class MissingPackage(UserError):
    """An optional package is not installed."""


class InfeasibleHead(HeadsearchError):
    """A trial that trained to something worthless: collapsed or not finite. `str(error)` is the reason."""


class TrialStopped(HeadsearchError):
    """Raised inside a trial when the search has decided to stop it."""


class RankLost(HeadsearchError):
    """One of several processes that train together has ended or cannot be reached, and the others cannot continue without it."""

    def __init__(
        self, how: str = "another rank is gone; it may have been killed or run out of memory"
    ) -> None:
        super().__init__(how)


def require(package: str, *, extra: str, where: str) -> None:
    """Check that a package of one of our extras is installed; nothing of it is imported.

    Raises:
        MissingPackage: it is not. `where` says what needs it.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingPackage(
            f"{where}: {package} is not installed; install it with: pip install 'headsearch[{extra}]'"
        )


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """A tail for an error message: `"; did you mean 'convnext'?"`, or the allowed names where none is near.

    >>> did_you_mean("convnet", ["convnext", "vit"])
    "; did you mean 'convnext'?"
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; expected one of: {', '.join(names)}" if names else ""


def printable(text: str) -> str:
    r"""The text with what no terminal should be given written as escapes: control characters, bytes that are no UTF-8.

    >>> printable("caf\udce9\x1b.png")
    'caf\\udce9\\x1b.png'
    """
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in text)
