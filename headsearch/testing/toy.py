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
    MemberScores,
    RungScores,
    ScreenedHead,
    ScreenResult,
    TrialContext,
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

    def __call__(self, config: HeadConfig, context: TrialContext) -> TrialResult | ScreenResult:
        """Train in words only: one epoch after the other, from the checkpoint where there is one."""
        if context.stage == "screen":
            return self._screen(config, context)
        began = time.perf_counter()
        checkpoint = context.workdir / "checkpoint.json"
        epoch, seconds, rungs = 0, 0.0, list[RungScores]()
        if checkpoint.exists():
            saved: dict[str, Any] = json.loads(checkpoint.read_text(encoding="utf-8"))
            epoch, seconds = saved["epoch"], saved["seconds"]
            rungs = [RungScores(**scores) for scores in saved["rungs"]]
        budget = self.rungs[-1]
        while epoch < budget:
            epoch += 1
            if self.seconds_per_epoch:
                time.sleep(self.seconds_per_epoch)
            self._fail(config)
            context.progress(epoch, budget, 1.0 / epoch, 1000.0)
            if self.checkpoints:
                with (context.workdir / "epochs.txt").open("a", encoding="utf-8") as trained:
                    trained.write(f"{epoch}\n")
            scores = self.scores(config, epoch, context.seed) if epoch in self.rungs else None
            if scores is not None:
                rungs.append(scores)
                context.report(scores)
            if self.checkpoints:
                spent = seconds + time.perf_counter() - began
                saved = {"epoch": epoch, "seconds": spent, "rungs": [scores.to_dict() for scores in rungs]}
                # Renamed, so that a killed process leaves a whole one; not synced, which would cost more than all else here.
                written = checkpoint.with_suffix(".new")
                written.write_text(json.dumps(saved), encoding="utf-8")
                written.replace(checkpoint)
        # The checkpoint stays: should the search be killed before it has written the result down, nothing is trained again.
        return TrialResult(
            rungs=tuple(rungs),
            cost=toy_cost(config),
            seconds=seconds + time.perf_counter() - began,
            images_per_second=1000.0,
        )

    def scores(self, config: HeadConfig, epoch: int, seed: int) -> RungScores:
        """The scores at an epoch, in closed form."""
        probe, discrepancy = limits(config)
        grown = 1.0 - math.exp(-3.0 * epoch / self.rungs[-1])
        shift = 2.0 * _unit("noise", seed, epoch) - 1.0
        knn = 30.0 + (probe - 30.0) * grown + self.noise * shift
        final = epoch == self.rungs[-1]
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

    def _screen(self, config: HeadConfig, context: TrialContext) -> ScreenResult:
        """A joint run: at its first rung the half with the smaller discrepancy is dropped; what would fail alone is infeasible."""
        began = time.perf_counter()
        first, last = self.rungs[0], self.rungs[-1]
        scored: dict[int, list[RungScores]] = {}
        for epoch in range(1, last + 1):
            time.sleep(self.seconds_per_epoch)
            context.progress(epoch, last, 1.0 / epoch, 1000.0)
            by_first = sorted(scored, key=lambda index: scored[index][0].discrepancy or 0.0)
            weak = by_first[: len(by_first) // 2]
            for index, head in enumerate(config.heads):
                fails = head.stages[0].family in self.failures
                if epoch in self.rungs and not fails and not (epoch > first and index in weak):
                    rung = replace(self.scores(head, epoch, context.seed), knn=None, linear=None)
                    scored.setdefault(index, []).append(rung)
                    context.report(MemberScores(**vars(rung), member=index))
        heads = []
        for index, head in enumerate(config.heads):
            rungs = tuple(scored.get(index, ()))
            state: Literal["complete", "stopped", "infeasible"] = (
                "complete" if len(rungs) == len(self.rungs) else "stopped"
            )
            state = state if rungs else "infeasible"
            reason = None if state == "complete" else f"toy: {state}"
            heads.append(ScreenedHead(state, rungs, toy_cost(head), reason))
        return ScreenResult(tuple(heads), time.perf_counter() - began, 1000.0)

    def _fail(self, config: HeadConfig) -> None:
        match self.failures.get(config.heads[0].stages[0].family if config.heads else "none"):
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
