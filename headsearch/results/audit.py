"""Can the ranking be trusted? What a run itself can say: its stages, rungs, seeds and measures are compared with each other. Pure.

Comes in: the trials of one study, what was scored before training, who was taken by chance. Goes out: sections of lines, plain data, each section
with one sentence. A section that has nothing to go by says what is missing. `docs/audit.md` says what every line means.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

from headsearch.results.agreement import FEWEST, UNCLEAR, mean_agreement
from headsearch.results.audit_lines import (
    SCORES,
    AuditedHead,
    Line,
    agreement_line,
    choice_line,
    difference_line,
    full_budget,
    known_measures,
    measured,
    measured_line,
    slope_line,
)
from headsearch.results.noise import noise_within
from headsearch.results.ranking import probe_score
from headsearch.results.records import TrialRecord, finite
from headsearch.scoring.zero_cost_scores import ZeroCostScores
from headsearch.training.trial import TrialStage

NO_LABELS = "there is no probe: the run reads no labels (data.labels: none, or a screen alone)"


@dataclass(frozen=True)
class Section:
    """One question, and what the run says to it."""

    name: str
    question: str
    lines: tuple[Line, ...]
    conclusion: str
    """One sentence. If there are no lines, it says what is missing."""


@dataclass(frozen=True)
class Audit:
    """All of it."""

    sections: tuple[Section, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return finite(asdict(self))


@dataclass(frozen=True)
class BasePair:
    """How differently the bases of two seeds of one training represent the same images."""

    seeds: tuple[int, int]
    """Numbers of the two trials."""
    measure: str
    """`cka`, `mutual_knn` or `procrustes`."""
    value: float
    shuffled: float
    """The same with the images of one side in random order."""


def audit(
    records: Iterable[TrialRecord],
    candidates: Sequence[ZeroCostScores] = (),
    *,
    labels: bool,
    measure: str,
    stage: TrialStage = "proxy",
    screen_order: Sequence[str] = (),
    by_chance: frozenset[str] = frozenset(),
    chance_is_told: bool = True,
    bases: Sequence[BasePair] = (),
    bases_missing: str | None = None,
) -> Audit:
    """Compare what the run has measured.

    Args:
        records: trials of one study, in any order.
        candidates: heads that were scored before any training.
        labels: whether trials have a probe.
        measure: the discrepancy that ranks, of `MEASURES`.
        stage: which trials are ranked; `screen` where there are no proxies.
        screen_order: ids of the screened heads, best first.
        by_chance: ids of the heads that got a proxy by chance and not for their place in the screen.
        chance_is_told: whether the run recorded `by_chance`; otherwise it is derived from today's score.
        bases: comparisons of the bases of the control `none`, if their embeddings were kept.
        bases_missing: why there are none, if it is not that they were not kept.
    """
    records = list(records)
    heads = full_budget(records, stage)
    searched = [head for head in heads if head.searched]
    return Audit(
        (
            _stages(
                candidates,
                searched if stage == "proxy" else [],
                screen_order,
                by_chance,
                chance_is_told,
                labels,
            ),
            _rungs(heads, labels),
            _seeds(heads, labels, measure),
            _measures(heads, measure),
            _choosing(searched, {row.head_id: row for row in candidates}, labels),
            _relation(heads, labels),
            _scale(records, heads, bases, bases_missing, measure),
        )
    )


def _stages(
    candidates: Sequence[ZeroCostScores],
    heads: Sequence[AuditedHead],
    screen_order: Sequence[str],
    by_chance: frozenset[str],
    chance_is_told: bool,
    labels: bool,
) -> Section:
    before = {row.head_id: row.score for row in candidates}
    place = {head_id: -float(n) for n, head_id in enumerate(screen_order, start=1)}
    ids = [head.head_id for head in heads]
    probes = [head.mean(probe_score) for head in heads]
    discrepancies = [head.mean(SCORES["discrepancy"]) for head in heads]
    lines: list[Line] = []
    if candidates and screen_order:
        scores = [before.get(head_id) for head_id in screen_order]
        lines.append(agreement_line("untrained → screen", scores, [place[i] for i in screen_order]))
    for name, stage in (("untrained", before), ("screen", place)):
        values = [stage.get(head_id) for head_id in ids]
        if stage and heads:
            lines.append(agreement_line(f"{name} → proxy's discrepancy", values, discrepancies))
            if labels:
                lines.append(choice_line(f"{name} → proxy's probe", values, probes))
    chance = [head for head in heads if head.head_id in by_chance]
    chosen = [head for head in heads if head.head_id in place and head.head_id not in by_chance]
    if labels and chance and chosen:
        sides = [[p for h in side if (p := h.mean(probe_score)) is not None] for side in (chosen, chance)]
        lines.append(difference_line("probe: chosen less taken by chance", *sides))
    if not candidates and not screen_order:
        conclusion = "Not measured: no stage before the proxies chose among the heads (strategy proxies)."
    elif not heads:
        what = "no head has a proxy at full budget, against which earlier stages could be held"
        conclusion = f"Not measured: {what}."
    else:
        chooser, subject = ("screen", "the screen") if screen_order else ("untrained", "the untrained score")
        wanted = f"{chooser} → proxy's {'probe' if labels else 'discrepancy'}"
        line = next(line for line in lines if line.name == wanted)
        conclusion = _sentence(line, subject, "the proxies")
        conclusion += f" {len(chance)} of the {len(heads)} heads with a proxy were taken by chance"
        conclusion += (
            "." if chance_is_told else ", judged by the present score, because the run does not record it."
        )
    return Section(
        "stages", "Do the stages that choose agree with what comes after them?", tuple(lines), conclusion
    )


def _rungs(heads: Sequence[AuditedHead], labels: bool) -> Section:
    question = "Does an early rung already have the order of the full budget?"
    epochs = [rung.epoch for rung in heads[0].trials[0].rungs] if heads else []
    if len(epochs) < 2:
        before = "there is no rung before the full budget"
        return _missing("rungs", question, before if heads else "no head has run its full budget")
    names = [name for name in ("probe", "discrepancy", "score") if labels or name != "probe"]
    lines = [
        agreement_line(
            f"{name}: epoch {epoch} → {epochs[-1]}",
            [head.mean(SCORES[name], place) for head in heads],
            [head.mean(SCORES[name]) for head in heads],
        )
        for place, epoch in enumerate(epochs[:-1])
        for name in names
    ]
    full = f"that at the full budget, by {names[0]}"
    conclusion = _sentence(lines[0], f"the order at epoch {epochs[0]}", full)
    return Section("rungs", question, tuple(lines), conclusion)


def _seeds(heads: Sequence[AuditedHead], labels: bool, measure: str) -> Section:
    question = "Would other seeds rank the heads the same?"
    replicated = [head for head in heads if len(head.trials) > 1]
    if not replicated:
        what = "no head has two seeds at full budget; ask for search.replicates of 2 or more, and finalists"
        return _missing("seeds", question, what)
    most = max(len(head.trials) for head in replicated)
    scores = {name: score for name, score in SCORES.items() if labels or name not in ("probe", "linear")}
    scores |= {name: measured(name) for name in known_measures(replicated) if name != measure}
    lines = []
    for name, score in scores.items():
        series = [
            [score(h.trials[i].rungs[-1]) if i < len(h.trials) else None for h in replicated]
            for i in range(most)
        ]
        values = [[v for t in h.trials if (v := score(t.rungs[-1])) is not None] for h in replicated]
        noise = noise_within(values)
        means = [fmean(v) for v in values if v]
        found = mean_agreement(list(combinations(series, 2)))
        spread = stdev(means) if len(means) > 1 else None
        lines.append(Line.of(name, found, noise=noise.deviation if noise else None, spread=spread))
    conclusion = _sentence(lines[0], f"the order by {lines[0].name}", "that of another seed")
    if lines[0].noise and lines[0].spread is not None:
        times = lines[0].spread / lines[0].noise
        conclusion += f" Heads differ by {times:.1f} times the noise between seeds."
    return Section("seeds", question, tuple(lines), conclusion)


def _measures(heads: Sequence[AuditedHead], measure: str) -> Section:
    question = f"Do the discrepancy measures agree with the one that ranks, {measure}?"
    if not heads:
        return _missing("measures", question, "no head has run its full budget")
    ranks = [head.mean(measured(measure)) for head in heads]
    lines = [
        agreement_line(name, [head.mean(measured(name)) for head in heads], ranks)
        for name in known_measures(heads)
        if name != measure
    ]
    if not lines:
        return _missing("measures", question, f"no head has another discrepancy than {measure}")
    agreeing = sum(line.verdict == "agrees" for line in lines)
    conclusion = f"{agreeing} of {len(lines)} other measures agree with {measure} over {len(heads)} heads."
    return Section("measures", question, tuple(lines), conclusion)


def _choosing(
    heads: Sequence[AuditedHead], candidates: Mapping[str, ZeroCostScores], labels: bool
) -> Section:
    question = "What would choosing by a score that reads no label cost?"
    if not labels:
        return _missing("choosing", question, NO_LABELS)
    if len(heads) < 2:
        return _missing("choosing", question, "fewer than two searched heads have run their full budget")
    probes = [head.mean(probe_score) for head in heads]
    columns: dict[str, list[float | None]] = {
        name: [head.mean(measured(name)) for head in heads] for name in known_measures(heads)
    }
    columns["score"] = [head.mean(SCORES["score"]) for head in heads]
    columns["retrieval.head"] = [head.mean(lambda s: s.quality.get("retrieval.head")) for head in heads]
    columns["rankme_head"] = [head.mean(lambda s: s.rankme_head) for head in heads]
    columns["params"] = [None if head.cost is None else float(head.cost.params) for head in heads]
    columns["flops"] = [None if head.cost is None else float(head.cost.flops) for head in heads]
    for name in ("synflow", "naswot"):
        found = [candidates.get(head.head_id) for head in heads]
        values = [None if row is None else row.value(name) for row in found]
        # Only there where somebody asked for them; nobody misses them elsewhere.
        if any(value is not None for value in values):
            columns[name] = values
    known = {name: values for name, values in columns.items() if any(v is not None for v in values)}
    lines = [choice_line(name, values, probes) for name, values in known.items()]
    agreeing = ", ".join(line.name for line in lines if line.verdict == "agrees") or "none"
    conclusion = (
        f"Of {len(lines)} ways to choose, these are shown to go with the probe over {len(heads)} heads: {agreeing}. "
        "One in forty would seem to by luck alone."
    )
    if len(known) < len(columns):
        conclusion += f" Not measured: {', '.join(name for name in columns if name not in known)}."
    return Section("choosing", question, tuple(lines), conclusion)


def _relation(heads: Sequence[AuditedHead], labels: bool) -> Section:
    question = "Do heads that differ more help more?"
    if not labels:
        return _missing("relation", question, NO_LABELS)
    found = [(head.mean(SCORES["discrepancy"]), head.mean(probe_score)) for head in heads]
    known = [(x, y) for x, y in found if x is not None and y is not None]
    if len(known) < 2:
        return _missing("relation", question, "fewer than two heads have run their full budget")
    x, y = [x for x, _ in known], [y for _, y in known]
    lines = [agreement_line("discrepancy → probe", x, y)]
    slope = slope_line("points of the probe per 0.1 of discrepancy", [value / 0.1 for value in x], y)
    if slope is not None:
        lines.append(slope)
    return Section("relation", question, tuple(lines), _sentence(lines[0], "discrepancy", "the probe"))


def _scale(
    records: Sequence[TrialRecord],
    heads: Sequence[AuditedHead],
    bases: Sequence[BasePair],
    missing: str | None,
    measure: str,
) -> Section:
    question = "What does a discrepancy read where the answer is known?"
    same = {r.head_id for r in records if r.control == "same"}
    lines = []
    told = []
    rungs = (trial.rungs[-1] for head in heads if head.head_id in same for trial in head.trials)
    floor = [rung.discrepancy for rung in rungs if rung.discrepancy is not None]
    means = (head.mean(SCORES["discrepancy"]) for head in heads if head.searched and head.head_id not in same)
    others = [mean for mean in means if mean is not None]
    if floor:
        lines.append(measured_line(f"{measure}: a head of the base's own kind (control same)", floor))
        above = sum(value > fmean(floor) for value in others)
        told.append(
            f"A head of the base's own kind reads {fmean(floor):.2f}, and {above} of {len(others)} heads read more."
        )
    else:
        told.append("The floor is not measured: the control same has not run its full budget.")
    by_measure: dict[str, list[BasePair]] = defaultdict(list)
    for pair in bases:
        by_measure[pair.measure].append(pair)
    for name, pairs in by_measure.items():
        lines.append(measured_line(f"{name}.embedding: bases of two seeds", [pair.value for pair in pairs]))
        shuffled = [pair.shuffled for pair in pairs]
        lines.append(measured_line(f"{name}.embedding: the same, images shuffled", shuffled))
    if by_measure.get("cka"):
        between = fmean(pair.value for pair in by_measure["cka"])
        unrelated = fmean(pair.shuffled for pair in by_measure["cka"])
        told.append(
            f"By CKA the same training with another seed reads {between:.2f}, and unrelated representations {unrelated:.2f}."
        )
    else:
        wanted = (
            "the control none needs two seeds at full budget, with embeddings.safetensors in their folders"
        )
        told.append(f"Two seeds of one base are not measured: {missing or wanted}.")
    return Section("scale", question, tuple(lines), " ".join(told))


def _missing(name: str, question: str, what: str) -> Section:
    return Section(name, question, (), f"Not measured: {what}.")


def _sentence(line: Line, subject: str, other: str) -> str:
    """Whether `subject` agrees with `other`, in words and numbers."""
    heads = f"{line.n} head{'' if line.n == 1 else 's'}"
    if line.verdict == UNCLEAR:
        shown = "" if line.value is None else f", {line.interval}"
        more = "" if line.enough is None else f"; about {line.enough} would be enough"
        few = "" if line.n >= FEWEST else " is too few" if line.n == 1 else " are too few"
        return f"It cannot be told whether {subject} agrees with {other}: {heads}{few}{shown}{more}."
    how = "agrees with" if line.verdict == "agrees" else "goes against"
    return f"{subject[0].upper()}{subject[1:]} {how} {other}: {line.interval}, {heads}."
