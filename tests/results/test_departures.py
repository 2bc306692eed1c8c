"""How many heads came how far, in one line."""

import pytest

from headsearch.results.departures import Passage


@pytest.mark.parametrize(
    ("passage", "text"),
    [
        (
            Passage(66, 24, 8, 3),
            "66 heads scored untrained → 24 screened jointly → 8 with a proxy of their own → 3 with more seeds",
        ),
        (
            Passage(66, 24, 0, 0),
            "66 heads scored untrained → 24 screened jointly → 0 with a proxy of their own",
        ),
        (Passage(0, 24, 0, 0), "24 screened jointly"),
        (Passage(0, 0, 8, 0), "8 with a proxy of their own"),
    ],
    ids=["funnel", "funnel, in its screen", "screen alone", "proxies alone"],
)
def test_only_stages_that_there_are_have_a_number(passage: Passage, text: str) -> None:
    assert str(passage) == text
