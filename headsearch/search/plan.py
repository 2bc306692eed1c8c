"""What a search will do and about how long it will take, before anything is trained."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from headsearch.experiment import Experiment, ProcessSpec, RaySpec
from headsearch.experiment.budget import SCREEN_COST, STOPPED_SHARE
from headsearch.search.materials import Materials
from headsearch.search.selection import joint_runs

_COPIES_IN_A_CHECKPOINT = 4
"""Of every weight of the base: student, teacher, and two moments of AdamW."""


@dataclass(frozen=True)
class PlannedStage:
    """The trainings of one stage."""

    name: str
    """`trunk`, `controls`, `screen`, `heads`, `replicates`, `equal-time` or `anchors`."""
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
    controls = len(search.controls)
    share = STOPPED_SHARE if search.stopping.kind == "asha" else 1.0
    stages = []
    if trunk := experiment.proxy.trunk_epochs:
        cost = search.replicates * seconds * trunk / epochs
        stages.append(PlannedStage("trunk", search.replicates, trunk, cost))
    if search.strategy != "screen":
        stages.append(PlannedStage("controls", controls, epochs, controls * seconds))
    if search.strategy != "proxies":
        screen_epochs, _ = search.screen.schedule(epochs)
        heads = materials.distinct(search.screen.heads, seed=experiment.seed)
        joint = len(joint_runs(heads, list(materials.anchors.values()), batch=search.screen.batch))
        if search.strategy == "screen":
            joint *= search.replicates
        cost = joint * SCREEN_COST * seconds * screen_epochs / epochs
        stages.append(PlannedStage("screen", joint, screen_epochs, cost))
    if search.strategy != "screen":
        stages.append(PlannedStage("heads", search.trials, epochs, search.trials * share * seconds))
        again = search.most_further_seeds
        stages.append(PlannedStage("replicates", again, epochs, again * seconds))
    if search.equal_time:
        stages.append(PlannedStage("equal-time", search.replicates, epochs, search.replicates * seconds))
    long = search.target_epochs
    stages.append(
        PlannedStage(
            "anchors", search.anchor_trainings, long, search.anchor_trainings * seconds * long / epochs
        )
    )
    executor = search.executor
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    return SearchPlan(
        stages=tuple(stage for stage in stages if stage.trainings),
        images=materials.train_images,
        seconds_per_proxy=seconds,
        at_once=(executor.workers or 1) if isinstance(executor, ProcessSpec | RaySpec) else 1,
        screen_bytes=materials.screen_bytes,
        checkpoint_bytes=4.0 * _COPIES_IN_A_CHECKPOINT * materials.base.params,
        free_bytes=shutil.disk_usage(existing).free,
    )
