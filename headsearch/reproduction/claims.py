"""From the trials of a run to figures and verdicts on the paper's three claims. Pure; no torch.

Input: proxies of all heads and controls, the order in which a screen without labels left the same heads, and the base's own kind. Output: `Claims`.
The claims are those of Li et al., "Enhancing Representations through Heterogeneous Self-Supervised Learning", arXiv 2310.05108.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from headsearch.reproduction import contrasts
from headsearch.reproduction.contrasts import UNCLEAR, Estimate, Score, Verdict, contrast
from headsearch.results.agreement import Agreement, agreement
from headsearch.results.noise import Noise, pooled_noise
from headsearch.results.ranking import rank
from headsearch.results.records import TrialRecord, finite
from headsearch.results.row import RankRow

Kind = Literal["other", "own", "projector"]
"""Another architecture than the base's, the base's own, or no mixing of positions at all."""
PICKS = (1, 3)
"""How many of the screen's first heads are looked at."""
CONTROLS = ("none", "same", "mlp")


@dataclass(frozen=True)
class Part:
    """One question of a claim. Unknown is None."""

    name: str
    unit: Literal["points", "tau"]
    value: float | None
    low: float | None
    """95% interval, for this part alone."""
    high: float | None
    verdict: Verdict
    decides: bool
    """Whether the claim's verdict asks for it."""
    enough: int | None = None
    """About how many seeds (`points`) or heads (`tau`) would be enough to tell; None if it can be told already, or no number is enough."""
    p: float | None = None
    """Of a tau: two-sided, for the hypothesis of no relation."""
    missing: str | None = None
    """If nothing could be compared: what there is too little of."""


@dataclass(frozen=True)
class Claim:
    """A claim with what decides it."""

    name: str
    claim: str
    """In one sentence."""
    parts: tuple[Part, ...]
    verdict: Verdict


@dataclass(frozen=True)
class HeadFigures:
    """One head or control, over its seeds. Unknown is None."""

    head_id: str
    kind: Kind | None
    """None without a head."""
    control: str | None
    searched: bool
    """Whether it is of the space."""
    seeds: int
    discrepancy: float | None
    probe: float
    """Percent."""
    probe_sd: float | None
    """Between seeds."""
    over: Mapping[str, Estimate]
    """Difference to each control, by its name; the interval holds for all searched heads at once (Bonferroni)."""
    place: int | None
    """In the screen's order, from 1."""


@dataclass(frozen=True)
class Choice:
    """What taking the best of the screen's first `picks` heads loses."""

    picks: int
    chosen: tuple[str, ...]
    regret: Estimate
    """Points; its interval allows for the best head having been picked after looking."""
    random: float
    """Expected regret of the best of as many heads taken at random."""
    as_good: float
    """The chance that heads taken at random do as well."""


