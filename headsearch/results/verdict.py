"""Whether a head helps: one honest sentence for a whole ranking. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from headsearch.results.noise import pooled_noise
from headsearch.results.ranking import RankRow

SCREEN_VERDICT = (
    "Cannot tell whether a head helps: heads were screened without labels, and are ordered by a score that predicts it weakly; "
    "the strategies funnel and proxies can show it."
)
"""What there is to say where nothing but a screen was run."""


def verdict(rows: Sequence[RankRow], *, tried: int | None = None) -> str:
    """Whether any head beats the control `none`, in one sentence.

    The best of many heads is partly lucky. Its interval therefore holds for all heads at once (Bonferroni), so also for the one that
    happens to be best.

    Args:
        rows: A ranking.
        tried: How many heads the search trained, those it stopped early included (`ranking.heads_tried`): they were in the race
            too. None takes the heads in `rows`.
    """
    heads = [row for row in rows if row.rank is not None]
    if not heads:
        return "Cannot tell: no head finished its full budget."
    probed = [row for row in heads if row.probe is not None]
    if not probed:
        return (
            "Cannot tell whether a head helps: nothing was probed, so heads are ordered by discrepancy alone."
        )
    control = next((row for row in rows if row.control == "none"), None)
    if control is None or not control.feasible or control.probe is None:
        why = f" ({control.reason})" if control is not None and control.reason else ""
        return (
            f"Cannot tell whether a head helps: there is no score of the control none to compare with{why}."
        )

    noise = pooled_noise([(row.replicates, row.probe_sd) for row in rows if row.feasible])
    comparisons = max(len(heads), tried or 0)
    if noise is None:
        best = max(probed, key=lambda row: _difference(row, control))
        return (
            f"Cannot tell whether a head beats no head: there are no replicates that show the noise between seeds; "
            f"{best.head_id} reads {_difference(best, control):+.1f} points."
        )

    def interval(row: RankRow, other: RankRow) -> tuple[float, float]:
        return noise.interval(_difference(row, other), row.replicates, other.replicates, comparisons)

    winners = [row for row in probed if interval(row, control)[0] > 0]
    adjusted = "95% interval {:.1f} to {:.1f}" + (
        f", adjusted for {comparisons} heads" if comparisons > 1 else ""
    )
    if not winners:
        best = max(probed, key=lambda row: _difference(row, control))
        shown = adjusted.format(*interval(best, control))
        return f"No head is shown to beat no head: the best, {best.head_id}, gains {_difference(best, control):+.1f} points ({shown})."
    best = max(winners, key=lambda row: interval(row, control)[0])
    shown = adjusted.format(*interval(best, control))
    sentence = (
        f"{best.head_id} beats no head by {_difference(best, control):.1f} points ({shown}); "
        f"{len(winners)} of {len(probed)} ranked heads do"
    )
    mlp = next((row for row in rows if row.control == "mlp" and row.feasible and row.probe is not None), None)
    if mlp is None or mlp.head_id == best.head_id:
        return f"{sentence}."
    low, high = interval(best, mlp)
    how = "and it beats" if low > 0 else "but it is not shown to beat"
    return f"{sentence}, {how} plain MLPs, the control mlp ({_difference(best, mlp):+.1f}, {low:.1f} to {high:.1f})."


def _difference(row: RankRow, other: RankRow) -> float:
    assert row.probe is not None
    assert other.probe is not None
    return row.probe - other.probe
