"""Whole funnels and screens on the toy objective: who goes on, what is written down, and what a resume makes of an interruption."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from headsearch.errors import ExperimentError, RunError
from headsearch.experiment import Experiment
from headsearch.experiment.sections import SearchedData
from headsearch.results.departures import departures, passage
from headsearch.results.ranking import rank
from headsearch.results.records import TrialRecord
from headsearch.results.spending import spending
from headsearch.results.standings import standings
from headsearch.runs.run import read_run
from headsearch.scoring.zero_cost_scores import FILE_NAME, read_scores
from headsearch.search.observer import Observer, SearchStatus
from headsearch.search.plan import plan_search
from headsearch.search.sizing import sized_by_time
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import results, toy_experiment, toy_materials
from headsearch.testing.toy_search import run_toy as run
from headsearch.training.trial import Training, TrainingContext, TrainingResult


def funnel(**search: object) -> Experiment:
    asked = {"strategy": "funnel", "candidates": 60, "screen": {"heads": 12}, "trials": 5, "audit": 1}
    return toy_experiment(**{**asked, "finalists": 2, "replicates": 2, **search})


def screened(records: list[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.stage == "screen"]


def proxies(records: list[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.stage == "proxy" and record.state != "duplicate"]


def test_a_funnel_goes_from_candidates_over_a_screen_to_finalists(tmp_path: Path) -> None:
    records = run(tmp_path / "run", funnel())
    candidates = read_scores(tmp_path / "run" / FILE_NAME)
    assert len(candidates) == 60
    joint = screened(records)
    assert len(joint) == 12
    assert len({record.seed for record in joint}) == 1, "one base for all"
    assert Counter(record.state for record in joint) == {"complete": 6, "stopped": 6}
    assert {record.head_id for record in joint} <= {candidate.head_id for candidate in candidates}
    heads = [record for record in proxies(records) if record.control is None and record.replicate == 0]
    assert len(heads) == 5
    best = [standing.candidate.head_id for standing in standings(joint)][:4]
    assert [record.head_id for record in heads][:4] == best
    assert heads[4].head_id not in best
    assert [record.control for record in proxies(records)[:3]] == ["none", "same", "mlp"]
    assert sum(record.replicate == 1 for record in proxies(records)) == 5
    assert str(passage(records, candidates)) == (
        "60 heads scored untrained → 12 screened jointly → 5 with a proxy of their own → 2 with more seeds"
    )


def test_the_better_half_and_every_family_are_screened(tmp_path: Path) -> None:
    records = run(tmp_path / "run", funnel())
    candidates = sorted(read_scores(tmp_path / "run" / FILE_NAME), key=lambda row: -(row.score or 0.0))
    joint = {record.head_id for record in screened(records)}
    assert {candidate.head_id for candidate in candidates[:6]} <= joint
    # Of the others the best of each family, as many as there is room for, those of the better families first.
    best_of = {candidate.config.family: candidate.head_id for candidate in reversed(candidates[6:])}
    families = list(dict.fromkeys(candidate.config.family for candidate in candidates[6:]))
    assert len(families) > 1
    assert {best_of[family] for family in families[:6]} <= joint


def test_no_label_is_read_before_the_proxies(tmp_path: Path) -> None:
    records = run(tmp_path / "run", funnel())
    assert all(rung.knn is None and rung.linear is None for r in screened(records) for rung in r.rungs)
    assert all(record.rungs[-1].knn is not None for record in proxies(records))


def test_every_head_that_left_has_a_stage_and_a_reason(tmp_path: Path) -> None:
    records = run(tmp_path / "run", funnel())
    candidates = read_scores(tmp_path / "run" / FILE_NAME)
    rows = rank(records, by="pareto", labels=True)
    left = departures(records, candidates, rows)
    ranked = {row.head_id for row in rows}
    assert {row.head_id for row in left} | ranked >= {candidate.head_id for candidate in candidates}
    assert len({row.head_id for row in left}) == len(left)
    assert not {row.head_id for row in left} & ranked
    by_stage = Counter(row.stage for row in left)
    assert by_stage["screen"] == 12 - 5
    assert all(row.reason for row in left)
    assert {row.reason.split(" of ")[1] for row in left if row.stage == "zero-cost" and row.reason} == {
        "60 by score before training"
    }


def test_screened_heads_are_pruned_in_the_study_of_proxies_and_complete_in_one_of_their_own(
    tmp_path: Path,
) -> None:
    run(tmp_path / "funnel", funnel())
    run(tmp_path / "screen", toy_experiment(strategy="screen", screen={"heads": 8}, replicates=1))
    for name, expected in (("funnel", {"PRUNED": 12}), ("screen", {"COMPLETE": 4, "PRUNED": 4})):
        study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / name / 'study.db'}")
        joint = [trial for trial in study.trials if trial.user_attrs.get("stage") == "screen"]
        assert Counter(trial.state.name for trial in joint) == expected
    assert len(study.directions) == 1


def test_without_labels_a_funnel_needs_none(tmp_path: Path) -> None:
    experiment = funnel().model_copy(update={"data": funnel().data.model_copy(update={"labels": "none"})})
    records = run(tmp_path / "run", experiment)
    assert all(record.rungs[-1].knn is None for record in records if record.rungs)
    rows = rank(records, by="pareto", labels=False)
    assert sum(row.rank is not None for row in rows) == 5


def test_many_heads_are_screened_in_runs_tied_by_anchors(tmp_path: Path) -> None:
    records = run(tmp_path / "run", funnel(screen={"heads": 20, "batch": 12}))
    runs: dict[int, list[TrialRecord]] = {}
    for record in screened(records):
        runs.setdefault(record.seed, []).append(record)
    assert len(runs) == 2
    for members in runs.values():
        assert len(members) <= 12
        assert [record.control for record in members if record.control] == ["same", "mlp"]
    searched = [record.head_id for record in screened(records) if record.control is None]
    assert len(searched) == len(set(searched)) == 20


def test_a_screen_alone_is_ranked_by_score_and_repeated_with_other_seeds(tmp_path: Path) -> None:
    records = run(tmp_path / "run", toy_experiment(strategy="screen", screen={"heads": 8}, replicates=3))
    assert not proxies(records)
    assert len({record.seed for record in records}) == 3
    rows = rank(records, by="score", labels=False, stage="screen")
    ranked = [row for row in rows if row.rank is not None]
    assert [row.score for row in ranked] == sorted((row.score for row in ranked), reverse=True)
    assert max(row.replicates for row in ranked) == 3


class Interrupting(Observer):
    """Raises Ctrl-C at the n-th thing that is reported or ends."""

    def __init__(self, at: int) -> None:
        self.left = at

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def training_progress(self, *_: object) -> None:
        self._count()

    def training_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
        self._count()

    def training_started(self, training: Training, status: SearchStatus) -> None:
        self._count()


@pytest.mark.parametrize("at", [1, 25, 31, 33, 38, 45, 80])
def test_a_funnel_that_is_interrupted_ends_as_if_it_had_not_been(tmp_path: Path, at: int) -> None:
    experiment = funnel(screen={"heads": 20, "batch": 12})
    undisturbed = results(run(tmp_path / "whole", experiment))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", experiment, observer=Interrupting(at))
    assert results(run(tmp_path / "cut", experiment, resume=True)) == undisturbed


def test_an_extended_funnel_keeps_what_it_has(tmp_path: Path) -> None:
    before = run(tmp_path / "run", funnel(finalists=0, replicates=1))
    after = run(tmp_path / "run", funnel(trials=8, finalists=0, replicates=1), resume=True)
    assert results(after[: len(before)]) == results(before)
    heads = [record for record in proxies(after) if record.control is None]
    assert len({record.head_id for record in heads}) == len(heads) == 8


def test_how_a_head_was_taken_is_written_down_and_outlasts_a_change_of_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The score by which heads were chosen may be replaced: what was chosen stays what it was, also for a search that goes on."""
    experiment = funnel(trials=6, audit=2, finalists=0, replicates=1)
    run(tmp_path / "whole", experiment)
    whole = read_run(tmp_path / "whole")
    assert Counter(whole.taken.values()) == {"best": 4, "chance": 2}
    assert whole.by_chance == {head for head, taken in whole.taken.items() if taken == "chance"}

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", experiment, observer=AfterProxies(2))
    before = read_run(tmp_path / "cut").taken
    assert len(before) == 2
    monkeypatch.setattr("headsearch.results.records.head_score", lambda *_: -1.0)
    for name in ("whole", "cut"):
        run(tmp_path / name, experiment, resume=True)
        after = read_run(tmp_path / name)
        assert Counter(after.taken.values()) == {"best": 4, "chance": 2}
        assert after.by_chance == {head for head, taken in after.taken.items() if taken == "chance"}
        assert "judged by the present score" not in after.audit.sections[0].conclusion
    assert read_run(tmp_path / "whole").taken == whole.taken
    assert after.taken.items() >= before.items()


