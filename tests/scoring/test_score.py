"""The order of heads without labels and training."""

import pytest

from headsearch.scoring.score import head_score


def test_the_larger_token_discrepancy_times_retrieval() -> None:
    quality = {"retrieval.head": 40.0, "retrieval.base": 90.0}
    shortcut = {"cka.tokens.output": 0.1, "cka.tokens.change": 0.6, "cka.embedding.output": 0.9}
    assert head_score(shortcut, quality) == pytest.approx(0.24)
    assert head_score({"cka.tokens.output": 0.5, "cka.tokens.change": 0.2}, quality) == pytest.approx(0.2)


def test_what_lacks_a_part_has_no_score() -> None:
    measures = {"cka.tokens.output": 0.1, "cka.tokens.change": 0.6}
    assert head_score(measures, {}) is None
    assert head_score({"cka.tokens.output": 0.1}, {"retrieval.head": 40.0}) is None
    assert head_score(measures, {"retrieval.head": 0.0}) == 0.0
