"""headsearch: find the auxiliary head that makes a base vision model better, before anyone pays for pretraining."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headsearch.api.functions import compare, evaluate, load_experiment, open, pretrain, search
from headsearch.errors import HeadsearchError, UserError

if TYPE_CHECKING:
    from headsearch.api.run import Run as Run
    from headsearch.experiment import Experiment as Experiment
    from headsearch.export import load_head as load_head
    from headsearch.export import load_heads as load_heads
    from headsearch.pair import HSSLPair as HSSLPair

__version__ = "0.1.0"
__all__ = [
    "Experiment",
    "HSSLPair",
    "HeadsearchError",
    "Run",
    "UserError",
    "__version__",
    "compare",
    "evaluate",
    "load_experiment",
    "load_head",
    "load_heads",
    "open",
    "pretrain",
    "search",
]

_LATER = {
    "Experiment": "headsearch.experiment",
    "HSSLPair": "headsearch.pair",
    "Run": "headsearch.api.run",
    "load_head": "headsearch.export",
    "load_heads": "headsearch.export",
}
"""What is imported when it is asked for, and from where: `headsearch --help` must not wait for it."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)


class _Package(ModuleType):
    """Keeps `headsearch.search` and `headsearch.pretrain` the functions when the packages of these names are imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in ("search", "pretrain")):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
