"""The first stage of a funnel: heads of a space, thousands in minutes, scored at random initialisation and ordered.

Comes in: an experiment's base and images, and a space. Goes out: `ZeroCostScores`, one a head. The base is run once per seed; heads are built
and run on the feature maps it left. Nothing is trained and no label is read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from headsearch.base.info import BaseInfo
from headsearch.base.model import Base
from headsearch.data.sets import ImageSet
from headsearch.errors import BaseModelError, DataError, HeadError, InfeasibleHead
from headsearch.experiment import Experiment
from headsearch.experiment.search import CandidateSampler
from headsearch.experiment.sections import TOUCHES_NO_SCORE
from headsearch.heads import Candidate
from headsearch.heads.build import build_head, untrained_blocks
from headsearch.heads.cost import HeadCost
from headsearch.scoring.baselines import baseline_scores
from headsearch.scoring.cost import head_cost
from headsearch.scoring.score import score_factors
from headsearch.scoring.zero_cost import (
    BaseOutputs,
    UntrainedHeads,
    measure_head,
    run_base,
    side_by_side,
    untrained,
)
from headsearch.scoring.zero_cost_scores import (
    CKA_MEASURES,
    ZeroCostScores,
    ordered,
    read_scores,
    write_scores,
)
from headsearch.search.proposer import POPULATION, Proposer
from headsearch.space import Space
from headsearch.space.drawing import ENUMERABLE, distinct_heads
from headsearch.training.devices import generators_kept, resolve_device
from headsearch.training.materials import Inputs
from headsearch.training.seeds import derived_generator, derived_seed

_FEWEST_IMAGES = 4
"""Debiased CKA is undefined for less."""
GENERATIONS = 5
"""Of NSGA-II, where there are enough candidates; the first is drawn at random."""
_SAVED_EVERY = 5.0
"""Seconds of work that a kill may cost."""


@dataclass(frozen=True)
class _Shared:
    """What all heads have in common."""

    base: BaseInfo
    outputs: tuple[BaseOutputs, ...]
    """Of the base of every seed."""
    heads: UntrainedHeads
    """Run on them."""
    data: tuple[str, ...]
    """What was understood of the images and what of them is left out, a line each."""


class ZeroCostScorer:
    """Scores heads on the base and images of one experiment. Picklable; what it has read stays behind and is read again."""

    def __init__(
        self,
        experiment: Experiment,
        *,
        seeds: int = 3,
        images: int = 256,
        tokens: int = 2048,
        baselines: bool = False,
        inputs: Inputs | None = None,
    ) -> None:
        """Read nothing yet; see `prepare`.

        Args:
            experiment: Its sections `base` and `data`, its seed and its device count; no label is read.
            seeds: Initialisations of head (and of base, where it has no weights) to average over.
            images: Most held-out images to look at.
            tokens: Most positions of their feature maps to compare.
            baselines: Compute synflow and NASWOT as well.
            inputs: The experiment's base and images, where they have been read.
        """
        self.experiment = experiment
        self.seeds = seeds
        self.images = images
        self.tokens = tokens
        self.baselines = baselines
        # No label is read, whatever the experiment allows; labels do not change which images are held out.
        unlabelled = experiment.data.model_copy(update={"labels": "none"})
        self._inputs = inputs or Inputs(experiment.base, unlabelled, batch_size=1, seed=experiment.seed)
        self._shared: _Shared | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_shared": None}

    @property
    def identity(self) -> str:
        """Whatever decides a head's scores, beside the head, as a hash. Not `baselines`, which only adds to them."""
        sections = self.experiment.model_dump(mode="json", include={"base", "data", "seed"})
        for key in TOUCHES_NO_SCORE:
            sections["data"].pop(key, None)
        described = {**sections, "seeds": self.seeds, "images": self.images, "tokens": self.tokens}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def base(self) -> BaseInfo:
        """Facts about the base; loads it where it has not been."""
        return self._prepared().base

    @property
    def data(self) -> tuple[str, ...]:
        """What was understood of the images and what of them is left out, a line each; reads them where they have not been."""
        return self._prepared().data

    def prepare(self) -> None:
        """Read the images and run the base on them now, so that their faults come before the first head.

        Raises:
            UserError: device, augmentation, data or base cannot be used.
        """
        self._prepared()

    def score(
        self, candidate: Candidate, *, seeds: int | None = None, first: ZeroCostScores | None = None
    ) -> ZeroCostScores:
        """Score one head. The same on every call and in any order; the global random state is left as it was.

        A head that the base cannot carry, that is not finite, or that is collapsed at any seed has a reason and no scores.

        Args:
            candidate: The head.
            seeds: How many of the scorer's seeds, from the first; None: all.
            first: What it scored with the first seed alone, which is then not run again.

        Raises:
            UserError: what `prepare` raises.
        """
        shared, config, seeds = self._prepared(), candidate.config, seeds or self.seeds
        try:
            cost = head_cost(config, shared.base)
        except HeadError as error:
            return ZeroCostScores(candidate.head_id, config, seeds, reason=str(error))
        measured = [] if first is None else [first.measured]
        device = shared.outputs[0].maps[0].device
        with generators_kept(device), side_by_side(device) as threads:
            for number in range(len(measured), seeds):
                outputs = shared.outputs[number]
                try:
                    values = measure_head(shared.heads.run(config, number, threads), outputs)
                except InfeasibleHead as error:
                    return ZeroCostScores(candidate.head_id, config, seeds, cost, reason=str(error))
                if self.baselines:
                    torch.manual_seed(self._head_seed(number))
                    head = untrained(build_head(config, shared.base), device)
                    values |= baseline_scores(head, outputs.maps[0])
                measured.append(values)
        return _summary(candidate, cost, measured)

    def _prepared(self) -> _Shared:
        if self._shared is None:
            device = resolve_device(self.experiment.proxy.device)
            with generators_kept(device):
                self._shared = self._load(device)
        return self._shared

    def _load(self, device: torch.device) -> _Shared:
        dataset, views = self._inputs.images
        images = self._some(dataset.held_out)
        outputs: list[BaseOutputs] = []
        for number in range(self.seeds):
            if number > 0 and self.experiment.base.weights is not None:
                # The same weights give the same.
                outputs.append(outputs[0])
                continue
            seed = self.experiment.seed
            drawn = partial(views, generator=derived_generator(seed, "quality views"), device=device)
            base, prepare = self._base(number).to(device), views.prepare
            left = run_base(base, images, prepare=prepare, views=drawn, max_tokens=self.tokens, seed=seed)
            if left.reason is not None:
                model = self._inputs.info.model
                raise BaseModelError(f"{model}: heads cannot be compared with it: {left.reason}")
            outputs.append(left)
        info = self._inputs.info
        seeded = [(left, self._head_seed(number)) for number, left in enumerate(outputs)]
        return _Shared(info, tuple(outputs), UntrainedHeads(info, seeded), tuple(dataset.told()))

    def _base(self, number: int) -> Base:
        torch.manual_seed(derived_seed(self._seed(number), "base"))
        return self._inputs.base()

    def _head_seed(self, number: int) -> int:
        return derived_seed(self._seed(number), "head")

    def _seed(self, number: int) -> int:
        return derived_seed(self.experiment.seed, "zero cost", number)

    def _some(self, held_out: ImageSet) -> Tensor:
        """The first images of a fixed order."""
        order = derived_generator(self.experiment.seed, "scored part")
        parts: list[Tensor] = []
        for images, _ in held_out.batches(min(self.images, 256), generator=order):
            parts.append(images)
            if sum(map(len, parts)) >= self.images:
                break
        chosen = torch.cat(parts)[: self.images]
        if len(chosen) < _FEWEST_IMAGES:
            raise DataError(
                f"data: {len(chosen)} held-out images are too few to score heads on; expected at least {_FEWEST_IMAGES}"
            )
        return chosen


