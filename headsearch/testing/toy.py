"""A deterministic objective with closed-form learning curves, so that searches are tested in milliseconds and without torch.

A head's final probe and discrepancy are sums over its stages and parameters, so that a sampler can learn which values are good; the
curves rise exponentially towards them; noise depends on the seed alone. Checkpoints are real files, so that a killed trial resumes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from headsearch.errors import InfeasibleHead
from headsearch.heads.config import HeadConfig, Stage
from headsearch.heads.cost import HeadCost
from headsearch.training.trial import (
    BEGINNING,
    TRUNK,
    RungScores,
    Training,
    TrainingContext,
    TrainingResult,
    TrialResult,
)

Failure = Literal["collapse", "error", "memory", "disk", "die"]


@dataclass(frozen=True)
class ToyEvaluator:
    """Scores a head by a formula. Implements `Evaluate`; picklable."""

    rungs: tuple[int, ...] = (1, 3, 9)
    """Epochs at which scores are reported; the last is the budget."""
    labels: bool = True
    """Whether there is a probe."""
    noise: float = 1.0
    """Half the width of the uniform noise on the probe, in points; a hundredth of it is on the discrepancy."""
    seconds_per_epoch: float = 0.0
    """Slept, for tests that interrupt."""
    checkpoints: bool = True
    """Whether an epoch ends with a checkpoint in the trial's folder."""
    failures: Mapping[str, Failure] = field(default_factory=dict)
    """How trials end whose first stage is of this family; `none` is the empty head. `die` takes the whole process along."""

    def __call__(self, training: Training, context: TrainingContext) -> TrainingResult:
        """Train in words only: one epoch after the other, from the checkpoint where there is one."""
        began = time.perf_counter()
        checkpoint = training.workdir / "checkpoint.json"
        due = self.rungs if training.epochs is None else (training.epochs,)
        first, budget, screen = due[0], due[-1], training.stage == "screen"
        heads = [candidate.config for candidate in training.candidates]
        beginning = training.workdir / BEGINNING
        # What a trunk leaves is its seed, which shifts the noise of what branches from it.
        seed = training.seed ^ (int(beginning.read_text(encoding="utf-8")) if beginning.exists() else 0)
        epoch, seconds = 0, 0.0
        rungs: list[list[RungScores]] = [[] for _ in heads]
        # What would fail alone is infeasible in a screen.
        left = {place for place, head in enumerate(heads) if screen and _kind(head) in self.failures}
        if checkpoint.exists():
            saved: dict[str, Any] = json.loads(checkpoint.read_text(encoding="utf-8"))
            epoch, seconds, left = saved["epoch"], saved["seconds"], set(saved["left"])
            rungs = [[RungScores(**scores) for scores in of_head] for of_head in saved["rungs"]]
        while epoch < budget:
            epoch += 1
            if self.seconds_per_epoch:
                time.sleep(self.seconds_per_epoch)
            if not screen:
                self._fail(heads[0])
            context.progress(epoch, budget, 1.0 / epoch, 1000.0)
            if self.checkpoints:
                with (training.workdir / "epochs.txt").open("a", encoding="utf-8") as trained:
                    trained.write(f"{epoch}\n")
            for place, head in enumerate(heads):
                if epoch in due and place not in left:
                    scores = self.scores(head, epoch, seed, final=epoch == budget)
                    rungs[place].append(replace(scores, knn=None, linear=None) if screen else scores)
                    context.report(place, rungs[place][-1])
            if screen and epoch == first:
                # The half with the smaller discrepancy goes.
                staying = [place for place in range(len(heads)) if place not in left]
                staying.sort(key=lambda place: rungs[place][0].discrepancy or 0.0)
                left |= set(staying[: len(staying) // 2])
            if self.checkpoints:
                plain = [[scores.to_dict() for scores in of_head] for of_head in rungs]
                spent = seconds + time.perf_counter() - began
                saved = {"epoch": epoch, "seconds": spent, "left": sorted(left), "rungs": plain}
                # Renamed, so that a killed process leaves a whole one; not synced, which would cost more than all else here.
                written = checkpoint.with_suffix(".new")
                written.write_text(json.dumps(saved), encoding="utf-8")
                written.replace(checkpoint)
        if training.stage == "trunk":
            (training.workdir / TRUNK).write_text(str(training.seed), encoding="utf-8")
        # The checkpoint stays: should the search be killed before it has written the result down, nothing is trained again.
        results = [_result(head, tuple(of_head), budget) for head, of_head in zip(heads, rungs, strict=True)]
        return TrainingResult(tuple(results), seconds + time.perf_counter() - began, 1000.0)

    def scores(self, config: HeadConfig, epoch: int, seed: int, *, final: bool = False) -> RungScores:
        """The scores at an epoch, in closed form."""
        probe, discrepancy = limits(config)
        grown = 1.0 - math.exp(-3.0 * epoch / self.rungs[-1])
        shift = 2.0 * _unit("noise", seed, epoch) - 1.0
        knn = 30.0 + (probe - 30.0) * grown + self.noise * shift
        measured = min(1.0, discrepancy * (0.5 + 0.5 * grown) + 0.01 * self.noise * shift)
        return RungScores(
            epoch=epoch,
            loss=1.0 / epoch,
            measures=dict.fromkeys(
                ("cka.embedding.output", "cka.tokens.output", "cka.tokens.change"), measured
            )
            if config.heads
            else {},
            discrepancy=measured if config.heads else None,
            knn=knn if self.labels else None,
            linear=knn + 1.0 if self.labels and final else None,
            rankme_base=20.0,
            rankme_head=15.0 if config.heads else None,
            std_base=0.9,
            std_head=0.8 if config.heads else None,
            quality={"retrieval.head": knn} if config.heads else {},
        )

    def _fail(self, config: HeadConfig) -> None:
        match self.failures.get(_kind(config)):
            case "collapse":
                raise InfeasibleHead("head embeddings collapsed (standard deviation 0.001)")
            case "error":
                raise RuntimeError("toy failure")
            case "memory":
                raise MemoryError("toy out of memory")
            case "disk":
                raise OSError(28, "No space left on device", "checkpoint.json")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case None:
                return


def _kind(config: HeadConfig) -> str:
    """What `failures` calls a head."""
    return config.heads[0].stages[0].family if config.heads else "none"


def _result(head: HeadConfig, rungs: tuple[RungScores, ...], budget: int) -> TrialResult:
    if rungs and rungs[-1].epoch == budget:
        return TrialResult("complete", rungs, toy_cost(head))
    if rungs:
        return TrialResult("stopped", rungs, toy_cost(head), "toy: stopped")
    return TrialResult("infeasible", rungs, toy_cost(head), "toy: infeasible")


def limits(config: HeadConfig) -> tuple[float, float]:
    """The probe (percent) and the discrepancy that a head tends to; 50 and 0 for the empty head."""
    stages = [stage for head in config.heads for stage in head]
    if not stages:
        return 50.0, 0.0
    quality = sum(_merit("probe", stage) for stage in stages) / len(stages)
    difference = sum(_merit("discrepancy", stage) for stage in stages) / len(stages)
    return 45.0 + 50.0 * quality, 0.1 + 0.8 * difference


def toy_cost(config: HeadConfig) -> HeadCost:
    """A cost in closed form: a thousand parameters and ten times the operations per block."""
    return HeadCost(params=1000 * config.depth, flops=10_000 * config.depth, overhead=0.05 * config.depth)


def _merit(objective: str, stage: Stage) -> float:
    """Between 0 and 1: half from the family, half from the mean over its parameters' values."""
    values = [_unit(objective, stage.family, name, value) for name, value in sorted(stage.params.items())]
    return 0.5 * _unit(objective, stage.family) + 0.5 * sum(values) / max(1, len(values))


def _unit(*parts: object) -> float:
    """A number in [0, 1), fixed by `parts`."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