def test_a_run_that_does_not_say_how_a_head_was_taken_goes_by_the_present_score_and_says_so(
    tmp_path: Path,
) -> None:
    experiment = funnel(trials=6, audit=2, finalists=0, replicates=1)
    run(tmp_path / "run", experiment)
    told = read_run(tmp_path / "run")
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / "study.db")) as database, database:
        database.execute(
            "UPDATE trial_system_attributes SET value_json = json_remove(value_json, '$.taken') WHERE key = 'trial'"
        )
    old = read_run(tmp_path / "run")
    assert set(old.taken.values()) == {None}
    assert old.by_chance == told.by_chance
    assert (
        "2 of the 6 heads with a proxy were taken by chance, judged by the present score"
        in old.audit.sections[0].conclusion
    )
    assert results(run(tmp_path / "run", experiment, resume=True)) == results(list(old.records))


class AfterProxies(Observer):
    """Raises Ctrl-C when so many heads have had their proxy."""

    def __init__(self, heads: int) -> None:
        self.left = heads

    def training_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
        self.left -= sum(record.control is None and record.stage == "proxy" for record in records)
        if self.left == 0:
            raise KeyboardInterrupt


def test_infeasible_heads_of_a_screen_get_no_proxy(tmp_path: Path) -> None:
    records = run(tmp_path / "run", funnel(), ToyEvaluator(failures={"swin": "collapse"}))
    states = {record.config.family: record.state for record in screened(records)}
    assert states["swin"] == "infeasible"
    assert all(record.config.family != "swin" for record in proxies(records) if record.control is None)


