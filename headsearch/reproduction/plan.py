"""What a reproduction runs: two searches over the same heads, one of them by proxies, the other a screen that reads no labels. No torch here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headsearch.document import plain, read_mapping
from headsearch.errors import DataError, ExperimentError, RunError, SpaceError
from headsearch.experiment import (
    Experiment,
    SearchSpec,
    load_experiment,
    parse_experiment,
    shorthand,
    unless_named,
)
from headsearch.experiment.schema_errors import checked
from headsearch.experiment.sections import is_count
from headsearch.runs.directory import changed_keys, refuse_changes
from headsearch.search.seeds import search_seed
from headsearch.space import Space, load_space

VERSION = "headsearch/reproduction@1"
PLAN_FILE = "reproduce.yaml"
HEADS, SCREEN = "heads", "screen"
"""Names of the two run directories."""

MOST_HEADS = 100
"""Every head of the space gets proxies: a larger one is a mistake."""

_SEARCH = {
    "space": "claims",
    "strategy": "proxies",
    "sampler": "grid",
    "controls": ["none", "same", "mlp"],
    "stopping": {"kind": "none"},
}
_FREE = {"space", "target_epochs", "discrepancy", "executor", "storage", "storage_patience", "callbacks"}
_DECIDED = {"data.labels", "search", "search.screen.heads"} | {
    f"search.{key}" for key in SearchSpec.model_fields if key not in _FREE
}
"""Keys that users may not set: all of `search` that decides which heads are trained and how often."""


@dataclass(frozen=True)
class Plan:
    """A reproduction before its first training."""

    experiment: Experiment
    """Base, images, method, schedule and space; how many heads there are is known with the base."""
    space: Space
    seeds: int
    """Of every head and control."""

    def heads(self, number: int) -> Experiment:
        """The search by proxies: all `number` heads and the controls run their full budget with every seed."""
        seeds = {"replicates": self.seeds, "replicates_of_none": self.seeds}
        sizes = {"trials": number, "finalists": number, "certainty": 1, **seeds}
        return self._search(HEADS, "proxies", sizes)

    def screen(self, number: int) -> Experiment:
        """The screen of the same heads: one joint training, with a seed of its own, of images without labels."""
        content = self._search(SCREEN, "screen", {"replicates": 1}).model_dump(mode="json")
        content["search"]["screen"]["heads"] = number
        content["data"]["labels"] = "none"
        content["seed"] = search_seed("reproduction", SCREEN, self.experiment.seed)
        return parse_experiment(content)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML."""
        plan = {"reproduce": VERSION, "seeds": self.seeds, "space_hash": self.space.hash}
        return plan | {"experiment": self.experiment.model_dump(mode="json")}

    def described(self) -> dict[str, Any]:
        """What a reader of the report has to know."""
        content = self.experiment.model_dump(mode="json")
        kept = {key: content[key] for key in ("base", "data", "method", "proxy", "seed")}
        return {**kept, "space": self.space.name, "space_hash": self.space.hash, "seeds": self.seeds}

    def check_resume(self, out: Path) -> None:
        """Check that this plan goes on with the reproduction in `out`; more seeds may be asked for.

        Raises:
            RunError: there is none, or it differs, naming the key.
        """
        file = out / PLAN_FILE
        if not file.exists():
            raise RunError(f"{out}: nothing to resume, there is no {file.name}")
        former = plain(read_mapping(file, RunError, "as headsearch reproduce writes them"))
        seeds, space_hash = former.get("seeds"), former.get("space_hash")
        if not is_count(seeds) or not isinstance(former.get("experiment"), dict):
            raise RunError(f"{file}: cannot be read: expected 'experiment' and a number of 'seeds'")
        before = checked(Experiment, former["experiment"], str(file), RunError)
        changes = changed_keys(before, self.experiment)
        if self.space.hash != space_hash:
            changes.append(("search.space", space_hash, self.space.hash))
        if self.seeds < seeds:
            changes.append(("number of seeds, a smaller one", seeds, self.seeds))
        refuse_changes(out, changes)

    def _search(self, name: str, strategy: str, sizes: dict[str, int]) -> Experiment:
        content = self.experiment.model_dump(mode="json")
        content["search"] |= {"strategy": strategy, **sizes}
        content["name"] += f"-{name}"
        return parse_experiment(content)


def make_plan(
    *,
    base: str | None = None,
    data: str | None = None,
    seeds: int = 3,
    epochs: int | None = None,
    overrides: Sequence[str] = (),
) -> Plan:
    """The reproduction of the paper's claims on a base and images.

    Args:
        base: timm's name; None: what the experiment has.
        data: a data set's name, an `.npz` file or a folder with a folder per class; None or `digits`: the experiment `digits`.
        seeds: of every head and control.
        epochs: of a proxy, and of the screen; None: what the experiment has.
        overrides: `key=value` of the experiment.

    Raises:
        UserError: an override cannot be used or is not the user's to decide, labels are not to be read, or the space is no short list of heads.
    """
    if any(override.replace(" ", "") == "data.labels=none" for override in overrides):
        raise DataError(
            "data.labels: the claims are about a probe, which needs labels; expected probe, got none"
        )
    _refuse_decided(overrides)
    given = [f"search={json.dumps(_SEARCH)}", "name=paper"]
    given += shorthand(base, data)
    if epochs is not None:
        given.append(f"proxy.epochs={epochs}")
    experiment = load_experiment(unless_named(data), [*given, *overrides])
    space = load_space(experiment.search.space)
    space.expect_single_heads("a screen")
    number = space.count()
    if number is None or number > MOST_HEADS:
        raise SpaceError(
            f"{space.where}: {'an endless number of' if number is None else number} heads, each of which would be trained with "
            f"every seed; expected at most {MOST_HEADS}"
        )
    return Plan(experiment, space, seeds)


def _refuse_decided(overrides: Sequence[str]) -> None:
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in _DECIDED or key.startswith("search.stopping."):
            raise ExperimentError(
                f"--set {override}: decided by what is reproduced; expected another key, e.g. proxy.batch_size, search.space or search.executor"
            )
