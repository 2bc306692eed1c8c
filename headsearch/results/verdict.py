"""Whether a head helps: one honest sentence, or two, for a whole ranking. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headsearch.results.gains import PROBES, Probe, control_row, noise_of, together, value
from headsearch.results.noise import Noise
from headsearch.results.ranking import long_enough
from headsearch.results.row import RankRow
from headsearch.training.trial import EQUAL_TIME

SCREEN_VERDICT = (
    "Cannot tell whether a head helps: heads were screened without labels, and are ordered by a score that predicts it weakly; "
    "the strategies funnel and proxies can show it."
)
"""The verdict of a run that has nothing but a screen."""


def verdict(rows: Sequence[RankRow], *, tried: int | None = None, target_epochs: int | None = None) -> str:
    """Whether any head beats the control `none`, in one sentence. If the trainings were too short to tell: what they found, and what would tell.

    The best of many heads is partly lucky. Its interval therefore holds for all heads at once (Dunnett), so also for the one that
    happens to be best.

    Args:
        rows: A ranking.
        tried: How many heads the search trained, stopped ones included (`ranking.heads_tried`), since they competed, too. None: the heads in
            `rows`.
        target_epochs: Of the real pretraining; None: the trainings count as long enough.
    """
    heads = [row for row in rows if row.rank is not None]
    if not heads:
        return "Cannot tell: no head finished its full budget."
    probed = [row for row in heads if row.probe is not None]
    if not probed:
        return (
            "Cannot tell whether a head helps: nothing was probed, so heads are ordered by the score alone."
        )
    control = control_row(rows, "none")
    if control is None:
        unusable = next((row for row in rows if row.control == "none"), None)
        why = f" ({unusable.reason})" if unusable is not None and unusable.reason else ""
        return (
            f"Cannot tell whether a head helps: there is no score of the control none to compare with{why}."
        )
    family = together(rows, max(len(heads), tried or 0))
    race = _Race(control, {probe: noise_of(rows, probe) for probe in PROBES}, family)
    if target_epochs is not None and not long_enough(probed[0].epochs, target_epochs):
        return _too_short(rows, probed, race, target_epochs)
    if race.noises["probe"] is None:
        best = max(probed, key=lambda row: race.gain(row))
        return (
            f"Cannot tell whether a head beats no head: there are no replicates that show the noise between seeds; "
            f"{best.head_id} reads {race.shown(best)} points."
        )
    adjusted = f", adjusted for {len(family)} heads" if len(family) > 1 else ""
    epochs = "" if probed[0].epochs is None else f" after {probed[0].epochs} epochs"
    winners = [row for row in probed if race.low(row) > 0]
    if not winners:
        best = max(probed, key=lambda row: race.gain(row))
        return (
            f"No head is shown to beat no head{epochs}: the best, {best.head_id}, gains {race.shown(best)} points by k-NN"
            f"{race.linear(best)} (95% intervals{adjusted}){_equal_time(rows, race, best)}."
        )
    best = max(winners, key=race.low)
    sentence = (
        f"{best.head_id} beats no head by {race.shown(best)} points{epochs} by k-NN{race.linear(best)} (95% intervals{adjusted})"
        f"{_equal_time(rows, race, best)}; "
        f"{len(winners)} of {len(probed)} ranked heads do"
    )
    mlp = control_row(rows, "mlp")
    if mlp is None or mlp.head_id == best.head_id:
        return f"{sentence}."
    against = _Race(mlp, race.noises, family)
    how = "and it beats" if against.low(best) > 0 else "but it is not shown to beat"
    return f"{sentence}, {how} plain MLPs, the control mlp ({against.shown(best)})."


def _too_short(rows: Sequence[RankRow], probed: Sequence[RankRow], race: _Race, target_epochs: int) -> str:
    first = probed[0]
    found = f"{race.shown(first)} points by k-NN{race.linear(first)}"
    if race.noises["probe"] is not None:
        found += (
            f" (95% intervals{f', adjusted for {len(race.family)} heads' if len(race.family) > 1 else ''})"
        )
    found += _equal_time(rows, race, first)
    said = f"{first.head_id} is first by score; after {first.epochs} epochs it gains {found}."
    if first.predicted_gain is not None:
        return (
            f"{said} Predicted for the real pretraining of {target_epochs} epochs: {first.predicted_gain:+.1f} points "
            f"(95% interval {first.predicted_low:.1f} to {first.predicted_high:.1f}){_measured(first)}."
        )
    return (
        f"{said} Whether a head is worth it cannot be told after {first.epochs} of {target_epochs} epochs: "
        "headsearch compare, which trains a head and none in full, can."
    )


def _equal_time(rows: Sequence[RankRow], race: _Race, row: RankRow) -> str:
    """What a head gains over no head that was given the time of the best."""
    control = control_row(rows, EQUAL_TIME)
    if control is None:
        return ""
    against = _Race(control, race.noises, race.family)
    return f", and {against.shown(row)} over no head in equal time, {control.epochs} epochs"


def _measured(row: RankRow) -> str:
    return "" if row.long_gain is None else f"; trained that long once, it gained {row.long_gain:+.1f}"


@dataclass(frozen=True)
class _Race:
    """Heads against one control, with intervals that hold for all of them."""

    control: RankRow
    noises: dict[Probe, Noise | None]
    family: Sequence[int]

    def gain(self, row: RankRow, probe: Probe = "probe") -> float:
        own, other = value(row, probe), value(self.control, probe)
        assert own is not None
        assert other is not None
        return own - other

    def interval(self, row: RankRow, probe: Probe = "probe") -> tuple[float, float] | None:
        noise = self.noises[probe]
        if noise is None:
            return None
        return noise.interval(self.gain(row, probe), row.replicates, self.control.replicates, self.family)

    def low(self, row: RankRow) -> float:
        found = self.interval(row)
        assert found is not None
        return found[0]

    def shown(self, row: RankRow, probe: Probe = "probe") -> str:
        found = self.interval(row, probe)
        gain = f"{self.gain(row, probe):+.1f}"
        return gain if found is None else f"{gain} [{found[0]:.1f}, {found[1]:.1f}]"

    def linear(self, row: RankRow) -> str:
        known = row.linear is not None and self.control.linear is not None
        return f" and {self.shown(row, 'linear')} by the linear probe" if known else ""
