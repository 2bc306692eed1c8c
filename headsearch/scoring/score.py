"""The one number by which heads are ordered where no label and no training decides: how different a head is, times how good.

In one place and pure, because it rests on little evidence so far and is to be replaced when there is more (docs/zero_cost.md). No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping


def head_score(measures: Mapping[str, float], quality: Mapping[str, float]) -> float | None:
    """Larger is better; None where one of its parts is undefined.

        max(cka.tokens.output, cka.tokens.change) · retrieval.head / 100

    The larger of the two discrepancies, since a shortcut hides in h(x) what a head does, and h(x) − x shows it. Retrieval, since noise is
    different, too, and finds nothing.

    Args:
        measures: discrepancies by name, as `headsearch.scoring.names.MEASURES`.
        quality: by name, as `headsearch.scoring.names.QUALITIES`; retrieval in percent.
    """
    different = [measures[name] for name in ("cka.tokens.output", "cka.tokens.change") if name in measures]
    retrieval = quality.get("retrieval.head")
    return max(different) * retrieval / 100.0 if len(different) == 2 and retrieval is not None else None
