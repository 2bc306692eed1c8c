"""The table of a run holds every score of every trial, once."""

from pathlib import Path

from headsearch.results.frame import curves
from headsearch.search.run import conduct
from headsearch.testing.toy_search import toy_experiment, toy_materials


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
