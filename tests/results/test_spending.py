"""Where the time went: sums by hand."""

from dataclasses import replace

import pytest

from headsearch.heads import parse_head
from headsearch.results.records import TrialRecord
from headsearch.results.spending import spending
from headsearch.training.trial import RungScores

FULL = TrialRecord(
    0, "complete", "a", parse_head({"vit": {}}), None, 0, 0,
    tuple(RungScores(epoch, 1.0) for epoch in (3, 9)), None, 18.0, 100.0, None, None,
)  # fmt: skip
STOPPED = replace(FULL, state="stopped", rungs=FULL.rungs[:1], seconds=None, images_per_second=None)
FAILED = replace(FULL, state="failed", rungs=(), seconds=None, images_per_second=None, reason="disk <full>")


def test_epochs_time_and_what_was_saved_add_up_by_hand() -> None:
    records = [
        replace(FULL, number=0, head_id="none", control="none", seconds=9.0),
        replace(FULL, number=1),
        replace(STOPPED, number=2, head_id="b"),
        replace(FAILED, number=3, head_id="c"),
        replace(FULL, number=4, head_id="c", images_per_second=300.0),
        replace(FULL, number=5, state="duplicate", duplicate_of=1, seconds=0.0),
        replace(FULL, number=6, head_id="b", stage="sieve", seconds=5.0),
        replace(FULL, number=7, replicate=1),
    ]
    found = spending(records, budget=9, clock={2: 6.5})
    parts = {part.name: part for part in found.parts}
    assert list(parts) == ["controls", "heads", "sieve", "replicates"]
    heads = parts["heads"]
    assert (heads.trainings, heads.epochs, heads.budget) == (4, 9 + 3 + 0 + 9, 36)
    assert heads.seconds == pytest.approx(18 + 6.5 + 18)
    assert heads.untimed == 1, "the one that failed"
    assert (found.stopped, found.saved_epochs) == (1, 6)
    # What is saved are epochs of proxies; those of another stage take another time.
    per_epoch = (1.0 + 2.0 + 2.0 + 2.0) / 4
    assert found.saved_seconds == pytest.approx(6 * per_epoch)
    assert found.images_per_second == 100.0
    assert found.broken == {"failed: disk <full>": 1}
    assert found.again == 1, "c was trained again after it had failed"
    assert found.duplicates == 1


def test_nothing_spent_is_nothing() -> None:
    found = spending([], budget=9, clock={})
    assert (found.parts, found.seconds, found.epochs, found.saved_seconds) == ((), 0, 0, None)