@dataclass(frozen=True)
class Claims:
    """All figures."""

    claims: tuple[Claim, ...]
    heads: tuple[HeadFigures, ...]
    """Best probe first."""
    choices: tuple[Choice, ...]
    noise: Noise | None
    """Between seeds of one head."""
    left_out: Mapping[str, str]
    """Heads without figures, and why."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return finite(asdict(self))


@dataclass(frozen=True)
class _Table:
    """What all claims are computed from."""

    rows: Sequence[RankRow]
    scores: Mapping[str, Score]
    controls: Mapping[str, str]
    """Ids of the controls that have a score, by name."""
    noise: Noise | None
    family: str

    @property
    def searched(self) -> list[RankRow]:
        return [row for row in self.rows if row.rank is not None]

    @property
    def seeds(self) -> int:
        return min((score.seeds for score in self.scores.values()), default=0)

    def part(self, name: str, weights: Mapping[str, float], *, decides: bool = True) -> Part:
        """The part of a claim that a contrast decides."""
        found = contrast(weights, self.scores, self.noise)
        verdict = contrasts.judged(found)
        enough = None
        if verdict == UNCLEAR:
            arms = len(self.scores)
            enough = contrasts.seeds_needed(found.value, weights, self.noise, arms=arms, seeds=self.seeds)
        return Part(name, "points", found.value, found.low, found.high, verdict, decides, enough)


def claims(records: Iterable[TrialRecord], screen_order: Sequence[str], *, family: str) -> Claims:
    """Figures and verdicts.

    Args:
        records: proxies of all heads and controls, in any order; those that did not run their full budget are left out.
        screen_order: ids of the same heads, best first, by a screen that read no labels.
        family: the head family nearest to the base's own kind (`BaseInfo.family`).
    """
    records = list(records)
    rows = rank(records, by="probe", labels=True)
    known = [row for row in rows if row.feasible and row.probe is not None]
    scores = {row.head_id: Score(row.probe or 0.0, row.replicates) for row in known}
    named = {r.control: r.head_id for r in records if r.control is not None and r.stage == "proxy"}
    noise = pooled_noise([(row.replicates, row.probe_sd) for row in known])
    controls = {name: named[name] for name in CONTROLS if named.get(name) in scores}
    table = _Table(known, scores, controls, noise, family)
    order = [head for head in screen_order if head in {row.head_id for row in table.searched}]
    found, choices = _search(table, order)
    return Claims(
        claims=(_pairs(table), _discrepancy(table), found),
        heads=tuple(_figures(row, table, order) for row in known),
        choices=choices,
        noise=noise,
        left_out=_left_out(records, scores),
    )


def _pairs(table: _Table) -> Claim:
    other = [row.head_id for row in table.searched if _kind(row, table.family) == "other"]
    parts = []
    for control, what in zip(
        CONTROLS, ("no head", "a head of the base's own kind", "an MLP head"), strict=True
    ):
        name = f"gain over {what} (`{control}`)"
        decides = control != "mlp"
        if not other or control not in table.controls:
            missing = f"the control {control} has no score" if other else "no head is of another architecture"
            parts.append(Part(name, "points", None, None, None, UNCLEAR, decides, missing=missing))
        else:
            weights = dict.fromkeys(other, 1.0 / len(other)) | {table.controls[control]: -1.0}
            parts.append(table.part(name, weights, decides=decides))
    return _claim(
        "pairs",
        f"Heterogeneous pairs help: on average, heads of another architecture ({len(other)} of them) make the base better than no head, and than "
        "one of its own kind",
        parts,
    )


def _discrepancy(table: _Table) -> Claim:
    rows = [row for row in table.rows if row.discrepancy is not None]
    found = agreement([row.discrepancy for row in rows], [row.probe for row in rows])
    return _claim(
        "discrepancy",
        f"The gain grows with the discrepancy: of {len(rows)} heads, those that differ more from the base help it more",
        [_relation("discrepancy and gain", found)],
    )


def _search(table: _Table, order: Sequence[str]) -> tuple[Claim, tuple[Choice, ...]]:
    searched = {row.head_id: table.scores[row.head_id] for row in table.searched}
    means = [score.mean for score in searched.values()]
    parts, choices = [], []
    for picks in PICKS:
        first = "the first head" if picks == 1 else f"the best of the first {picks}"
        name = f"{first} over {'one' if picks == 1 else f'the best of {picks}'} at random"
        if len(order) < picks or len(searched) <= picks:
            missing = f"{len(order)} heads have a place in the screen and a proxy"
            parts.append(Part(name, "points", None, None, None, UNCLEAR, decides=True, missing=missing))
            continue
        chosen = tuple(order[:picks])
        best = max(chosen, key=lambda head: searched[head].mean)
        by_chance = contrasts.best_of_random(means, picks)
        weights = {head: -weight for head, weight in zip(searched, by_chance, strict=True)}
        weights[best] += 1.0
        part = table.part(name, weights)
        lost = contrasts.regret(chosen, searched, table.noise)
        assert part.value is not None
        as_good = contrasts.chance_as_good(means, picks, searched[best].mean)
        choices.append(Choice(picks, chosen, lost, lost.value + part.value, as_good))
        parts.append(part)
    places = [-float(place) for place, _ in enumerate(order)]
    found = agreement(places, [searched[head].mean for head in order])
    parts.append(_relation("the screen's order and the order by probe", found))
    claim = _claim(
        "search",
        "The search finds a good head: what a screen without labels puts first is better than heads taken at random, and its order agrees with "
        "the order by probe",
        parts,
    )
    return claim, tuple(choices)


def _claim(name: str, sentence: str, parts: Sequence[Part]) -> Claim:
    verdict = contrasts.together([part.verdict for part in parts if part.decides])
    return Claim(name, sentence, tuple(parts), verdict)


def _relation(name: str, found: Agreement) -> Part:
    verdict = contrasts.judged_relation(found)
    enough = found.enough if verdict == UNCLEAR else None
    missing = f"{found.n} heads with both" if found.tau is None else None
    return Part(name, "tau", found.tau, found.low, found.high, verdict, True, enough, found.p, missing)


def _figures(row: RankRow, table: _Table, order: Sequence[str]) -> HeadFigures:
    over = {
        name: contrast({row.head_id: 1.0, control: -1.0}, table.scores, table.noise, len(table.searched))
        for name, control in table.controls.items()
        if control != row.head_id
    }
    return HeadFigures(
        head_id=row.head_id,
        kind=_kind(row, table.family) if row.config is not None else None,
        control=row.control,
        searched=row.rank is not None,
        seeds=row.replicates,
        discrepancy=row.discrepancy,
        probe=table.scores[row.head_id].mean,
        probe_sd=row.probe_sd,
        over=over,
        place=order.index(row.head_id) + 1 if row.head_id in order else None,
    )


def _kind(row: RankRow, family: str) -> Kind:
    families = set(row.family.split("+"))
    if families == {family}:
        return "own"
    return "projector" if families == {"mlp"} else "other"


def _left_out(records: Sequence[TrialRecord], scores: Mapping[str, Score]) -> dict[str, str]:
    """Why heads have no figures: the last thing that went wrong with them."""
    trials = sorted((r for r in records if r.stage == "proxy"), key=lambda record: record.number)
    reasons = {
        record.head_id: f"{record.state}: {record.reason}" if record.reason else record.state
        for record in trials
        if record.head_id not in scores and record.state not in ("complete", "duplicate")
    }
    return dict(sorted(reasons.items()))
