"""Scoring a trial at a rung: what base and head make of held-out images, and how well the frozen base does on labels.

Scored is the student, in eval mode, without augmentation: in a short schedule the teacher is far behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean

import torch
from torch import Tensor

from headsearch.data.augment import Views
from headsearch.data.sets import Dataset, ImageSet
from headsearch.hssl import Student
from headsearch.scoring.collapse import collapse_reason, isotropy_std, rankme
from headsearch.scoring.discrepancy import discrepancies
from headsearch.scoring.features import Features, extract_embeddings, extract_features
from headsearch.scoring.probes import knn_accuracy, linear_accuracy
from headsearch.training.seeds import derived_generator
from headsearch.trial import RungScores

_BATCH_SIZE = 256
_MOST_HELD_OUT = 10_000
"""Held-out images scored; of a larger set, a fixed random part."""
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

    def score(self, student: Student, *, epoch: int, loss: float, full_budget: bool) -> Rung:
        """Score the student after `epoch` epochs; `loss` is the mean of the last of them. The linear probe is for the full budget.

        What is measured of heads is the mean over them, where there are several; the pair is collapsed as soon as one is.
        """
        index: list[Tensor] = []
        features = extract_features(
            student.base,
            list(student.heads),
            self._part(self.dataset.held_out, _MOST_HELD_OUT, index),
            prepare=self.views.prepare,
            seed=self.seed,
        )
        base_embedding = features[0].base_embedding
        heads = [each.head_embedding for each in features if each.head_embedding is not None]
        reasons = (collapse_reason(loss, base_embedding, each.head_embedding) for each in features)
        collapsed = next((reason for reason in reasons if reason is not None), None)
        if not all(map(_finite, features)):
            return Rung(None, collapsed or "the features are not finite")
        measures = _means([discrepancies(each) for each in features])
        knn, linear = None, None
        if self.labels:
            knn, linear = self._probe(student, base_embedding, torch.cat(index), full_budget)
        scores = RungScores(
            epoch=epoch,
            loss=loss,
            measures=measures,
            discrepancy=measures.get(self.discrepancy),
            knn=knn,
            linear=linear,
            rankme_base=rankme(base_embedding),
            rankme_head=fmean(map(rankme, heads)) if heads else None,
            std_base=isotropy_std(base_embedding),
            std_head=fmean(map(isotropy_std, heads)) if heads else None,
        )
        return Rung(scores, collapsed)

    def _probe(
        self, student: Student, test_x_ND: Tensor, test_index_N: Tensor, full_budget: bool
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
        for batch, positions in islice(batches, -(-most // _BATCH_SIZE)):
            index.append(positions)
            yield batch


def _finite(features: Features) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in vars(features).values() if value is not None)


def _means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Every measure averaged over the heads of a set; one that is undefined for some head is undefined for the set."""
    return {
        name: fmean(values[name] for values in measured)
        for name in measured[0]
        if all(name in values for values in measured)
    }
