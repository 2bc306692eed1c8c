"""The report of a reproduction: a page, tables for a terminal, and everything as JSON. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headsearch.files import versions
from headsearch.reproduction.claims import CONTROLS, Choice, Claim, Claims, HeadFigures, Part
from headsearch.reproduction.contrasts import MOST_SEEDS, RELEVANT_POINTS, RELEVANT_TAU, UNCLEAR, Estimate
from headsearch.results.text import UNKNOWN, gain, markdown_table, number

if TYPE_CHECKING:
    from rich.table import Table

_VERSION = "headsearch/claims@1"

LIMITS = (
    "The intervals in points cover seeds: the start of the base, batches and views. They do not cover other images, another schedule, another base or full pretraining.",
    "The claims about an order (tau) are about heads. The heads are not a random sample of all heads, so another list may give another result.",
    "Discrepancy and gain come from the same trainings. Something that moves both in one training adds to their correlation without either causing the other.",
    "Only one screen was run. With another seed it may put other heads first.",
    "Each of the three claims is judged at 95%. The chance that at least one of the three verdicts is wrong is higher than for a single one.",
    "The proxy's schedule, the probe (k-NN), the discrepancy measure and the data were chosen beforehand and are not varied here.",
)
"""What no verdict covers."""


@dataclass(frozen=True)
class Report:
    """A reproduction's outcome."""

    described: Mapping[str, Any]
    """Base, images, method, schedule, space, seeds."""
    family: str
    """The base's own kind, as a family of heads."""
    claims: Claims

    def to_json(self) -> str:
        """All figures, as text; unknown is null."""
        content = {
            "claims": _VERSION,
            "versions": versions(),
            "run": dict(self.described),
            "own_kind": self.family,
            "relevant": {"points": RELEVANT_POINTS, "tau": RELEVANT_TAU},
            "figures": self.claims.to_dict(),
            "limits": list(LIMITS),
        }
        return json.dumps(content, indent=2, allow_nan=False)

    def claim_table(self, claim: Claim) -> Table:
        """What decides a claim, for a terminal."""
        from headsearch.results.tables import text_table

        return text_table(_PARTS, map(part_cells, claim.parts), words=_WORDS)

    def heads_table(self) -> Table:
        """All heads and controls, best probe first, for a terminal."""
        from headsearch.results.tables import text_table

        return text_table(_HEADS, map(_head_cells, self.claims.heads), words=_WORDS)

    def to_markdown(self) -> str:
        """The page."""
        found = self.claims
        sections = [f"# Does the paper's idea hold here?\n\n{self._what()}"]
        sections.append("\n".join(f"- **{claim.verdict}**: {claim.claim}." for claim in found.claims))
        for claim in found.claims:
            sections.append(f"## {claim.claim.partition(':')[0]}: {claim.verdict}")
            sections.append(markdown_table(_PARTS, map(part_cells, claim.parts)))
            sections.extend(self._remarks(claim))
        searched = sum(head.searched for head in found.heads)
        sections.append("## All heads and controls")
        sections.append(markdown_table(_HEADS, map(_head_cells, found.heads)))
        sections.append(
            f"Probe: k-NN accuracy of the frozen base in percent, mean ± standard deviation between seeds. Differences are in points; their 95% intervals hold "
            f"for all {searched} heads at once (Bonferroni), one control at a time. Screen: the place in the order of the screen without labels."
        )
        if found.left_out:
            listed = "\n".join(f"- {head}: {reason}" for head, reason in found.left_out.items())
            sections.append(f"Left out, without figures:\n\n{listed}")
        sections.append("## What this cannot show\n\n" + "\n".join(f"- {limit}" for limit in LIMITS))
        sections.append(
            f"`holds`: a 95% interval above 0. `does not hold`: one that ends below {RELEVANT_POINTS} points, or below tau {RELEVANT_TAU}. Otherwise there is not enough "
            "data to tell. The runs are in `heads/` and `screen/`: `headsearch rank`, `audit`, `report` and `dashboard` open them. All figures: `claims.json`."
        )
        return "\n\n".join(sections) + "\n"

    def _what(self) -> str:
        run = self.described
        noise, noted = self.claims.noise, "the noise between seeds is not known"
        if noise is not None:
            noted = f"the standard deviation between seeds of one head is {noise.deviation:.2f} points ({noise.df} degrees of freedom)"
        return (
            f"{run['base']['model']} (its own kind: {self.family}), {run['data']['dataset']} at {run['data']['image_size']} pixels, {run['method']['name']}, "
            f"{run['proxy']['epochs']} epochs, space {run['space']}, {run['seeds']} seed{'s' if run['seeds'] > 1 else ''} of every head and control; {noted}."
        )

    def _remarks(self, claim: Claim) -> Iterable[str]:
        found = self.claims
        if claim.name == "pairs":
            yield (
                "The average is over all heads of another architecture, none of them chosen by its score. The part about the MLP head shows whether the gain is more than that of "
                "a deeper projector. It does not decide the verdict."
            )
            others = [head for head in found.heads if head.kind == "other" and head.searched]
            if others:
                yield _beaten(others)
        if claim.name == "search" and found.choices:
            yield markdown_table(_CHOICES, map(_choice_cells, found.choices))
            yield (
                "Regret: the best head of all minus the best of the heads taken, in points. The best of all was picked after looking, so its mean is partly luck. The "
                "interval allows for this, but the number does not. Random: the expected regret of as many heads taken at random. As good: the chance that they do as well. "
                "So few picks may be luck, which is why the agreement of the orders counts too."
            )


