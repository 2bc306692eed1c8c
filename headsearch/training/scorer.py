"""Scoring a trial at a rung: what base and head make of held-out images, and how well the frozen base does on labels.

Scored is the student, in eval mode, without augmentation: in a short schedule the teacher is far behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from headsearch.base.model import Base
from headsearch.data.augment import Views
from headsearch.data.sets import Dataset, ImageSet
from headsearch.heads.build import Head
from headsearch.methods.hssl import Student
from headsearch.scoring.collapse import collapse_reason, isotropy_std, rankme, worthless_reason
from headsearch.scoring.discrepancy import Discrepancies
from headsearch.scoring.features import (
    Features,
    extract_embeddings,
    extract_features,
    extract_view_embeddings,
)
from headsearch.scoring.probes import knn_accuracy, linear_accuracy
from headsearch.scoring.quality import qualities
from headsearch.training.seeds import derived_generator
from headsearch.training.trial import RungScores

_BATCH_SIZE = 256
_MOST_HELD_OUT = 10_000
"""Held-out images scored; of a larger set, a fixed random part."""
_MOST_SEEN_TWICE = 1_000
"""Held-out images of which two views are compared; of a larger set, a fixed random part. Retrieval depends on how many there are."""
_MOST_TRAIN = 50_000
"""Training images that the probes learn from; of a larger set, a fixed random part."""


@dataclass(frozen=True)
class Rung:
    """The outcome of scoring: the scores, or only the reason why there are none or why they mean nothing."""

    scores: RungScores | None
    """None where features are not finite."""
    collapsed: str | None
    """Why the representations are worthless; None where they are not."""


class Scorer:
    """Scores students on one data set."""

    def __init__(self, dataset: Dataset, views: Views, *, discrepancy: str, labels: bool, seed: int) -> None:
        """`discrepancy` names the measure that ranks; without `labels` none is read. `seed` draws parts of large sets and
        positions of feature maps, the same for all trials of an experiment."""
        self.dataset = dataset
        self.views = views
        self.discrepancy = discrepancy
        self.labels = labels
        self.seed = seed

    def score(self, student: Student[Base], *, epoch: int, loss: float, full_budget: bool) -> Rung:
        """Score the student after `epoch` epochs; `loss` is the mean of the last of them. The linear probe is for the full budget.

        What is measured of heads is the mean over them, where there are several; the pair is collapsed as soon as one is.
        """
        rungs, base_embedding, index = self._score_each(student.base, list(student.heads), epoch, loss)
        scores = [rung.scores for rung in rungs if rung.scores is not None]
        if len(scores) < len(rungs):
            return next(rung for rung in rungs if rung.scores is None)
        collapsed = next((rung.collapsed for rung in rungs if rung.collapsed is not None), None)
        knn, linear = None, None
        if self.labels:
            knn, linear = self._probe(student, base_embedding, index, full_budget)
        return Rung(replace(self._mean(scores), knn=knn, linear=linear), collapsed)

    def score_heads(self, base: Base, heads: Sequence[Head], *, epoch: int, loss: float) -> list[Rung]:
        """Score every head on its own, without labels: as many rungs as heads, in their order, each with its own `collapsed`.

        Held-out images pass the base once, however many heads there are. Without heads there is one rung, that of the base.
        """
        rungs, _, _ = self._score_each(base, heads, epoch, loss)
        return rungs

    def base_embeddings(self, base: Base) -> Tensor:
        """Embeddings (N, D) of held-out images, those that are looked at twice: the same for all trials of an experiment."""
        images = self._part(self.dataset.held_out, _MOST_SEEN_TWICE, [])
        return extract_embeddings(base, images, prepare=self.views.prepare)

    def _score_each(
        self, base: Base, heads: Sequence[Head], epoch: int, loss: float
    ) -> tuple[list[Rung], Tensor, Tensor]:
        """The rung of every head, or of the base alone; the base's embeddings; positions of their images in the held-out set."""
        index: list[Tensor] = []
        features = extract_features(
            base,
            heads,
            self._part(self.dataset.held_out, _MOST_HELD_OUT, index),
            prepare=self.views.prepare,
            seed=self.seed,
        )
        base_embedding = features[0].base_embedding
        of_base = collapse_reason(loss, base_embedding)
        generator = derived_generator(self.seed, "quality views")
        views = extract_view_embeddings(
            base,
            heads,
            self._part(self.dataset.held_out, _MOST_SEEN_TWICE, []),
            views=lambda images: self.views(images, generator, images.device),
        )
        if not all(torch.isfinite(x).all() for x in (base_embedding, features[0].base_tokens, *views.base)):
            rungs = [Rung(None, of_base or "the base's features are not finite")] * len(features)
            return rungs, base_embedding, torch.cat(index)
        base_scores = RungScores(
            epoch=epoch,
            loss=loss,
            rankme_base=rankme(base_embedding),
            std_base=isotropy_std(base_embedding),
            quality=qualities("base", *views.base),
        )
        if not heads:
            return [Rung(base_scores, of_base)], base_embedding, torch.cat(index)
        device = next(base.parameters()).device
        from_base = Discrepancies(features[0], device)
        rungs = [
            self._with_head(base_scores, of_base, from_base, each, tuple(view.to(device) for view in pair))
            for each, pair in zip(features, views.heads, strict=True)
        ]
        return rungs, base_embedding, torch.cat(index)

    def _with_head(
        self,
        base_scores: RungScores,
        collapsed: str | None,
        from_base: Discrepancies,
        features: Features,
        views: Sequence[Tensor],
    ) -> Rung:
        """The base's scores with those of a head added; `collapsed` is the base's."""
        embedding = features.head_embedding
        assert embedding is not None
        collapsed = collapsed or worthless_reason("head", embedding)
        of_head = (embedding, features.change_embedding, features.head_tokens, features.change_tokens, *views)
        if not all(x is None or bool(torch.isfinite(x).all()) for x in of_head):
            return Rung(None, collapsed or "the head's features are not finite")
        measures = from_base.of(features)
        scores = replace(
            base_scores,
            measures=measures,
            discrepancy=measures.get(self.discrepancy),
            rankme_head=rankme(embedding),
            std_head=isotropy_std(embedding),
            quality={**base_scores.quality, **qualities("head", *views)},
        )
        return Rung(scores, collapsed)

    def _mean(self, scores: Sequence[RungScores]) -> RungScores:
        """Scores of a set: what is of its heads is their mean, what is of the base is the same for all."""
        first, *others = scores
        if not others:
            return first
        measures = _means([each.measures for each in scores])
        return replace(
            first,
            measures=measures,
            discrepancy=measures.get(self.discrepancy),
            rankme_head=fmean(each.rankme_head for each in scores if each.rankme_head is not None),
            std_head=fmean(each.std_head for each in scores if each.std_head is not None),
            quality=_means([each.quality for each in scores]),
        )

    def _probe(
        self, student: Student[Base], test_x_ND: Tensor, test_index_N: Tensor, full_budget: bool
    ) -> tuple[float, float | None]:
        """k-NN accuracy and, at full budget, that of the linear probe, in percent."""
        train_labels, test_labels = self.dataset.train.labels, self.dataset.held_out.labels
        assert train_labels is not None
        assert test_labels is not None
        index: list[Tensor] = []
        images = self._part(self.dataset.train, _MOST_TRAIN, index)
        train_x_ND = extract_embeddings(student.base, images, prepare=self.views.prepare)
        train_y_N, test_y_N = train_labels[torch.cat(index)], test_labels[test_index_N]
        knn = knn_accuracy(train_x_ND, train_y_N, test_x_ND, test_y_N)
        if not full_budget:
            return knn, None
        return knn, linear_accuracy(train_x_ND, train_y_N, test_x_ND, test_y_N, seed=self.seed)

    def _part(self, images: ImageSet, most: int, index: list[Tensor]) -> Iterator[Tensor]:
        """Batches of up to `most` images; their positions in the set are added to `index`, since broken files are left out."""
        generator = derived_generator(self.seed, "scored part") if len(images) > most else None
        batches = images.batches(_BATCH_SIZE, generator=generator, drop_last=False)
        left = most
        for batch, positions in batches:
            index.append(positions[:left])
            yield batch[:left]
            left -= len(positions)
            if left <= 0:
                return


def _means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Every measure averaged over the heads of a set; one that is undefined for some head is undefined for the set."""
    return {
        name: fmean(values[name] for values in measured)
        for name in measured[0]
        if all(name in values for values in measured)
    }
