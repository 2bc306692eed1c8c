"""The table of a run holds every score of every trial, once."""

from dataclasses import replace
from pathlib import Path

from headsearch.heads.config import HeadConfig
from headsearch.runs.frame import curves
from headsearch.search.session import conduct
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import toy_experiment, toy_materials
from headsearch.training.trial import RungScores


class WithQuality(ToyEvaluator):
    """The toy objective with a measure of quality."""

    def scores(self, config: HeadConfig, epoch: int, seed: int, *, final: bool = False) -> RungScores:
        found = super().scores(config, epoch, seed, final=final)
        return replace(found, quality={"retrieval.base": 10.0 * epoch})


def test_every_rung_of_every_training_is_a_row(tmp_path: Path) -> None:
    experiment = toy_experiment(trials=3, finalists=1, replicates=2)
    records = conduct(experiment, toy_materials(experiment), tmp_path / "run").records
    table = curves(tmp_path / "run")
    trained = [record for record in records if record.state != "duplicate"]
    assert len(table) == sum(len(record.rungs) for record in trained)
    for record in trained:
        rows = table[table["number"] == record.number]
        assert list(rows["epoch"]) == [rung.epoch for rung in record.rungs]
        assert rows["loss"].to_list() == [rung.loss for rung in record.rungs]
    control = table[table["control"] == "none"]
    assert control["discrepancy"].isna().all()


def test_measures_and_qualities_are_columns_of_their_own(tmp_path: Path) -> None:
    experiment = toy_experiment(trials=1, finalists=0, replicates=1)
    conduct(experiment, toy_materials(experiment, WithQuality()), tmp_path / "run")
    table = curves(tmp_path / "run")
    assert list(table["retrieval.base"]) == list(10.0 * table["epoch"])
    assert not {"measures", "quality"} & set(table.columns)
    head = table[table["discrepancy"].notna()]
    assert list(head["cka.embedding.output"]) == list(head["discrepancy"])
