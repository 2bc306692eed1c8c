"""What a search will do and about how long it will take, before anything is trained."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from headsearch.experiment import Experiment, WorkersSpec
from headsearch.experiment.budget import SCREEN_COST, STOPPED_SHARE
from headsearch.search.materials import Materials
from headsearch.search.observer import StageName
from headsearch.search.selection import joint_runs

_COPIES_IN_A_CHECKPOINT = 4
"""Of every weight of the base: student, teacher, and two moments of AdamW."""


@dataclass(frozen=True)
class PlannedStage:
    """The trainings of one stage."""

    name: StageName
    trainings: int
    epochs: int
    """Of each training, unless it is stopped early; `equal-time` has more, in the time that is told."""
    seconds: float
    """All of them, one after the other, on this machine."""


@dataclass(frozen=True)
class SearchPlan:
    """All of a search."""

    stages: tuple[PlannedStage, ...]
    images: int
    """Training images of an epoch."""
    seconds_per_proxy: float
    """Measured: of the control `same`, from a few of its steps."""
    at_once: int
    """Trainings that run at the same time."""
    screen_bytes: float
    """Memory that a joint training needs, estimated; 0 where there is none."""
    checkpoint_bytes: float
    """On disk, of each training at work."""
    free_bytes: int
    """Of the disk that the run will be written to."""

    @property
    def seconds(self) -> float:
        """Until the search ends, if every worker is always busy. A GPU or a core that several share makes it longer."""
        return sum(stage.seconds for stage in self.stages) / self.at_once


def plan_search(experiment: Experiment, materials: Materials, out: Path) -> SearchPlan:
    """Plan the search of an experiment whose sizes are known. Trains a few steps to measure them."""
    search, epochs = experiment.search, experiment.proxy.epochs
    assert materials.seconds_per_proxy is not None
    seconds = materials.seconds_per_proxy()
    stages: list[PlannedStage] = []

    def add(name: StageName, trainings: int, *, length: int = epochs, share: float = 1.0) -> None:
        cost = trainings * share * seconds * length / epochs
        stages.append(PlannedStage(name, trainings, length, cost))

    if trunk := experiment.proxy.trunk_epochs:
        add("trunk", search.replicates, length=trunk)
    if search.strategy != "screen":
        add("controls", len(search.controls))
    if search.strategy != "proxies":
        length, _ = search.screen.schedule(epochs)
        heads = materials.distinct(search.screen.heads, seed=experiment.seed)
        joint = len(joint_runs(heads, list(materials.anchors.values()), batch=search.screen.batch))
        seeds = search.replicates if search.strategy == "screen" else 1
        add("screen", joint * seeds, length=length, share=SCREEN_COST)
    if search.strategy != "screen":
        add("heads", search.trials, share=STOPPED_SHARE if search.stopping.kind == "asha" else 1.0)
        add("replicates", search.most_further_seeds)
    if search.equal_time:
        add("equal-time", search.replicates)
    add("anchors", search.anchor_trainings, length=search.target_epochs)
    executor = search.executor
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    return SearchPlan(
        stages=tuple(stage for stage in stages if stage.trainings),
        images=materials.train_images,
        seconds_per_proxy=seconds,
        at_once=(executor.workers or 1) if isinstance(executor, WorkersSpec) else 1,
        screen_bytes=materials.screen_bytes,
        checkpoint_bytes=4.0 * _COPIES_IN_A_CHECKPOINT * materials.base.params,
        free_bytes=shutil.disk_usage(existing).free,
    )
