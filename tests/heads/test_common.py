"""Ratios of widths have one canonical form per number of channels."""

from hypothesis import given
from hypothesis import strategies as st

from headsearch.heads.common import canonical_ratio, exact_ratio, hidden_width


@given(st.integers(4, 2048), st.floats(0.5, 16.0), st.floats(0.5, 16.0))
def test_ratios_share_a_canonical_form_exactly_when_they_give_the_same_channels(
    width: int, one: float, other: float
) -> None:
    def hidden(ratio: float) -> int:
        return hidden_width(width, ratio)

    first, second = (canonical_ratio(ratio, hidden, low=0.5) for ratio in (one, other))
    assert hidden(first) == hidden(one)
    assert (first == second) == (hidden(one) == hidden(other))
    assert canonical_ratio(first, hidden, low=0.5) == first
    assert 0.5 <= first <= 16.0


@given(st.integers(4, 256), st.floats(0.5, 16.0))
def test_neighbouring_ratios_with_the_same_channels_share_a_form(width: int, ratio: float) -> None:
    channels = hidden_width(width, ratio)
    sibling = max(0.5, (channels + 0.25) / width)
    forms = {canonical_ratio(r, lambda x: hidden_width(width, x), low=0.5) for r in (ratio, sibling)}
    assert len(forms) == 1


@given(st.integers(1, 4096), st.integers(1, 8192))
def test_exact_ratio_gives_back_the_channels_whatever_the_rounding(width: int, hidden: int) -> None:
    assert hidden_width(width, exact_ratio(width, hidden)) == hidden
