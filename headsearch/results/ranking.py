"""From the records of trials to the ranked table of heads. Pure functions.

Only feasible heads that ran their full budget have a rank. They are ordered by the label-free score or, if trainings are long enough for the probe
to tell, by the probe shrunk towards it. Controls stand among them without a rank, or after them if there are no labels. Infeasible heads come last,
with the reason. `docs/ranking.md` explains the rules.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from headsearch.errors import RunError
from headsearch.results.gains import adjusted, with_gains, with_shrunk
from headsearch.results.long_run import with_long_run
from headsearch.results.records import TrialRecord
from headsearch.results.row import RankRow, epochs_of
from headsearch.scoring.score import head_score
from headsearch.training.trial import RungScores, TrialStage

By = Literal["score", "pareto", "probe", "discrepancy"]


def probe_score(scores: RungScores) -> float | None:
    """The probe as a single number, in percent: k-NN accuracy (`docs/decisions/004-probe.md`); None without labels."""
    return scores.knn


def heads_tried(records: Iterable[TrialRecord]) -> int:
    """How many different heads the search gave a proxy, finished or not: the best of them has to be judged against all of them."""
    return len({r.head_id for r in records if r.control is None and r.rungs and r.stage == "proxy"})


def long_enough(epochs: int | None, target_epochs: int | None) -> bool:
    """Whether the probe of a training tells how a real pretraining will come out: it does from half of its length on (`docs/evidence.md`)."""
    return epochs is not None and target_epochs is not None and 2 * epochs >= target_epochs


def rank(
    records: Iterable[TrialRecord],
    *,
    by: By = "score",
    labels: bool,
    stage: TrialStage = "proxy",
    target_epochs: int | None = None,
) -> list[RankRow]:
    """The ranking: one row per head that ran its full budget or is infeasible.

    Args:
        records: Trials of one study, in any order.
        by: `score`: the label-free score, or the probe shrunk towards it from trainings that are `long_enough`, then as by discrepancy;
            `pareto`: layers of (discrepancy, probe), both the higher the better, then probe, then cost; `probe` and `discrepancy`: that one,
            then the other, then cost. Cost is parameters, then FLOPs; last comes `head_id`.
        labels: Whether the experiment probes; without labels `pareto` orders by discrepancy.
        stage: Which trials are ranked: those of a screen do not compare with proxies.
        target_epochs: Of the real pretraining. If it is not known, the order by score ignores the probe.

    Raises:
        RunError: ordering by probe without labels.
    """
    if by == "probe" and not labels:
        raise RunError(
            "cannot rank by probe: the experiment has data.labels: none; expected --by discrepancy"
        )
    heads: dict[str, list[TrialRecord]] = defaultdict(list)
    records = list(records)
    ranked_stages = (stage, "equal-time") if stage == "proxy" else (stage,)
    listed = sorted((r for r in records if r.stage in ranked_stages), key=lambda record: record.number)
    for record in listed:
        heads[record.head_id].append(record)
    rows = with_gains([row for group in heads.values() if (row := _row(group)) is not None])
    trained = epochs_of(rows)
    if long_enough(trained, target_epochs):
        assert trained is not None
        assert target_epochs is not None
        rows = with_shrunk(rows, full=trained >= target_epochs)

    ranked_ids = {
        row.head_id
        for row in rows
        if row.feasible and any(record.control is None for record in heads[row.head_id])
    }
    ranked = [row for row in rows if row.head_id in ranked_ids]
    layers = pareto_layers([_objectives(row) for row in ranked])
    fronts = list(zip(layers, ranked, strict=True))
    layer_of = {row.head_id: layer for layer, row in fronts}

    shrunken = any(row.shrunk is not None for row in rows)

    def key(row: RankRow) -> tuple[float | str, ...]:
        cost = (_or_last(row.params), _or_last(row.flops), row.head_id)
        discrepancy, probe = _objectives(row)
        if by == "probe":
            return (-probe, -discrepancy, *cost)
        if by == "score":
            # The control `none` has no score; where probes order, it has its own.
            best = row.shrunk if shrunken and row.config else row.probe if shrunken else row.score
            return (-_or_worst(best), -discrepancy, -probe, *cost)
        if by == "discrepancy" or not labels:
            return (-discrepancy, -probe, *cost)
        layer = layer_of.get(row.head_id)
        if layer is None:
            # A control: the layer it would be in.
            layer = 1 + max(
                (n for n, other in fronts if _dominates(_objectives(other), (discrepancy, probe))), default=0
            )
        return (layer, -probe, *cost)

    # Without labels nothing says how good a control is, so it has no place that a head could beat.
    feasible = sorted(
        (row for row in rows if row.feasible),
        key=lambda row: (not labels and row.head_id not in ranked_ids, *key(row)),
    )
    infeasible = sorted((row for row in rows if not row.feasible), key=lambda row: row.head_id)
    places = {
        row.head_id: n for n, row in enumerate((r for r in feasible if r.head_id in ranked_ids), start=1)
    }
    placed = [
        replace(row, rank=places.get(row.head_id), pareto_layer=layer_of.get(row.head_id) if labels else None)
        for row in (*feasible, *infeasible)
    ]
    none, anchors = _long_probes(records, target_epochs)
    return with_long_run(adjusted(placed, max(len(ranked), heads_tried(listed))), none, anchors)


def pareto_layers(points: Sequence[tuple[float, float]]) -> list[int]:
    """The layer of each point under non-dominated sorting, both coordinates the higher the better; the front is 1. Equal points share one.

    >>> pareto_layers([(1.0, 2.0), (2.0, 1.0), (1.0, 1.0)])
    [1, 1, 2]
    """
    # Of the highest second coordinate in each layer so far, the negative: rising from layer to layer.
    lowest: list[float] = []
    layer_of: dict[tuple[float, float], int] = {}
    for point in sorted(set(points), reverse=True):
        # Whatever came before is at least as good in the first coordinate, so only the second decides.
        layer = bisect.bisect_right(lowest, -point[1])
        lowest[layer : layer + 1] = [-point[1]]
        layer_of[point] = layer + 1
    return [layer_of[point] for point in points]


def _long_probes(
    records: Iterable[TrialRecord], target_epochs: int | None
) -> tuple[list[float], dict[str, float]]:
    """Probes of trainings as long as the real pretraining: without a head, and of the anchors by head id."""
    known = [
        (record, probe)
        for record in records
        if record.stage == "anchor" and record.state == "complete" and record.epochs == target_epochs
        if (probe := probe_score(record.rungs[-1])) is not None
    ]
    none = [probe for record, probe in known if record.control == "none"]
    return none, {record.head_id: probe for record, probe in known if record.control is None}


def _row(group: Sequence[TrialRecord]) -> RankRow | None:
    """The row of one head's trials; None where none ran its full budget and none is infeasible."""
    # The same seed twice is the same trial, not a replicate.
    complete = list({record.seed: record for record in group if record.state == "complete"}.values())
    infeasible = [record for record in group if record.state == "infeasible"]
    if not complete and not infeasible:
        return None
    scores = [record.rungs[-1] for record in complete]
    discrepancies = _known(score.discrepancy for score in scores)
    probes = _known(map(probe_score, scores))
    linear = _known(score.linear for score in scores)
    cost = next((record.cost for record in group if record.cost is not None), None)
    reason = infeasible[0].reason if infeasible else None
    if infeasible and complete:
        reason = f"{len(infeasible)} of {len(infeasible) + len(complete)} replicates: {reason}"
    return RankRow(
        head_id=group[0].head_id,
        family=group[0].config.family,
        config=group[0].config.to_dict(),
        control=next((record.control for record in group if record.control is not None), None),
        stage=group[0].stage,
        score=_mean(_known(head_score(s.measures, s.quality) for s in scores)),
        discrepancy=_mean(discrepancies),
        discrepancy_sd=_deviation(discrepancies),
        probe=_mean(probes),
        probe_sd=_deviation(probes),
        knn=_mean(_known(score.knn for score in scores)),
        linear=_mean(linear),
        linear_sd=_deviation(linear),
        epochs=max((score.epoch for score in scores), default=None),
        params=cost.params if cost else None,
        flops=cost.flops if cost else None,
        overhead=_mean(_known(record.cost.overhead for record in complete if record.cost is not None)),
        replicates=len(complete),
        feasible=not infeasible,
        reason=reason,
    )


def _objectives(row: RankRow) -> tuple[float, float]:
    """(discrepancy, probe) for comparing; unknown is worse than anything known."""
    return _or_worst(row.discrepancy), _or_worst(row.probe)


def _dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a != b and a[0] >= b[0] and a[1] >= b[1]


def _or_worst(score: float | None) -> float:
    return -math.inf if score is None else score


def _or_last(cost: int | None) -> float:
    return math.inf if cost is None else cost


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
