"""The label-free score: one number for how promising a head is, from what is measured without labels. Pure, and in this place alone.

A head must differ from its base, and see something: a head that differs by being bad teaches nothing. Hence the product of how differently
it represents positions of the feature map and how well it knows another view of an image for the same. A lead from small runs, not a
result (`docs/evidence.md`).
"""

from __future__ import annotations

from collections.abc import Mapping


def label_free_score(measures: Mapping[str, float], quality: Mapping[str, float]) -> float | None:
    """Token-level discrepancy times retrieval of the other view, between 0 and about 1; None where one of them is unknown.

    Of the discrepancies of h(x) and of h(x) - x the larger counts: a shortcut hides a head's difference from the former.
    """
    names = ("cka.tokens.output", "cka.tokens.change")
    known = [measures[name] for name in names if name in measures]
    retrieval = quality.get("retrieval.head")
    if not known or retrieval is None:
        return None
    return max(known) * retrieval / 100.0
