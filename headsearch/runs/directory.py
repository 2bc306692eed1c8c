"""The run directory: what a search leaves on disk, and who may write there.

    experiment.yaml     the experiment as resolved; a comment says with which versions
    space.yaml          the text of its space
    run.json            versions, hash of the space, facts about the base
    study.db            the study, unless the experiment names another storage
    left_out.txt        files of the data set that are not used, with the reason; only where there are any
    trials/<number>/    one folder per trial

Files are written to a temporary name and renamed, so that a reader sees the old or the new text and never half of it. No torch here.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from headsearch.base.info import BaseInfo
from headsearch.document import shorten
from headsearch.errors import ExperimentError, RunError
from headsearch.experiment import Experiment
from headsearch.experiment.loading import recorded_experiment
from headsearch.experiment.sections import TOUCHES_NO_SCORE
from headsearch.files import (
    checked,
    differences,
    load_json,
    read_text,
    versions,
    whole_folder,
    write_atomically,
    writing,
)
from headsearch.plugins import changed

VERSION: Literal["headsearch/run@1"] = "headsearch/run@1"

LEFT_OUT = "left_out.txt"

_MAY_CHANGE = frozenset(
    {
        "trials",
        "finalists",
        "replicates",
        "replicates_of_none",
        "target_epochs",
        "equal_time",
        "anchors",
        "certainty",
        "executor",
        "storage",
        "storage_patience",
        "callbacks",
        "space",
    }
)
"""Keys of `search` that a resumed run may change. The space is compared by its hash, not by how it is named."""


@dataclass(frozen=True)
class RunFacts:
    """What a run is about, beyond its experiment."""

    study: str
    """Name of the Optuna study."""
    space_hash: str
    base: BaseInfo
    versions: Mapping[str, str] = field(default_factory=lambda: versions())
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    key: str = field(default_factory=lambda: secrets.token_hex(4))
    """Tells this run from others of its name."""
    data: tuple[str, ...] = ()
    """What was understood of the images and what of them is left out, a line each; empty in runs of former versions."""
    code: Mapping[str, str] = field(default_factory=dict)
    """Digests of plug-ins and of the base's module, by file or module; see `headsearch.plugins.digests`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"run": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunFacts:
        """The inverse of `to_dict`. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        # What would have a default was noted when the run began, or is not known.
        given = {name: data[name] for name in ("study", "space_hash", "base", "versions", "created")}
        given |= {
            "key": data.get("key", data["created"]),
            "data": data.get("data", []),
            "code": data.get("code", {}),
        }
        return checked(cls, given)


@dataclass(frozen=True)
class RunDirectory:
    """A run directory that exists."""

    path: Path

    @classmethod
    def create(
        cls, path: Path, experiment: Experiment, space_text: str, facts: RunFacts, left_out: str = ""
    ) -> RunDirectory:
        """Make the directory, whole or not at all. `left_out` is the text of `left_out.txt`.

        Raises:
            RunError: it exists already, or cannot be written.
        """
        cls.refuse_existing(path)
        made = [parent for parent in (path, *path.parents) if not parent.exists()]
        try:
            with whole_folder(path) as whole:
                write_atomically(whole / "experiment.yaml", _commented(experiment, facts))
                write_atomically(whole / "space.yaml", space_text)
                write_atomically(whole / "run.json", json.dumps(facts.to_dict(), indent=2) + "\n")
                if left_out:
                    write_atomically(whole / LEFT_OUT, left_out)
                (whole / "trials").mkdir()
        except OSError as error:
            for folder in made[1:]:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            # Another process may have been quicker.
            cls.refuse_existing(path)
            raise RunError(f"{path}: cannot be created: {error.strerror or error}") from None
        return cls(path)

    @staticmethod
    def refuse_existing(path: Path) -> None:
        """Raise `RunError` where something is already at `path`; an empty folder may be filled."""
        if path.is_dir() and not any(path.iterdir()):
            return
        if path.exists():
            raise RunError(f"{path} exists; add --resume to continue it, or choose another --out")

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """An existing run directory. Raises `RunError` where there is none."""
        path = Path(path)
        try:
            if not path.is_dir():
                found = "a file, not a run directory" if path.exists() else "no such run directory"
                raise RunError(f"{path}: {found}; headsearch run makes one")
            if not (path / "run.json").is_file() or not (path / "experiment.yaml").is_file():
                within = ", ".join(sorted(str(file.parent) for file in path.glob("*/run.json")))
                expected = (
                    f"expected one of: {shorten(within, 200)}" if within else "headsearch run makes one"
                )
                raise RunError(f"{path}: not a run directory (no run.json and experiment.yaml); {expected}")
        except (OSError, ValueError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None
        return cls(path)

    def remove(self) -> None:
        """Delete it, for a run that could not begin."""
        shutil.rmtree(self.path)

    @property
    def experiment_path(self) -> Path:
        """The experiment as resolved."""
        return self.path / "experiment.yaml"

    @property
    def study_path(self) -> Path:
        """Where the study is when the experiment does not say."""
        return self.path / "study.db"

    @property
    def begun(self) -> bool:
        """Whether a trial has ever been started here."""
        return any((self.path / "trials").glob("*"))

    @property
    def space_path(self) -> Path:
        """The text of the space as it was when the run began."""
        return self.path / "space.yaml"

    def trial_folder(self, number: int) -> Path:
        """The folder of a trial; not made here."""
        return self.path / "trials" / str(number)

    def metrics_path(self, number: int) -> Path:
        """What a trial saw while it trained, epoch by epoch."""
        return self.trial_folder(number) / "metrics.jsonl"

    def experiment(self) -> Experiment:
        """The experiment as resolved. Raises `RunError` where it cannot be read."""
        try:
            return recorded_experiment(self.experiment_path)
        except ExperimentError as error:
            raise RunError(str(error)) from None

    def facts(self) -> RunFacts:
        """What `run.json` says. Raises `RunError` where it cannot be read."""
        file = self.path / "run.json"
        try:
            return RunFacts.from_dict(load_json(read_text(file, RunError)))
        except RunError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others from coordinating this run meanwhile. The lock goes when the process does, however it ends.

        Raises:
            RunError: another coordinator holds it, or the directory cannot be written.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"{self.path}: another headsearch run is at work on it; wait for it or stop it"
            ) from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot be locked: {error.strerror or error}") from None
        try:
            yield
        finally:
            lock.release()

    @property
    def at_work(self) -> bool:
        """Whether a coordinator holds the lock now. Looks without taking it from anybody; needs no right to write."""
        import fcntl

        try:
            with (self.path / ".lock").open("rb") as file:
                # Shared, so that two who look do not see each other, and let go at once.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                fcntl.flock(file, fcntl.LOCK_UN)
        except BlockingIOError:
            return True
        except OSError:
            # No lock, or none that we may open: nobody was ever at work, or not here.
            return False
        return False

    def check_resume(self, experiment: Experiment, space_hash: str) -> None:
        """Check that `experiment` goes on with this run.

        Raises:
            RunError: naming what changed, where the new trials could not be compared with the old.
        """
        facts = self.facts()
        if facts.space_hash != space_hash:
            raise RunError(
                f"{self.path}: cannot resume with another space (hash {space_hash}, the run has {facts.space_hash}); "
                f"its own is {self.space_path}; choose another --out for the new one"
            )
        refuse_changes(self.path, changed_keys(self.experiment(), experiment))
        other = changed(facts.code, experiment.code())
        if other is not None:
            raise RunError(f"{self.path}: cannot resume {other}; choose another --out")

    def extend(self, experiment: Experiment) -> None:
        """Record that the run goes on with `experiment`, which `check_resume` has let pass. Raises `RunError`."""
        if self.experiment() == experiment:
            return
        with writing(self.path):
            write_atomically(self.experiment_path, _commented(experiment, self.facts()))


def refuse_changes(out: Path, changes: Iterable[tuple[str, Any, Any]]) -> None:
    """Raise `RunError` where anything has changed: what is in `out` cannot be resumed. It names the keys, and the first one's new value and old one."""
    listed = list(changes)
    if listed:
        key, old, new = listed[0]
        others = [another for another, _, _ in listed[1:]]
        more = f" (and another {shorten(', '.join(others))})" if others else ""
        raise RunError(
            f"{out}: cannot resume with another {key}: {new!r}, it has {old!r}{more}; choose another --out"
        )


def changed_keys(before: Experiment, after: Experiment) -> list[tuple[str, Any, Any]]:
    """Keys, with old and new value, whose change makes trials incomparable. More trials, finalists, replicates, another certainty,
    executor, storage or callbacks do not."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    for experiment in (old, new):
        for key in _MAY_CHANGE:
            experiment["search"].pop(key, None)
        # Neither what a run is called nor whether it keeps its checkpoints touches a score; nor does what is done about unreadable files, or where decoded ones are kept.
        experiment.pop("name")
        # Compared by their digests, wherever they lie.
        experiment.pop("plugins", None)
        experiment["base"].pop("module", None)
        experiment["proxy"].pop("keep_checkpoints")
        for key in TOUCHES_NO_SCORE:
            experiment["data"].pop(key, None)
    return list(differences(old, new))


def _commented(experiment: Experiment, facts: RunFacts) -> str:
    listed = ", ".join(f"{package} {version}" for package, version in facts.versions.items())
    return (
        f"# As resolved on {facts.created}, with {listed}.\n"
        f"# The space has hash {facts.space_hash}; its text is in space.yaml.\n{experiment.to_yaml()}"
    )