def score_space(
    space: Space,
    scorer: ZeroCostScorer,
    *,
    number: int,
    seed: int = 0,
    sampler: CandidateSampler = "random",
    places: int | None = None,
    path: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ZeroCostScores]:
    """Score up to `number` distinct heads of a space, all of one that has no more, in the order drawn; `ordered` sorts them.

    Args:
        space: Its constraints are applied.
        scorer: Of the base that the heads are for.
        number: How many.
        seed: Of the draw.
        sampler: What proposes heads of a space with more than `ENUMERABLE` descriptions: NSGA-II learns from the scores. Of a smaller one
            they are drawn at random.
        places: How many of the heads are wanted in the end. Of a family with more heads than that, the worse half by the first seed gets no
            other, but never so many that fewer than `places` get all. None, and whatever NSGA-II proposes: all seeds for every head.
        path: A file to keep the scores in (`zero_cost_scores.FILE_NAME` in a run directory). Heads that it holds already are not scored
            again, unless they lack the baselines that are asked for; it is written every few seconds and at the end, whatever that is, whole, and keeps heads that this draw does not have.
        progress: Called with (heads done, heads in all) after every head. One that gets further seeds counts twice.

    Raises:
        UserError: what `ZeroCostScorer.prepare` raises; no head is allowed; the file cannot be read or written, or is of another experiment.
    """
    known = {row.head_id: row for row in _kept(path, scorer.identity)}
    saved = time.monotonic()

    def score(candidate: Candidate, seeds: int = scorer.seeds) -> ZeroCostScores:
        nonlocal saved
        name = candidate.head_id
        row = known.get(name)
        if row is not None and scorer.baselines and row.without_baselines:
            row = None
        if row is None or (row.reason is None and row.seeds < seeds):
            known[name] = scorer.score(candidate, seeds=seeds, first=row)
            if path is not None and time.monotonic() - saved > _SAVED_EVERY:
                write_scores(path, list(known.values()), scorer.identity)
                saved = time.monotonic()
        return known[name]

    count = space.count()
    try:
        if sampler == "nsga2" and (count is None or count > max(number, ENUMERABLE)):
            return _evolved(space, scorer.base, number, seed, score, progress)
        heads = distinct_heads(space, number, seed=seed, base=scorer.base, cost_function=head_cost)
        in_order = sorted(heads, key=_beginning)
        sizes = Counter(candidate.config.family for candidate in heads)
        kept = {
            family: max(-(-size // 2), places)
            for family, size in sizes.items()
            if places is not None and size > places
        }
        total = len(heads) + sum(kept.values())
        for done, candidate in enumerate(in_order, start=1):
            score(candidate, 1 if candidate.config.family in kept else scorer.seeds)
            progress(done, total)
        promising = _promising([known[candidate.head_id] for candidate in heads], kept)
        again = (candidate for candidate in in_order if candidate.head_id in promising)
        for done, candidate in enumerate(again, start=len(heads) + 1):
            score(candidate)
            progress(done, total)
        return [known[candidate.head_id] for candidate in heads]
    finally:
        # Also where it is interrupted: only a kill costs the last seconds.
        if path is not None:
            write_scores(path, list(known.values()), scorer.identity)


def _promising(rows: Iterable[ZeroCostScores], kept: Mapping[str, int]) -> set[str]:
    """The best heads of every family, as many as it keeps, by their first seed. Those that have had further seeds are among them: they were before."""
    families: dict[str, list[ZeroCostScores]] = defaultdict(list)
    for row in sorted(ordered(rows), key=lambda row: -row.seeds):
        families[row.config.family].append(row)
    return {row.head_id for family, number in kept.items() for row in families[family][:number]}


def _evolved(
    space: Space,
    base: BaseInfo,
    number: int,
    seed: int,
    score: Callable[[Candidate], ZeroCostScores],
    told: Callable[[int, int], None],
) -> list[ZeroCostScores]:
    """Distinct heads that NSGA-II proposes, each in view of the scores of those before it. It maximises the two factors of the score."""
    proposer = Proposer(
        space,
        base,
        sampler="nsga2",
        seed=seed,
        objectives=2,
        cost_function=head_cost,
        population=max(POPULATION, number // GENERATIONS),
    )
    rows: dict[str, ZeroCostScores] = {}
    while len(rows) < number:
        proposal = proposer.propose(rows, ())
        if proposal is None:
            break
        name = proposal.candidate.head_id
        if name not in rows:
            rows[name] = score(proposal.candidate)
            told(len(rows), number)
        proposer.tell(proposal.position, score_factors(rows[name].measures, rows[name].quality))
    return list(rows.values())


def _beginning(candidate: Candidate) -> list[str]:
    """Sorts heads that begin alike behind one another, which then cost little."""
    return [repr(block) for block in untrained_blocks(candidate.config)]


def _kept(path: Path | None, identity: str) -> list[ZeroCostScores]:
    return read_scores(path, identity) if path is not None and path.exists() else []


def _summary(candidate: Candidate, cost: HeadCost, measured: Sequence[dict[str, float]]) -> ZeroCostScores:
    """Means and standard deviations over seeds; what is undefined for one seed is undefined."""
    columns = {
        name: [values[name] for values in measured]
        for name in measured[0]
        if all(name in values for values in measured)
    }
    means = {name: fmean(values) for name, values in columns.items()}
    measures = {name: means[name] for name in CKA_MEASURES if name in means}
    quality = {"retrieval.head": means["retrieval.head"]}
    return ZeroCostScores(
        head_id=candidate.head_id,
        config=candidate.config,
        seeds=len(measured),
        cost=cost,
        measures=measures,
        quality=quality,
        rankme_head=means["rankme_head"],
        synflow=means.get("synflow"),
        naswot=means.get("naswot"),
        sd={name: stdev(values) for name, values in columns.items()} if len(measured) > 1 else {},
    )
