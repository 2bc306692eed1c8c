"""What is known of a head without training it, as plain data, and the file that a stage keeps it in. No torch here.

`zero_cost.jsonl` holds JSON lines: first an object that names the format and what the scores were made with, then one object per head, in the order in
which they were scored. It is written whole and renamed, so a killed stage leaves a readable file and can go on from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headsearch.errors import RunError
from headsearch.files import checked, load_json, write_atomically, writing
from headsearch.heads import HeadConfig, parse_head
from headsearch.heads.cost import HeadCost
from headsearch.scoring.score import head_score

FILE_NAME = "zero_cost.jsonl"
"""Within a run directory."""
FORMAT = "headsearch/zero-cost@1"

CKA_MEASURES = tuple(
    f"cka.{samples}.{side}" for samples in ("embedding", "tokens") for side in ("output", "change")
)
"""The discrepancies that are measured."""
MEASURED = (*CKA_MEASURES, "retrieval.head", "rankme_head")
"""What is measured of every head."""
BASELINES = ("synflow", "naswot")
"""What others have published, measured where it is asked for."""
ORDERS = ("score", *MEASURED, *BASELINES)
"""What heads can be ordered by."""


@dataclass(frozen=True)
class ZeroCostScores:
    """A head at random initialisation: means over seeds. Unknown is None or absent, never 0 or NaN."""

    head_id: str
    """Of the canonical config."""
    config: HeadConfig
    """Canonical for the base."""
    seeds: int
    """How many initialisations of base and head the means are over. A funnel leaves the heads that do badly with the first at that."""
    cost: HeadCost | None = None
    """Parameters and FLOPs; None for a head that the base cannot carry."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Discrepancies by name, those in `CKA_MEASURES` that are defined."""
    quality: Mapping[str, float] = field(default_factory=dict)
    """`retrieval.head`: how often, in percent, the head's embedding finds the other view of an image."""
    rankme_head: float | None = None
    """Effective rank of the head's embeddings."""
    synflow: float | None = None
    """ln(1 + synaptic flow) (Tanaka et al. 2020); None unless asked for."""
    naswot: float | None = None
    """Log-determinant of the kernel of activation codes (Mellor et al. 2021); None unless asked for."""
    sd: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation over seeds of everything above, by the names in `ORDERS`; empty with a single seed."""
    reason: str | None = None
    """Why there are no scores: with some seed the head cannot be built, is not finite, or has collapsed."""

    @property
    def score(self) -> float | None:
        """The default order: `headsearch.scoring.score.head_score` of the means."""
        return head_score(self.measures, self.quality)

    @property
    def without_baselines(self) -> bool:
        """Whether the baselines may still be computed: there is none yet, and the head has scores."""
        return self.reason is None and self.synflow is None and self.naswot is None

    @property
    def measured(self) -> dict[str, float]:
        """Everything that is known and is a mean, by its name in `ORDERS`."""
        values = {name: self.value(name) for name in (*MEASURED, *BASELINES)}
        return {name: value for name, value in values.items() if value is not None}

    def value(self, name: str) -> float | None:
        """The score of one of `ORDERS`."""
        if name in CKA_MEASURES:
            return self.measures.get(name)
        return self.quality.get(name) if "." in name else getattr(self, name)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            **vars(self),
            "config": self.config.to_dict(),
            "cost": None if self.cost is None else asdict(self.cost),
            "measures": dict(self.measures),
            "quality": dict(self.quality),
            "sd": dict(self.sd),
            "score": self.score,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ZeroCostScores:
        """The inverse of `to_dict`, except that the score is computed anew: the file may be older than the formula.

        Raises:
            HeadError: an unknown head.
            KeyError, TypeError, ValueError: this is not what `to_dict` gave.
        """
        return checked(cls, {**data, "config": parse_head(data["config"], recorded=True)})


def ordered(rows: Iterable[ZeroCostScores], by: str = "score") -> list[ZeroCostScores]:
    """The heads, best first by one of `ORDERS`, larger being better; those without that score come last, by name."""

    def place(row: ZeroCostScores) -> tuple[bool, float, str]:
        value = row.value(by)
        return value is None, 0.0 if value is None else -value, row.head_id

    return sorted(rows, key=place)


def read_scores(path: Path, identity: str | None = None) -> list[ZeroCostScores]:
    """The heads in the file.

    `identity` is what the scores must have been made with; None takes any.

    Raises:
        RunError: the file cannot be read, or holds scores made otherwise.
    """
    about, rows, problems = _read(path)
    if problems:
        raise RunError(problems[0])
    if identity is not None and about.get("identity") != identity:
        raise RunError(
            f"{path}: holds scores of another base, other images or other seeds; remove it, or choose another file"
        )
    return rows


def readable_scores(path: Path) -> tuple[list[ZeroCostScores], list[str]]:
    """The heads in the file that can be read, and what cannot, one line each; nothing where there is no file."""
    return _read(path)[1:] if path.exists() else ([], [])


_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def _read(path: Path) -> tuple[dict[str, Any], list[ZeroCostScores], list[str]]:
    """What the file says about itself, the heads in it that can be read, and what cannot, one line each."""
    try:
        header, *lines = path.read_text(encoding="utf-8").split("\n")
        about = load_json(header)
        if not isinstance(about, dict) or about.get("zero_cost") != FORMAT:
            raise ValueError(f"expected a first line with zero_cost: {FORMAT}")
    except _UNREADABLE as error:
        return {}, [], [f"{path}: cannot be read: {' '.join(str(error).split())}"]
    rows, problems = [], []
    for number, line in enumerate(lines, start=2):
        if line.strip():
            try:
                rows.append(ZeroCostScores.from_dict(load_json(line)))
            except _UNREADABLE as error:
                problems.append(f"{path}: line {number} cannot be read: {' '.join(str(error).split())}")
    return about, rows, problems


def write_scores(path: Path, rows: Sequence[ZeroCostScores], identity: str) -> None:
    """Replace the file. `identity` says what the scores were made with, for `read_scores`.

    Raises:
        RunError: the file cannot be written; the former one is then still there.
    """
    lines = [{"zero_cost": FORMAT, "identity": identity}, *(row.to_dict() for row in rows)]
    with writing(path):
        write_atomically(path, "".join(f"{json.dumps(line, allow_nan=False)}\n" for line in lines))
