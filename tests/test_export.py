"""`head.yaml`: written from a search on the toy objective, read back, and refused when it was tampered with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from headsearch.errors import HeadError, RunError
from headsearch.export import export_head, load_head, read_head
from headsearch.results.ranking import rank
from headsearch.runs.run import read_records
from headsearch.search.session import conduct
from headsearch.testing.toy_search import TOY_BASE, toy_experiment, toy_materials


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    experiment = toy_experiment(trials=4, finalists=2, replicates=2)
    return conduct(experiment, toy_materials(experiment), tmp_path_factory.mktemp("export") / "run").directory


def test_the_file_holds_the_head_its_scores_and_where_they_come_from(run: Path, tmp_path: Path) -> None:
    written = export_head(run, tmp_path / "head.yaml")
    assert read_head(tmp_path / "head.yaml") == written
    records = read_records(run)
    best = next(row for row in rank(records, labels=True, target_epochs=300) if row.rank == 1)
    assert written.head_id == best.head_id
    assert written.scores["gain"] == best.gain
    assert written.scores["gain_low"] == best.gain_low
    assert written.provenance.trials == [r.number for r in records if r.head_id == best.head_id]
    assert len(written.provenance.trials) == 2
    assert written.base.base_info() == TOY_BASE


def test_every_rank_and_every_head_can_be_taken(run: Path, tmp_path: Path) -> None:
    rows = rank(read_records(run), labels=True, target_epochs=300)
    for row in rows:
        if row.rank is not None:
            assert export_head(run, tmp_path / "head.yaml", rank=row.rank).head_id == row.head_id
    same = next(row for row in rows if row.control == "same")
    assert export_head(run, tmp_path / "head.yaml", head_id=same.head_id).head_id == same.head_id


def test_the_file_loads_as_the_module_it_describes(run: Path, tmp_path: Path) -> None:
    import torch

    from headsearch.scoring.cost import head_cost

    written = export_head(run, tmp_path / "head.yaml")
    head = load_head(tmp_path / "head.yaml")
    feature_map = torch.randn(2, TOY_BASE.width, *TOY_BASE.grid)
    assert head(feature_map).shape == feature_map.shape
    counted = sum(parameter.numel() for parameter in head.parameters())
    assert counted == head_cost(head.config, TOY_BASE).params
    assert head.config.to_dict() == written.config


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (lambda data: data.update(colour="red"), "unknown key 'colour'"),
        (lambda data: data.pop("method"), "method"),
        (lambda data: data["base"]["info"].update(width="wide"), "base.info.width"),
        (lambda data: next(iter(data["config"].values())).update(depth=7), "head_id says"),
        (lambda data: next(iter(data["config"].values())).update(depht=7), "depht"),
        (lambda data: data.update(config={"convnet": {}}), "did you mean 'convnext'"),
        (lambda data: data.update(head="headsearch/head@9"), "head"),
    ],
    ids=[
        "field added",
        "section gone",
        "wrong type",
        "other depth",
        "other key",
        "other family",
        "other version",
    ],
)
def test_a_file_that_was_changed_by_hand_is_refused(
    tamper: Callable[[dict[str, Any]], object], expected: str, run: Path, tmp_path: Path
) -> None:
    file = tmp_path / "head.yaml"
    export_head(run, file)
    data = yaml.safe_load(file.read_text())
    tamper(data)
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(HeadError) as caught:
        load_head(file)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1", "just text", "!!python/object/apply:os.system ['true']"])
def test_what_is_no_head_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "head.yaml").write_text(text)
    with pytest.raises(HeadError, match=r"head\.yaml"):
        read_head(tmp_path / "head.yaml")


def test_a_file_that_cannot_be_written_leaves_nothing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        export_head(run, tmp_path / "no" / "such" / "folder" / "head.yaml")
    assert list(tmp_path.iterdir()) == []
