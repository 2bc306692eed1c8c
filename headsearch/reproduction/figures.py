"""What a reproduction finds: claims with the parts that decide them, heads, and choices. Plain data; unknown is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from headsearch.reproduction.contrasts import Estimate, Verdict
from headsearch.results.noise import Noise
from headsearch.results.records import finite

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