_PARTS = ("question", "value", "95%", "verdict", "would do")
_HEADS = ("head", "kind", "seeds", "discr.", "probe %", *(f"over {name}" for name in CONTROLS), "screen")
_CHOICES = ("taken", "heads", "regret", "95%", "random", "as good")
_WORDS = ("question", "verdict", "would do", "head", "kind")
"""Columns that hold no numbers."""


def part_cells(part: Part) -> list[str]:
    """A part of a claim as a row of text: question, value, interval, verdict, how much more would do."""
    how = "+.1f" if part.unit == "points" else "+.2f"
    unit = "" if part.unit == "points" else "tau "
    value = UNKNOWN if part.value is None else f"{unit}{part.value:{how}}"
    verdict = part.verdict + ("" if part.decides else " (does not decide)")
    return [part.name, value, _interval(part.low, part.high, how), verdict, _would_do(part)]


def _would_do(part: Part) -> str:
    if part.verdict != UNCLEAR:
        return ""
    if part.enough is None and part.missing is None and part.unit == "points":
        return f"more than {MOST_SEEDS:,} seeds"
    if part.enough is None:
        return part.missing or UNKNOWN
    return f"about {part.enough} {'seeds' if part.unit == 'points' else 'heads'}"


def _beaten(others: Sequence[HeadFigures]) -> str:
    told = []
    for control in CONTROLS:
        known = [head.over[control] for head in others if control in head.over]
        better = sum(estimate.low is not None and estimate.low > 0.0 for estimate in known)
        worse = sum(estimate.high is not None and estimate.high < 0.0 for estimate in known)
        if known:
            told.append(f"`{control}`: {better} better, {worse} worse")
    return (
        f"By themselves, of {len(others)} heads of another architecture, over {'; '.join(told)}; with intervals that hold for all heads at once. "
        f"The best of them, {others[0].head_id}, was picked after looking."
    )


def _head_cells(head: HeadFigures) -> list[str]:
    name = head.head_id if head.control is None else f"{head.head_id} (control {head.control})"
    deviation = "" if head.probe_sd is None else f" ±{head.probe_sd:.1f}"
    return [
        "none (control)" if head.kind is None else name,
        UNKNOWN if head.kind is None else head.kind,
        str(head.seeds),
        number(head.discrepancy, ".2f"),
        f"{head.probe:.1f}{deviation}",
        *(_difference(head.over.get(control)) for control in CONTROLS),
        number(head.place, "d"),
    ]


def _choice_cells(choice: Choice) -> list[str]:
    taken = "the first" if choice.picks == 1 else f"the best of the first {choice.picks}"
    lost = [f"{choice.regret.value:.1f}", _interval(choice.regret.low, choice.regret.high, ".1f")]
    chance = [f"{choice.random:.1f}", f"{100.0 * choice.as_good:.0f}%"]
    return [taken, ", ".join(choice.chosen), *lost, *chance]


def _difference(estimate: Estimate | None) -> str:
    return UNKNOWN if estimate is None else gain(estimate.value, estimate.low, estimate.high)


def _interval(low: float | None, high: float | None, how: str) -> str:
    return UNKNOWN if low is None or high is None else f"{low:{how}} to {high:{how}}"
