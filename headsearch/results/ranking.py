"""From the records of trials to the ranked table of heads. Pure functions.

Only heads that ran their full budget and are feasible have a rank. Controls stand in their place among them without one, or after
them where there are no labels; heads that are infeasible come last, with the reason. `docs/ranking.md` explains the rules.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from headsearch.errors import RunError
from headsearch.results.noise import pooled_noise
from headsearch.results.records import TrialRecord, finite
from headsearch.scoring.score import head_score
from headsearch.training.trial import RungScores, TrialStage

By = Literal["pareto", "probe", "discrepancy", "score"]


@dataclass(frozen=True, kw_only=True)
class RankRow:
    """One head, averaged over its replicates. Unknown is None."""

    rank: int | None = None
    """From 1; None for controls that the search did not draw itself, and for infeasible heads."""
    head_id: str
    family: str
    config: dict[str, Any] | list[dict[str, Any]] | None
    """As `HeadConfig.to_dict` gives it."""
    control: str | None = None
    """`none`, `same` or `mlp`."""
    stage: str
    """Where the scores are from: `proxy`, `screen` or, before any training, `zero-cost`."""
    score: float | None = None
    """The label-free score (`headsearch.scoring.score`)."""
    discrepancy: float | None = None
    discrepancy_sd: float | None = None
    """Sample standard deviation over replicates; None with fewer than two."""
    probe: float | None = None
    """Percent: k-NN accuracy of the frozen base."""
    probe_sd: float | None = None
    knn: float | None = None
    linear: float | None = None
    gain: float | None = None
    """`probe` less that of the control `none`, in points."""
    gain_low: float | None = None
    """95% interval of the gain, for this head alone; None without replicates anywhere."""
    gain_high: float | None = None
    params: int | None = None
    flops: int | None = None
    overhead: float | None = None
    replicates: int = 0
    """Trials that ran their full budget."""
    pareto_layer: int | None = None
    """From 1, in (discrepancy, probe) among ranked heads; None without labels and without a rank."""
    feasible: bool = True
    """False where any of its trials was infeasible: a head that collapses for some seeds is not to be relied on."""
    reason: str | None = None
    """Why it is infeasible, or why the search let it go."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain: dict[str, Any] = finite(asdict(self))
        return plain


def probe_score(scores: RungScores) -> float | None:
    """The probe as a single number, in percent: k-NN accuracy (`docs/decisions/004-probe.md`); None without labels."""
    return scores.knn


def heads_tried(records: Iterable[TrialRecord]) -> int:
    """How many different heads the search itself gave a proxy, however far it came: what the best of them has to be judged against."""
    return len({r.head_id for r in records if r.control is None and r.rungs and r.stage == "proxy"})


def rank(
    records: Iterable[TrialRecord], *, by: By, labels: bool, stage: TrialStage = "proxy"
) -> list[RankRow]:
    """The ranking: one row per head that ran its full budget or is infeasible.

    Args:
        records: Trials of one study, in any order.
        by: `pareto`: layers of (discrepancy, probe), both the higher the better, then probe, then cost; `probe` and `discrepancy`:
            that score, then the other, then cost; `score`: the label-free score, then as by discrepancy. Cost is parameters, then FLOPs; the
            last word is `head_id`'s.
        labels: Whether the experiment probes; without labels `pareto` orders by discrepancy.
        stage: Which trials are ranked: those of a screen do not compare with proxies.

    Raises:
        RunError: ordering by probe without labels.
    """
    if by == "probe" and not labels:
        raise RunError(
            "cannot rank by probe: the experiment has data.labels: none; expected --by discrepancy"
        )
    heads: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in sorted((r for r in records if r.stage == stage), key=lambda record: record.number):
        heads[record.head_id].append(record)
    rows = [row for group in heads.values() if (row := _row(group)) is not None]
    rows = _with_gains(rows)

    ranked_ids = {
        row.head_id
        for row in rows
        if row.feasible and any(record.control is None for record in heads[row.head_id])
    }
    ranked = [row for row in rows if row.head_id in ranked_ids]
    layers = pareto_layers([_objectives(row) for row in ranked])
    fronts = list(zip(layers, ranked, strict=True))
    layer_of = {row.head_id: layer for layer, row in fronts}

    def key(row: RankRow) -> tuple[float | str, ...]:
        cost = (_or_last(row.params), _or_last(row.flops), row.head_id)
        discrepancy, probe = _objectives(row)
        if by == "probe":
            return (-probe, -discrepancy, *cost)
        if by == "score":
            return (-_or_worst(row.score), -discrepancy, -probe, *cost)
        if by == "discrepancy" or not labels:
            return (-discrepancy, -probe, *cost)
        layer = layer_of.get(row.head_id)
        if layer is None:
            # A control: the layer it would be in.
            layer = 1 + max(
                (n for n, other in fronts if _dominates(_objectives(other), (discrepancy, probe))), default=0
            )
        return (layer, -probe, *cost)

    # Without labels nothing says how good a control is: it is no place of its own that a head had to beat.
    feasible = sorted(
        (row for row in rows if row.feasible),
        key=lambda row: (not labels and row.head_id not in ranked_ids, *key(row)),
    )
    infeasible = sorted((row for row in rows if not row.feasible), key=lambda row: row.head_id)
    places = {
        row.head_id: n for n, row in enumerate((r for r in feasible if r.head_id in ranked_ids), start=1)
    }
    return [
        replace(
            row,
            rank=places.get(row.head_id),
            pareto_layer=layer_of.get(row.head_id) if labels else None,
        )
        for row in (*feasible, *infeasible)
    ]


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


def _replicates(group: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials at full budget, one per seed: the same seed twice is the same trial, not a replicate."""
    return list({record.seed: record for record in group if record.state == "complete"}.values())


def _row(group: Sequence[TrialRecord]) -> RankRow | None:
    """The row of one head's trials; None where none ran its full budget and none is infeasible."""
    complete = _replicates(group)
    infeasible = [record for record in group if record.state == "infeasible"]
    if not complete and not infeasible:
        return None
    scores = [record.rungs[-1] for record in complete]
    discrepancies = _known(score.discrepancy for score in scores)
    probes = _known(map(probe_score, scores))
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
        linear=_mean(_known(score.linear for score in scores)),
        params=cost.params if cost else None,
        flops=cost.flops if cost else None,
        overhead=_mean(_known(record.cost.overhead for record in complete if record.cost is not None)),
        replicates=len(complete),
        feasible=not infeasible,
        reason=reason,
    )


def _with_gains(rows: Sequence[RankRow]) -> list[RankRow]:
    """The rows with their gain over the control `none`; the control itself gains nothing and has none."""
    control = next(
        (row for row in rows if row.control == "none" and row.feasible and row.probe is not None), None
    )
    noise = pooled_noise([(row.replicates, row.probe_sd) for row in rows if row.feasible])
    with_gains = []
    for row in rows:
        if control is None or control.probe is None or row is control or row.probe is None:
            with_gains.append(row)
            continue
        gain = row.probe - control.probe
        low, high = noise.interval(gain, row.replicates, control.replicates) if noise else (None, None)
        with_gains.append(replace(row, gain=gain, gain_low=low, gain_high=high))
    return with_gains


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
