"""One thread a process, and the instructions of `tests/proof`: tests run side by side, and sums of floats do not depend on the machine.

Ctrl-C is never ignored: a shell's background job inherits that, passes it on, and searches that a test interrupts would go on.
"""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from frozen import PINNED
from hypothesis import settings
from processes import FEW_PAIRS

os.environ.update(PINNED)

settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=300, deadline=None)
settings.load_profile("quick")

# What imports leave stays: 800,000 objects, which each collection would go through.
gc.disable()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = [
    "test_browser.py",
    "test_cli.py",
    "test_end_to_end.py",
    "test_executor_conformance.py",
    "test_functions.py",
    "test_looking.py",
    "test_notebooks.py",
    "test_own.py",
    "test_scores_repeat.py",
    "test_search.py",
    "test_trunk.py",
]
"""Files that take a minute or about that: begun first, or one worker would be left alone with them at the end."""


def pytest_collection_finish() -> None:
    """All is imported: from here on, only what tests make is garbage."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """Libraries complain of what is left when Python ends."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def no_guests() -> Iterator[None]:
    """Plug-ins that a test has loaded are not known to the next."""
    yield
    from headsearch.registry import _REGISTRIES

    for registry in _REGISTRIES.values():
        registry._guests.clear()


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a head costs in time is measured by few steps, here as in the processes of tests."""
    overhead = sys.modules.get("headsearch.training.overhead")
    if overhead is not None:
        monkeypatch.setattr(overhead, "_PAIRS", FEW_PAIRS)


_MIGRATIONS: list[Any] = []


@pytest.fixture(autouse=True)
def migrations_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna reads its scripts of migration three times for every new database, a quarter of what a small toy search takes."""
    storage = sys.modules.get("optuna.storages._rdb.storage")
    if storage is None:
        return

    def scripts(manager: Any) -> Any:
        if not _MIGRATIONS:
            _MIGRATIONS.append(read(manager))
        return _MIGRATIONS[0]

    read = storage._VersionManager._create_alembic_script
    monkeypatch.setattr(storage._VersionManager, "_create_alembic_script", scripts)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished toy search with everything in it: controls, replicates, heads that were stopped, collapsed, failed, and duplicates.

    Not to be written to.
    """
    from headsearch.testing.toy import ToyEvaluator
    from headsearch.testing.toy_search import run_toy, toy_experiment

    out = tmp_path_factory.mktemp("toy") / "mixed"
    experiment = toy_experiment(
        trials=30, sampler="random", finalists=4, replicates=2, stopping={"kind": "asha", "reduction": 2}
    )
    run_toy(out, experiment, ToyEvaluator(failures={"swin": "collapse", "gmlp": "error"}))
    return out
