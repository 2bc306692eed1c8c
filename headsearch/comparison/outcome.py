"""The table of a comparison and its verdict: mean scores by arm, gains over no head with their intervals, and what they cost. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from headsearch.comparison.plan import NONE, VERSION, ComparisonPlan
from headsearch.files import versions
from headsearch.results.noise import blocked_noise
from headsearch.results.text import gain, markdown_table, result_html

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


@dataclass(frozen=True)
class ArmScore:
    """One probe of one arm, in percent or points; unknown is None."""

    by_seed: tuple[float, ...]
    mean: float
    sd: float | None
    """Standard deviation between seeds."""
    gain: float | None
    """Gain over no head; None for the control itself."""
    gain_low: float | None
    """Lower end of the 95% interval for this arm and probe alone; `gain_high` is the upper end."""
    gain_high: float | None


@dataclass(frozen=True)
class ArmRow:
    """One arm."""

    arm: str
    epochs: int
    scores: Mapping[str, ArmScore]
    """Scores by probe."""
    seconds: float
    """Training time, mean over seeds."""
    images_per_second: float
    """Training throughput, mean over seeds."""
    checks_passed: bool | None
    """Whether a detector can be trained on every base; None if that was not requested."""


@dataclass(frozen=True)
class Comparison:
    """The outcome of `headsearch compare`."""

    plan: ComparisonPlan
    rows: tuple[ArmRow, ...]
    verdict: str

    def to_json(self) -> str:
        """Everything, as text."""
        content = {
            "comparison": VERSION,
            "versions": versions(),
            "plan": self.plan.to_dict(),
            "rows": [asdict(row) for row in self.rows],
            "verdict": self.verdict,
        }
        return json.dumps(content, indent=2, allow_nan=False)

    def to_markdown(self) -> str:
        """The table and the verdict, as a page."""
        header, *rows = self.cells()
        table = markdown_table(header, rows)
        return f"# With and without a head\n\n{self.verdict}\n\n{table}\n\n{self.notes}\n"

    def to_table(self) -> Table:
        """The same for a terminal."""
        from headsearch.results.tables import text_table

        header, *rows = self.cells()
        return text_table(header, rows, words=("probe", "head"))

    def table(self) -> pd.DataFrame:
        """The scores as a pandas table: a row per probe and arm, with the fields of `ArmScore`. Unknown is missing."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "probe": probe,
                    "arm": row.arm,
                    **asdict(score),
                    "epochs": row.epochs,
                    "seconds": row.seconds,
                }
                for row in self.rows
                for probe, score in row.scores.items()
            ]
        )

    def __repr__(self) -> str:
        return f"<headsearch.Comparison: {self.verdict}>"

    def _repr_html_(self) -> str:
        header, *rows = self.cells()
        return result_html("With and without a head", [self.verdict, self.notes], header, rows, names=2)

    def cells(self) -> Iterator[list[str]]:
        """The table's header and rows as text, probe by probe."""
        yield ["probe", "head", "%", "gain [95%]", "epochs", "time", "images/s"]
        for probe in self.rows[0].scores:
            for row in self.rows:
                cost = str(row.epochs), f"{row.seconds:,.0f} s", f"{row.images_per_second:,.0f}"
                yield [probe if row is self.rows[0] else "", row.arm, *_shown(row.scores[probe]), *cost]

    @property
    def notes(self) -> str:
        """What the numbers are, in a sentence or two."""
        seeds = self.plan.seeds
        common = "the same epochs" if self.plan.budget == "epochs" else "about the same training time"
        return (
            f"Percent, mean ± standard deviation over {seeds} seed{'s' if seeds > 1 else ''}; all arms have {common}. "
            "Gains are over the arm `none` with the same seed: the same start, batches and views."
        )


def summarised(plan: ComparisonPlan, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> Comparison:
    """The comparison from the record of every training, by arm in the order of the seeds."""
    probes = list(records[NONE][0]["scores"])
    scores = {
        probe: {arm: [record["scores"][probe] for record in records[arm]] for arm in records}
        for probe in probes
    }
    by_probe = {probe: _scores(scores[probe]) for probe in probes}
    rows = []
    for arm, trained in records.items():
        of_arm = {probe: by_probe[probe][arm] for probe in probes}
        time, speed = (fmean(record[name] for record in trained) for name in ("seconds", "images_per_second"))
        rows.append(ArmRow(arm, trained[0]["epochs"], of_arm, time, speed, _passed(trained)))
    verdict = judged(probes[0], scores[probes[0]]) if probes else "Nothing was scored."
    return Comparison(plan, tuple(rows), verdict)


def judged(probe: str, scores: Mapping[str, Sequence[float]]) -> str:
    """Whether any head beats no head in one probe, in one sentence; the intervals hold for all heads at once (Dunnett).

    `scores` are those of every arm by seed, the control `none` first.
    """
    control, *heads = scores
    gains = {head: fmean(scores[head]) - fmean(scores[control]) for head in heads}
    best = max(gains, key=lambda head: gains[head])
    noise = blocked_noise(list(scores.values()))
    seeds = len(scores[control])
    if noise is None:
        why = "one seed shows no noise" if seeds == 1 else "the seeds show no noise"
        return f"Cannot tell whether a head beats no head in {probe}: {why}; {best} reads {gains[best]:+.1f} points."
    low, high = noise.interval(gains[best], seeds, seeds, [seeds] * len(heads))
    adjusted = f", adjusted for {len(heads)} heads" if len(heads) > 1 else ""
    shown = f"{gains[best]:+.1f} points, 95% interval {low:.1f} to {high:.1f}{adjusted}, {seeds} seeds"
    if low > 0:
        return f"{best} beats no head in {probe}: {shown}."
    if high < 0:
        return f"Every head is worse than no head in {probe}: the best, {best}, reads {shown}."
    return f"No head is shown to beat no head in {probe}: the best, {best}, reads {shown}."


def _scores(by_arm: Mapping[str, Sequence[float]]) -> dict[str, ArmScore]:
    noise = blocked_noise(list(by_arm.values()))
    control = fmean(by_arm[NONE])
    found = {}
    for arm, values in by_arm.items():
        over = None if arm == NONE else fmean(values) - control
        bounds: tuple[float, float] | tuple[None, None] = (None, None)
        if over is not None and noise is not None:
            bounds = noise.interval(over, len(values), len(values))
        deviation = stdev(values) if len(values) > 1 else None
        found[arm] = ArmScore(tuple(values), fmean(values), deviation, over, *bounds)
    return found


def _passed(records: Sequence[Mapping[str, Any]]) -> bool | None:
    checks = [check["passed"] for record in records for check in record["detection"]]
    return all(checks) if checks else None


def _shown(score: ArmScore) -> tuple[str, str]:
    mean = f"{score.mean:.1f}" + ("" if score.sd is None else f" ±{score.sd:.1f}")
    return mean, "" if score.gain is None else gain(score.gain, score.gain_low, score.gain_high)