def test_a_screen_that_breaks_ends_the_search_and_can_be_resumed(tmp_path: Path) -> None:
    class Breaking(ToyEvaluator):
        def __call__(self, training: Training, context: TrainingContext) -> TrainingResult:
            if training.stage == "screen":
                raise RuntimeError("toy failure")
            return super().__call__(training, context)

    with pytest.raises(
        RunError, match=r"the screen of 12 heads .* gave no result: RuntimeError: toy failure"
    ):
        run(tmp_path / "run", funnel(), Breaking())
    records = run(tmp_path / "run", funnel(), resume=True)
    assert results(records) == results(run(tmp_path / "whole", funnel()))


def test_hours_are_turned_into_sizes_by_how_long_a_proxy_takes_here(tmp_path: Path) -> None:
    notes: list[str] = []

    class Notes(Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    experiment = toy_experiment(strategy="funnel", budget="0.5 h", screen={"epochs": 4})
    # The toy's proxies take 60 s each.
    materials = toy_materials(experiment)
    sized = sized_by_time(experiment, materials, None, Notes())
    assert sized.search == experiment.search.sized(30.0)
    screen, trials = sized.search.screen.heads, sized.search.trials
    assert notes == [
        f"0.5 h are about 30 proxies of 60 s: {screen} heads screened, {trials} with a proxy of their own, "
        f"{sized.search.finalists} finalists with {sized.search.replicates} seeds"
    ]
    records = run(tmp_path / "run", sized)
    # Too many for one training: the anchors in each are no searched heads.
    assert sum(record.control is None for record in screened(records)) == screen
    # A resumed run keeps its sizes, though the machine is faster by now; with more time it gets larger ones.
    faster = replace(materials, seconds_per_proxy=lambda: 20.0)
    resumed = sized_by_time(experiment, faster, tmp_path / "run", Observer()).search
    assert (resumed.trials, resumed.screen) == (trials, sized.search.screen)
    longer = toy_experiment(strategy="funnel", budget="1 h")
    assert sized_by_time(longer, faster, tmp_path / "run", Observer()).search == longer.search.sized(180.0)
    hasty = toy_experiment(strategy="funnel", budget="0.05 h")
    with pytest.raises(
        ExperimentError, match=r"^search.budget: 0.05 h, at 60 s a proxy: .*3 proxies are too few"
    ):
        sized_by_time(hasty, materials, None, Observer())


def test_the_plan_of_a_search_has_the_trainings_that_it_then_has(tmp_path: Path) -> None:
    searches: list[dict[str, Any]] = [
        {"strategy": "funnel"},
        {"strategy": "screen"},
        {"strategy": "proxies", "trials": 5},
        {"strategy": "funnel", "trunk": 9},
    ]
    for number, search in enumerate(searches):
        experiment = toy_experiment(stopping={"kind": "none"}, **search)
        planned = plan_search(experiment, toy_materials(experiment), tmp_path)
        spent = spending(run(tmp_path / str(number), experiment), budget=experiment.proxy.epochs, clock={})
        assert {stage.name: stage.trainings for stage in planned.stages} == {
            part.name: part.trainings for part in spent.parts
        }
        assert [stage.seconds for stage in planned.stages if stage.name != "screen"] == [
            60.0 * part.trainings for part in spent.parts if part.name != "screen"
        ]


def test_a_time_decides_on_how_many_images_the_search_learns_from(tmp_path: Path) -> None:
    experiment = toy_experiment(strategy="funnel", budget="0.1 h")
    experiment = experiment.model_copy(
        update={"data": SearchedData(dataset="digits", image_size=16, subset="auto")}
    )
    # 6 proxies of 60 s on all images: 24 on a quarter of them.
    materials = toy_materials(experiment)
    sized = sized_by_time(experiment, materials, None, Observer())
    assert sized.data.subset == 0.25
    assert sized.search == experiment.search.sized(24.0)
    run(tmp_path / "run", sized)
    faster = replace(materials, seconds_per_proxy=lambda: 1.0)
    assert sized_by_time(experiment, faster, tmp_path / "run", Observer()).data == sized.data
    assert sized_by_time(experiment, faster, None, Observer()).data.subset is None


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"screen": {"heads": 60}}, "search.screen.heads: 60 heads are asked for, and tiny allows"),
        ({"trials": 7, "screen": {"heads": 6}}, r"trials \(7\) must not exceed screen.heads \(6\)"),
        ({"candidates": 5}, r"screen.heads \(12\) must not exceed candidates \(5\)"),
        ({"audit": 5}, r"audit \(5\) must leave some of the trials \(5\)"),
        ({"budget": 4}, "budget: 4 proxies are too few; expected at least 6"),
        ({"budget": "soon"}, "budget: expected a number of proxies, or a time like '2 h 30 min', got 'soon'"),
        ({"strategy": "proxies", "budget": 20}, "budget is for strategy funnel, not proxies"),
        (
            {"screen": {"heads": 12, "batch": 4, "heads_per_step": 6}},
            "heads_per_step .* must not exceed batch",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused_before_anything_is_made(
    tmp_path: Path, search: dict[str, object], message: str
) -> None:
    small = (
        "space: headsearch/space@1\nhead: {mixer: {depth: {int: [1, 4]}, mlp_ratio: {choice: [1, 2, 4]}}}\n"
    )
    with pytest.raises(ExperimentError, match=message.replace("tiny", "toy.yaml")):
        run(tmp_path / "run", funnel(**search), space=small)
    assert not (tmp_path / "run").exists()


def test_sizes_that_nobody_asked_for_shrink_to_the_space(tmp_path: Path) -> None:
    small = (
        "space: headsearch/space@1\nhead: {mixer: {depth: {int: [1, 4]}, mlp_ratio: {choice: [1, 2, 4]}}}\n"
    )
    experiment = toy_experiment(strategy="funnel", finalists=0)
    records = run(tmp_path / "run", experiment, space=small)
    assert len(screened(records)) == 12
    assert len([record for record in proxies(records) if record.control is None]) == 8
