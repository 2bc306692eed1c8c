"""The order of heads without labels and training."""

import pytest

from headsearch.scoring.score import head_score


def test_how_different_times_how_good() -> None:
    quality = {"retrieval.head": 40.0, "retrieval.base": 90.0}
    trained = {"procrustes.embedding.output": 0.6, "cka.embedding.output": 0.9, "cka.tokens.output": 0.1}
    assert head_score(trained, quality) == pytest.approx(0.24)


def test_before_training_the_default_discrepancy_stands_in() -> None:
    untrained = {"cka.embedding.output": 0.5, "cka.tokens.output": 0.1}
    assert head_score(untrained, {"retrieval.head": 40.0}) == pytest.approx(0.2)


def test_what_lacks_a_part_has_no_score() -> None:
    measures = {"cka.embedding.output": 0.1, "procrustes.embedding.output": 0.6}
    assert head_score(measures, {}) is None
    assert head_score({"cka.tokens.output": 0.1}, {"retrieval.head": 40.0}) is None
    assert head_score(measures, {"retrieval.head": 0.0}) == 0.0
