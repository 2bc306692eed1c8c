"""Numbers as people read them."""

import pytest

from headsearch.results.text import duration, gain, number, scaled


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (59.4, "59 s"),
        (61, "1 min 01 s"),
        (3599.6, "1 h 00 min"),
        (7384, "2 h 03 min"),
        (-43_200, "-"),
        (float("nan"), "-"),
        (float("inf"), "-"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_unknown_is_a_dash_and_zero_is_not() -> None:
    assert [number(None, ".1f"), scaled(None), gain(None), duration(None)] == ["-"] * 4
    assert [number(0.0, ".1f"), scaled(0), gain(0.0), duration(0)] == ["0.0", "0", "+0.0", "0 s"]
    assert gain(1.25, 0.5, 2.0) == "+1.2 [0.5, 2.0]"
    assert scaled(999_600) == "1M"
