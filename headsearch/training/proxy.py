"""The `Evaluate` of a search: trains a base with one head on a short schedule and scores both.

Comes in: an experiment, then heads with their contexts. Goes out: a `TrialResult` each. What trials share (images, base
weights) is read once, when first needed; an evaluator that is sent to another process leaves it behind and reads it there.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headsearch.base import Base
from headsearch.data.augment import Views
from headsearch.data.sets import Dataset
from headsearch.experiment import Experiment
from headsearch.heads.canonical import canonical, head_id
from headsearch.heads.config import HeadConfig
from headsearch.methods import check_method
from headsearch.scoring.cost import head_cost
from headsearch.training.devices import resolve_device
from headsearch.training.materials import build_pair, check_local_crops, new_base, read_images
from headsearch.training.overhead import step_overhead
from headsearch.training.run import CHECKPOINT_SECONDS, ProxyRun
from headsearch.training.rungs import Scorer
from headsearch.training.seeds import derived_generator
from headsearch.training.trainer import Trainer
from headsearch.trial import HeadCost, TrialContext, TrialResult


@dataclass(frozen=True)
class _Shared:
    """What all trials of an experiment have in common."""

    device: torch.device
    dataset: Dataset
    views: Views
    scorer: Scorer
    base: Base | None
    """The base with its weights, to be copied; None where every trial draws its own."""


class ProxyEvaluator:
    """Scores heads by proxies. Picklable."""

    def __init__(self, experiment: Experiment, *, checkpoint_seconds: float = CHECKPOINT_SECONDS) -> None:
        """Read nothing yet; see `prepare`. A checkpoint is written at every rung, and when `checkpoint_seconds` have passed."""
        self.experiment = experiment
        self.checkpoint_seconds = checkpoint_seconds
        self._shared: _Shared | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_shared": None}

    def prepare(self) -> None:
        """Read images and base now, so that what is wrong with them is said before the first trial.

        Raises:
            UserError: device, method, augmentation, data or base cannot be used.
        """
        if self._shared is None:
            with torch.random.fork_rng(devices=[]):
                self._shared = self._load()

    def __call__(self, config: HeadConfig, context: TrialContext) -> TrialResult:
        """Train `config`'s head with the base and score it; resumes where the context's work directory holds a checkpoint.

        Everything random follows from `context.seed`: on a CPU the same seed gives the same scores. Base, projectors of the base,
        batches and views are the same for all heads with the same seed. The global random state is left as it was. The checkpoint stays,
        for whoever has written down how the trial ended to remove: until then a crash would have it trained again.

        Raises:
            InfeasibleHead: it collapsed or became non-finite.
            TrialStopped: the context's search wants no more of it.
            UserError: what `prepare` raises; a head that the base cannot carry; a work directory that cannot be written.
        """
        self.prepare()
        assert self._shared is not None
        device = self._shared.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            run = self.start(config, context)
            rungs = run.run()
            cost = self._cost(config, run.trainer, context.seed, self._shared)
        return TrialResult(rungs, cost, run.seconds, run.images_per_second)

    def start(self, config: HeadConfig, context: TrialContext) -> ProxyRun:
        """The run of a trial, resumed from its checkpoint where there is one, but not gone on with. Seeds the global generator.

        Raises `UserError` as calling the evaluator does.
        """
        self.prepare()
        assert self._shared is not None
        shared = self._shared
        trainer = self._trainer(config, context.seed, shared)
        context.workdir.mkdir(parents=True, exist_ok=True)
        return ProxyRun(
            trainer,
            shared.scorer,
            shared.dataset.train,
            shared.views,
            context,
            rungs=self.experiment.proxy.rungs,
            identity=self._identity(config, trainer.hssl.student.base, context.seed),
            checkpoint_seconds=self.checkpoint_seconds,
        )

    def _load(self) -> _Shared:
        experiment = self.experiment
        data, proxy = experiment.data, experiment.proxy
        device = resolve_device(proxy.device)
        check_method(experiment.method.name, experiment.method.kwargs)
        base = self._new_base()
        dataset, views = read_images(data, base, batch_size=proxy.batch_size, seed=experiment.seed)
        scorer = Scorer(
            dataset,
            views,
            discrepancy=experiment.search.discrepancy,
            labels=data.labels == "probe",
            seed=experiment.seed,
        )
        return _Shared(device, dataset, views, scorer, base if experiment.base.weights is not None else None)

    def _new_base(self) -> Base:
        return new_base(self.experiment.base, self.experiment.data.image_size)

    def _trainer(self, config: HeadConfig, seed: int, shared: _Shared) -> Trainer:
        """A pair at its start, every part drawn from a stream of its own."""
        given = shared.base
        make_base = self._new_base if given is None else lambda: copy.deepcopy(given)
        hssl = build_pair(make_base, config, self.experiment.method, seed)
        check_local_crops(shared.views, list(hssl.student.heads))
        proxy = self.experiment.proxy
        return Trainer(
            hssl, proxy, steps_per_epoch=len(shared.dataset.train) // proxy.batch_size, device=shared.device
        )

    def _cost(self, config: HeadConfig, trainer: Trainer, seed: int, shared: _Shared) -> HeadCost:
        """Size, and the time a step takes beyond one without a head; the trained pair is spoilt by measuring it."""
        cost = head_cost(config, trainer.hssl.student.base.info)
        if not config.heads:
            return replace(cost, overhead=0.0)
        without_head = self._trainer(HeadConfig(), seed, shared)
        return replace(cost, overhead=step_overhead(trainer, without_head, self._some_views(seed, shared)))

    def _some_views(self, seed: int, shared: _Shared) -> Sequence[Tensor]:
        images, _ = next(iter(shared.dataset.train.batches(self.experiment.proxy.batch_size, drop_last=True)))
        return shared.views(images, derived_generator(seed, "overhead"), shared.device)

    def _identity(self, config: HeadConfig, base: Base, seed: int) -> str:
        """Whatever decides the course of a trial, as a hash."""
        sections = self.experiment.model_dump(
            mode="json", include={"base", "data", "method", "proxy", "seed"}
        )
        described = {"head": head_id(canonical(config, base.info)), "seed": seed, "experiment": sections}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
