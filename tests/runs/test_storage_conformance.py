"""What every kind of storage must do. A new kind is done when its URL is among those of the fixture `url` and all of this passes."""

import contextlib
import json
import math
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from interrupting import InterruptingInside

from headsearch.errors import RunError
from headsearch.heads import Candidate, HeadConfig, Stage
from headsearch.results.records import TrialRecord
from headsearch.runs.run import read_records
from headsearch.runs.storages import close_storage, open_storage
from headsearch.runs.study import StudyReader
from headsearch.search.ledger import Ledger
from headsearch.search.proposer import Draw
from headsearch.search.stopping import Decision
from headsearch.search.study_writer import make_study
from headsearch.testing.toy import ToyEvaluator, toy_cost
from headsearch.testing.toy_search import TOY_BASE, results, run_toy, toy_experiment
from headsearch.training.trial import RungScores, TrialResult

MANY = 200
"""Trials whose order is looked at."""


@pytest.fixture(params=["sqlite", "journal", "postgresql", "mysql", "grpc"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "sqlite":
            return f"sqlite:///{tmp_path}/studies.db"
        case "journal":
            return f"journal:///{tmp_path}/studies.log"
        case "grpc":
            return str(request.getfixturevalue("proxy").url)
        case server:
            return str(request.getfixturevalue(server).url)


def test_every_end_of_a_trial_is_read_back(url: str, tmp_path: Path) -> None:
    """Trials in every state, with their scores, costs, reasons and the sampler's decisions, are the same to whoever opens the study next."""
    name = _new_name()
    with _ledger(url, name, new=True) as ledger:
        none = ledger.start(Candidate.of(HeadConfig()), seed=2**62 + 1, replicate=0, control="none")
        ledger.report(none.number, _scores(1))
        ledger.end(none.number, _result(HeadConfig()), seconds=1.25, images_per_second=800.0)
        draw = _draw()
        stopped = ledger.start(_head(1), seed=7, replicate=0, draw=draw)
        decision = Decision(stopped.number, 1, (0.25, 61.5), go_on=False)
        ledger.report(stopped.number, _scores(1), decision)
        stopped_at = TrialResult("stopped", (_scores(1),), reason="not among the best 1/3")
        ledger.end(stopped.number, stopped_at, seconds=1.5)
        collapsed = ledger.start(_head(2), seed=8, replicate=1)
        ledger.report(collapsed.number, _scores(1, loss=math.inf))
        reason = "σ der Einbettungen ≈ 0 (崩壊) 🙂 'quoted' \"twice\" \\ %s"
        ledger.end(collapsed.number, TrialResult("infeasible", (_scores(1, loss=math.inf),), reason=reason))
        failed = ledger.start(_head(3), seed=9, replicate=0)
        ledger.end(failed.number, TrialResult("failed", (), reason="x" * 300), seconds=0.0)
        ledger.duplicate(_head(1), ledger.record(stopped.number), draw=draw)
        running = ledger.start(_head(4), seed=10, replicate=0, draw=draw)
        ledger.report(running.number, _scores(1), Decision(running.number, 1, (0.5, 60.0), go_on=True))
        written = list(ledger.records)
    states = ["complete", "stopped", "infeasible", "failed", "duplicate", "running"]
    assert [record.state for record in written] == states
    with _ledger(url, name) as ledger:
        assert _plain(ledger.records) == _plain(written), "another record than the one that was written"
        assert ledger.draw(stopped.number) == draw
        assert ledger.draw(none.number) is None
        assert ledger.decisions(stopped.number) == {1: decision}
        assert ledger.start(_head(5), seed=11, replicate=0).number == len(written)
    with contextlib.closing(StudyReader(tmp_path)) as reader:
        reader.follow(url, name)
        assert _plain(reader.read().records[: len(written)]) == _plain(written)


def test_optuna_sees_states_and_values(url: str, tmp_path: Path) -> None:
    """The study is one that Optuna's own tools understand."""
    import optuna

    name = _new_name()
    with _ledger(url, name, new=True) as ledger:
        complete = ledger.start(_head(1), seed=0, replicate=0, draw=_draw())
        ledger.end(complete.number, _result(_head(1).config), seconds=1.25, images_per_second=800.0)
        collapsed = ledger.start(_head(2), seed=0, replicate=0)
        ledger.end(collapsed.number, TrialResult("infeasible", (), reason="collapsed"))
        ledger.start(_head(3), seed=0, replicate=0)
    storage = open_storage(url)
    study = optuna.load_study(study_name=name, storage=storage)
    assert study.metric_names == ["discrepancy", "probe"]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "RUNNING"]
    assert study.trials[0].values == [0.75, 62.5]
    assert study.trials[0].params == dict(_draw().params)
    assert study.trials[0].datetime_complete is not None
    close_storage(storage)


def test_trials_keep_their_order(url: str, tmp_path: Path) -> None:
    """Many trials that end in another order than they began have consecutive numbers and their own scores."""
    name = _new_name()
    with _ledger(url, name, new=True) as ledger:
        for number in range(MANY):
            record = ledger.start(_head(number), seed=number, replicate=0)
            assert record.number == number
            if number % 10 == 9:
                ledger.end(number, _result(_head(number).config), seconds=1.25, images_per_second=800.0)
                ledger.end(
                    number - 5, _result(_head(number - 5).config), seconds=1.25, images_per_second=800.0
                )
        written = list(ledger.records)
    with _ledger(url, name) as ledger:
        assert [record.number for record in ledger.records] == list(range(MANY))
        assert [record.seed for record in ledger.records] == list(range(MANY))
        assert _plain(ledger.records) == _plain(written)


def test_studies_do_not_mix(url: str, tmp_path: Path) -> None:
    """Two studies that are written in turn keep to themselves, and neither can be made twice."""
    first, second = _new_name(), _new_name()
    with _ledger(url, first, new=True) as one, _ledger(url, second, new=True) as other:
        for number in range(6):
            for ledger, seed in ((one, 100), (other, 200)):
                record = ledger.start(_head(number), seed=seed, replicate=0)
                assert record.number == number, "numbers start at 0 in every study"
                ledger.end(number, _result(_head(number).config), seconds=1.25, images_per_second=800.0)
    for name, seed in ((first, 100), (second, 200)):
        with _ledger(url, name) as ledger:
            assert [record.seed for record in ledger.records] == [seed] * 6
    storage = open_storage(url)
    assert Ledger.exists(storage, first)
    assert not Ledger.exists(storage, _new_name())
    refused = False
    try:
        make_study(storage, first, labels=True, facts={})
    except RunError:
        refused = True
    close_storage(storage)
    assert refused, "a study was made twice"


def test_an_interrupted_search_resumes(url: str, tmp_path: Path) -> None:
    """A search that is interrupted again and again ends with the trials of one that was not."""
    experiment = toy_experiment(
        strategy="proxies", trials=5, finalists=1, replicates=2, sampler="random", storage=url
    )
    undisturbed = run_toy(tmp_path / "undisturbed", experiment)
    sessions = 0
    while True:
        try:
            records = run_toy(
                tmp_path / "run",
                experiment,
                ToyEvaluator(),
                resume=sessions > 0,
                observer=InterruptingInside(31),
            )
        except KeyboardInterrupt:
            sessions += 1
            assert sum(record.state == "running" for record in read_records(tmp_path / "run")) == 1
        else:
            break
    assert sessions >= 2
    assert results(records) == results(undisturbed)
    assert results(read_records(tmp_path / "run")) == results(undisturbed)


@contextlib.contextmanager
def _ledger(url: str, name: str, *, new: bool = False) -> Iterator[Ledger]:
    storage = open_storage(url)
    try:
        if new:
            make_study(storage, name, labels=True, facts={"about": "ein Prüfstand"})
        yield Ledger(storage, name, labels=True)
    finally:
        close_storage(storage)


def _new_name() -> str:
    return f"check-{secrets.token_hex(6)}"


def _head(variant: int) -> Candidate:
    return Candidate.of(HeadConfig((Stage("mixer", {"depth": variant % 4 + 1}),)), TOY_BASE)


def _scores(epoch: int, *, loss: float = 0.1 + 0.2) -> RungScores:
    return RungScores(
        epoch, loss, measures={"cka.embedding.output": 1 / 3}, discrepancy=0.25 * epoch, knn=59.5 + epoch
    )


def _result(config: HeadConfig) -> TrialResult:
    return TrialResult("complete", (_scores(1), _scores(3)), toy_cost(config))


def _draw() -> Draw:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    return Draw(
        params={
            "family": "mixer",
            "mixer.depth": 3,
            "mixer.mlp_ratio": 1 / 3,
            "mixer.first_shortcut": False,
            "x": None,
        },
        distributions={
            "family": CategoricalDistribution(["mixer", "vit"]),
            "mixer.depth": IntDistribution(1, 9, step=2),
            "mixer.mlp_ratio": FloatDistribution(1e-3, 10.0, log=True),
            "mixer.first_shortcut": CategoricalDistribution([False, True]),
            "x": CategoricalDistribution([None, 1, 2.5]),
        },
        sampler_state={"nsga2:generation": 3},
    )


def _plain(records: Sequence[TrialRecord]) -> str:
    """Records as text, where a loss that is not finite equals itself."""
    return json.dumps([record.to_dict() for record in records], sort_keys=True)
