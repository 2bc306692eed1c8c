"""Seeds that are handed out by how sure the first head is: the same whoever trains, and whenever a search is interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headsearch.errors import ExperimentError
from headsearch.experiment import Experiment, parse_experiment
from headsearch.results.allocation import further_seeds
from headsearch.runs.run import read_records, read_run
from headsearch.search.observer import Observer, SearchStatus
from headsearch.search.sizing import as_begun
from headsearch.testing.executors import Watcher
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import run_toy, scores, toy_experiment
from headsearch.training.trial import Training

# Noise that is as large as what tells the best heads apart.
NOISY = ToyEvaluator(noise=3.0)


def unsure(**search: Any) -> Experiment:
    asked: dict[str, Any] = {"trials": 8, "sampler": "random", "finalists": 4, "replicates": 4}
    return toy_experiment(seed=3, **(asked | {"certainty": 0.98} | search))


def again(records: Any) -> list[tuple[str, int]]:
    """Further seeds of heads, in the order in which they were trained."""
    return [(r.head_id, r.replicate) for r in records if r.replicate > 0 and r.control is None]


def test_fewer_seeds_are_trained_than_the_bounds_allow_and_none_is_missing(tmp_path: Path) -> None:
    records = run_toy(tmp_path / "run", unsure(), NOISY)
    controls = [r for r in records if r.replicate > 0 and r.control is not None]
    most = max(r.replicate for r in records if r.control is None)
    # √4 times as many of `none` as the finalist has that has most.
    assert len(controls) == 3 + 3 + max(3, 2 * (most + 1) - 1)
    assert 2 < len(again(records)) < 4 * 3
    seeds = further_seeds(records, unsure().search, labels=True)
    assert seeds.complete
    assert set(seeds.wanted) == {(r.head_id, r.replicate) for r in records if r.replicate > 0}
    view = read_run(tmp_path / "run")
    assert view.condition == "ended"
    assert view.settled == view.expected


def test_a_run_of_former_versions_goes_on_with_as_many_seeds_of_none_as_of_other_controls(
    tmp_path: Path,
) -> None:
    run_toy(tmp_path / "run", unsure(replicates_of_none=1), NOISY)
    recorded = tmp_path / "run" / "experiment.yaml"
    text = recorded.read_text(encoding="utf-8")
    recorded.write_text(text.replace("  replicates_of_none: 1\n", ""), encoding="utf-8")
    assert recorded.read_text(encoding="utf-8") != text
    view = read_run(tmp_path / "run")
    assert view.condition == "ended"
    assert view.experiment is not None
    for asked in (view.experiment, as_begun(unsure(), tmp_path / "run")):
        assert len(run_toy(tmp_path / "run", asked, NOISY, resume=True)) == len(view.records)
    more = as_begun(unsure(replicates_of_none=6), tmp_path / "run")
    assert len(run_toy(tmp_path / "run", more, NOISY, resume=True)) == len(view.records) + 2


def test_less_certainty_needs_fewer_seeds(tmp_path: Path) -> None:
    sure = run_toy(tmp_path / "sure", unsure(certainty=0.999), NOISY)
    content = run_toy(tmp_path / "content", unsure(certainty=0.6), NOISY)
    assert len(again(content)) < len(again(sure))
    everything = run_toy(tmp_path / "all", unsure(certainty=1), NOISY)
    assert len(again(everything)) == 4 * 3


def test_two_workers_come_to_the_seeds_of_one(tmp_path: Path) -> None:
    # So few that chance proposes none twice: whether such a head is passed over or answered depends on whether the first is still at work.
    inline = run_toy(tmp_path / "inline", unsure(trials=4), NOISY)
    assert 2 < len(again(inline)) < 4 * 3
    apart = unsure(trials=4, executor={"kind": "process", "workers": 2})
    assert scores(run_toy(tmp_path / "apart", apart, NOISY)) == scores(inline)


@pytest.mark.parametrize("after", [40, 61, 64, 68])
def test_a_search_interrupted_among_further_seeds_ends_as_an_undisturbed_one(
    after: int, tmp_path: Path
) -> None:
    experiment = unsure()
    undisturbed = run_toy(tmp_path / "undisturbed", experiment, NOISY)
    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path / "run", experiment, NOISY, observer=Watcher(interrupt_after=after))
    records = run_toy(tmp_path / "run", experiment, NOISY, resume=True)
    assert [(r.number, r.head_id, r.replicate, r.rungs) for r in records] == [
        (r.number, r.head_id, r.replicate, r.rungs) for r in undisturbed
    ]


def test_a_finished_search_goes_on_when_it_is_to_be_surer(tmp_path: Path) -> None:
    before = run_toy(tmp_path / "run", unsure(certainty=0.6), NOISY)
    after = run_toy(tmp_path / "run", unsure(certainty=0.999), NOISY, resume=True)
    assert after[: len(before)] == before
    assert scores(after) == scores(run_toy(tmp_path / "fresh", unsure(certainty=0.999), NOISY))


def test_what_is_expected_is_the_same_for_who_runs_and_who_looks(tmp_path: Path) -> None:
    out = tmp_path / "run"

    class Looking(Observer):
        def __init__(self) -> None:
            self.seen: list[tuple[int, int | None]] = []

        def training_started(self, training: Training, status: SearchStatus) -> None:
            self.seen.append((status.expected, read_run(out).expected))

    looking = Looking()
    run_toy(out, unsure(), NOISY, observer=looking)
    assert all(told == seen for told, seen in looking.seen)
    assert looking.seen[0][0] > len(looking.seen) == sum(r.state != "duplicate" for r in read_records(out))


@pytest.mark.parametrize("certainty", [0.5, 1.01, "sure"])
def test_a_certainty_that_is_none_is_refused(certainty: object) -> None:
    with pytest.raises(ExperimentError, match=r"search\.certainty"):
        parse_experiment({"search": {"certainty": certainty}})
