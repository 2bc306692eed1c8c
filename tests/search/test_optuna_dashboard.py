"""What optuna-dashboard is told about a finished search: the answers of its own API."""

from pathlib import Path
from typing import Any

import pytest
from optuna_dashboard import wsgi
from werkzeug.test import Client

from headsearch.results.records import TrialRecord
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import run_toy, toy_experiment

Answer = dict[str, Any]


def detail(storage: str) -> Answer:
    """The only study of a storage, as the dashboard's page gets it."""
    client = Client(wsgi(storage))
    (summary,) = client.get("/api/studies").json["study_summaries"]
    answer = client.get(f"/api/studies/{summary['study_id']}")
    assert answer.status_code == 200
    found: Answer = answer.json
    return found


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Answer, list[TrialRecord]]:
    out = tmp_path_factory.mktemp("shown") / "run"
    experiment = toy_experiment(
        strategy="proxies",
        trials=14,
        finalists=2,
        replicates=2,
        sampler="random",
        stopping={"kind": "asha", "reduction": 2},
    )
    failing = ToyEvaluator(failures={"mixer": "collapse", "vit": "error"})
    records = run_toy(out, experiment, failing)
    return detail(f"sqlite:///{out / 'study.db'}"), records


def of_kind(shown: tuple[Answer, list[TrialRecord]], state: str) -> list[tuple[Answer, TrialRecord]]:
    answer, records = shown
    pairs = [pair for pair in zip(answer["trials"], records, strict=True) if pair[1].state == state]
    assert pairs, f"the search has trials that are {state}"
    return pairs


def attributes(trial: Answer) -> dict[str, str]:
    return {noted["key"]: noted["value"] for noted in trial["user_attrs"]}


def test_objectives_have_names_and_directions(shown: tuple[Answer, list[TrialRecord]]) -> None:
    answer, _ = shown
    assert answer["objective_names"] == ["discrepancy", "probe"]
    assert answer["directions"] == ["maximize", "maximize"]
    assert answer["best_trials"]
    for trial, record in of_kind(shown, "complete"):
        final = record.rungs[-1]
        assert trial["state"] == "Complete"
        assert trial["values"] == [final.discrepancy or 0.0, final.knn]
        assert trial["constraints"] == []


def test_parameters_have_the_names_and_values_of_the_space(shown: tuple[Answer, list[TrialRecord]]) -> None:
    answer, records = shown
    names = {parameter["name"] for parameter in answer["union_search_space"]}
    assert {"family", "convnext.depth", "convnext.kernel_size"} <= names
    for trial, record in zip(answer["trials"], records, strict=True):
        values = {parameter["name"]: parameter["param_external_value"] for parameter in trial["params"]}
        if record.control is not None or record.replicate > 0:
            assert values == {}
        else:
            assert values["family"] == record.config.family
            if "convnext.depth" in values:
                assert values["convnext.depth"] == str(record.config.depth)


def test_attributes_are_few_and_short(shown: tuple[Answer, list[TrialRecord]]) -> None:
    answer, records = shown
    assert {noted["key"] for noted in answer["union_user_attrs"]} == {
        "head_id",
        "control",
        "replicate",
        "reason",
        "knn",
        "linear",
        "gain",
    }
    none = next(record for record in records if record.control == "none")
    first_replicate = min(record.number for record in records if record.replicate > 0)
    for trial, record in zip(answer["trials"], records, strict=True):
        expected = {"head_id": record.head_id}
        if record.control is not None:
            expected["control"] = record.control
        if record.replicate > 0:
            expected["replicate"] = str(record.replicate)
        if record.reason is not None:
            expected["reason"] = record.reason
        found = attributes(trial)
        for key in ("knn", "linear"):
            score = getattr(record.rungs[-1], key) if record.rungs else None
            assert (float(found.pop(key)) if key in found else None) == score
        gain = found.pop("gain", None)
        scored = record.state == "complete" and record.control != "none"
        assert (gain is not None) == scored
        if gain is not None and record.number < first_replicate:
            assert float(gain) == pytest.approx(record.rungs[-1].knn - none.rungs[-1].knn)
        assert found == expected


def test_trials_that_are_infeasible_violate_a_constraint_and_say_why(
    shown: tuple[Answer, list[TrialRecord]],
) -> None:
    for trial, _ in of_kind(shown, "infeasible"):
        assert trial["state"] == "Fail"
        assert trial["constraints"] == [1.0]
        assert attributes(trial)["reason"] == "head embeddings collapsed (standard deviation 0.001)"
    for trial, _ in of_kind(shown, "failed"):
        assert (trial["state"], trial["constraints"]) == ("Fail", [])
        assert attributes(trial)["reason"] == "RuntimeError: toy failure"
    for trial, record in of_kind(shown, "stopped"):
        assert (trial["state"], trial["constraints"]) == ("Pruned", [])
        assert attributes(trial)["reason"] == record.reason


def test_a_journal_is_opened_by_its_path(tmp_path: Path) -> None:
    experiment = toy_experiment(
        strategy="proxies",
        labels="none",
        trials=2,
        finalists=0,
        replicates=1,
        storage=f"journal:///{tmp_path}/study.log",
    )
    records = run_toy(tmp_path / "run", experiment)
    answer = detail(f"{tmp_path}/study.log")
    assert answer["objective_names"] == ["discrepancy"]
    assert [trial["number"] for trial in answer["trials"]] == [record.number for record in records]
