"""Whether a head helps: one honest sentence, or two, for a whole ranking. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headsearch.results.gains import Against, Probe, control_row, noises_of, together
from headsearch.results.ranking import long_enough
from headsearch.results.row import RankRow
from headsearch.results.text import epochs, gain
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
    race = Against(control, noises_of(rows), family)
    adjusted = f", adjusted for {len(family)} heads" if len(family) > 1 else ""
    if target_epochs is not None and not long_enough(probed[0].epochs, target_epochs):
        return _too_short(rows, probed[0], race, adjusted, target_epochs)
    best = max(probed, key=lambda row: race.gain(row) or 0.0)
    if race.noises["probe"] is None:
        return (
            f"Cannot tell whether a head beats no head: there are no replicates that show the noise between seeds; "
            f"{best.head_id} reads {_shown(race, best)} points."
        )
    after = "" if probed[0].epochs is None else f" after {epochs(probed[0].epochs)}"
    winners = [row for row in probed if _low(race, row) > 0]
    if not winners:
        return (
            f"No head is shown to beat no head{after}: the best, {best.head_id}, gains {_shown(race, best)} points by k-NN"
            f"{_linear(race, best)} (95% intervals{adjusted}){_equal_time(rows, race, best)}."
        )
    best = max(winners, key=lambda row: _low(race, row))
    sentence = (
        f"{best.head_id} beats no head by {_shown(race, best)} points{after} by k-NN{_linear(race, best)} (95% intervals{adjusted})"
        f"{_equal_time(rows, race, best)}; {len(winners)} of {len(probed)} ranked heads do"
    )
    mlp = control_row(rows, "mlp")
    if mlp is None or mlp.head_id == best.head_id:
        return f"{sentence}."
    against = replace(race, control=mlp)
    how = "and it beats" if _low(against, best) > 0 else "but it is not shown to beat"
    return f"{sentence}, {how} plain MLPs, the control mlp ({_shown(against, best)})."


def _too_short(
    rows: Sequence[RankRow], first: RankRow, race: Against, adjusted: str, target_epochs: int
) -> str:
    found = f"{_shown(race, first)} points by k-NN{_linear(race, first)}"
    if race.noises["probe"] is not None:
        found += f" (95% intervals{adjusted})"
    found += _equal_time(rows, race, first)
    said = f"{first.head_id} is first by score; after {epochs(first.epochs)} it gains {found}."
    if first.predicted_gain is not None:
        measured = (
            "" if first.long_gain is None else f"; trained that long once, it gained {first.long_gain:+.1f}"
        )
        return (
            f"{said} Predicted for the real pretraining of {target_epochs} epochs: {first.predicted_gain:+.1f} points "
            f"(95% interval {first.predicted_low:.1f} to {first.predicted_high:.1f}){measured}."
        )
    return (
        f"{said} Whether a head is worth it cannot be told after {first.epochs} of {target_epochs} epochs: "
        "headsearch compare, which trains a head and none in full, can."
    )


def _equal_time(rows: Sequence[RankRow], race: Against, row: RankRow) -> str:
    """What a head gains over no head that was given the time of the best."""
    control = control_row(rows, EQUAL_TIME)
    if control is None:
        return ""
    return f", and {_shown(replace(race, control=control), row)} over no head in equal time, {control.epochs} epochs"


def _low(race: Against, row: RankRow) -> float:
    return (race.interval(row) or (0.0, 0.0))[0]


def _shown(race: Against, row: RankRow, probe: Probe = "probe") -> str:
    return gain(race.gain(row, probe), *(race.interval(row, probe) or ()))


def _linear(race: Against, row: RankRow) -> str:
    return (
        "" if race.gain(row, "linear") is None else f" and {_shown(race, row, 'linear')} by the linear probe"
    )
