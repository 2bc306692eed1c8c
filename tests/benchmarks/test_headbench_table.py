"""HeadBench holds every score of every training once, and reads back what was written."""

import gzip
from pathlib import Path

import pandas as pd
import pytest
from headbench.making import COLUMNS, collect, write_headbench
from headbench.table import need_parts, read_headbench

from headsearch.errors import RunError
from headsearch.scoring.zero_cost_scores import FILE_NAME
from headsearch.testing.toy_search import run_toy, score_toys, toy_experiment, toy_materials


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("bench")
    run_toy(folder / "proxies", toy_experiment(trials=3, finalists=3, replicates=2))
    run_toy(folder / "screen", toy_experiment(strategy="screen", screen={"heads": 4}, replicates=2))
    (folder / "untrained").mkdir()
    space = toy_materials(toy_experiment()).space
    score_toys(space, 5, folder / "untrained" / FILE_NAME, lambda done, total: None, seed=0)
    return folder


def test_every_rung_of_every_training_is_a_row(folder: Path) -> None:
    table = collect(folder)
    assert tuple(table.columns) == COLUMNS
    proxies = table[table["part"] == "proxies"]
    # Three heads and three controls, two seeds each, of `none` a third, three rungs.
    assert len(proxies) == (6 * 2 + 1) * 3
    assert not proxies.duplicated(["head_id", "replicate", "epoch"]).any()
    assert set(proxies["control"].dropna()) == {"none", "same", "mlp"}
    assert (table["part"] == "screen").sum() == 4 * 2 * 2
    untrained = table[table["part"] == "untrained"]
    assert len(untrained) == 5
    assert (untrained["epoch"] == 0).all()
    assert untrained["params"].notna().all()


def test_scores_are_those_of_the_trials(folder: Path) -> None:
    from headsearch.runs.run import read_records

    table = collect(folder)
    table = table[table["part"] == "proxies"]
    for record in read_records(folder / "proxies"):
        rows = table[(table["head_id"] == record.head_id) & (table["replicate"] == record.replicate)]
        assert rows["knn"].to_list() == [rung.knn for rung in record.rungs]
        assert rows["seed"].to_list() == [record.seed] * len(record.rungs)
        if record.control != "none":
            column = rows["cka.embedding.output"].to_list()
            assert column == [rung.measures["cka.embedding.output"] for rung in record.rungs]


def test_what_is_written_reads_back_to_six_digits_and_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    table = collect(folder)
    path = tmp_path / "bench.csv.gz"
    write_headbench(path, table)
    again = read_headbench(path)
    assert len(again) == len(table)
    assert again["knn"].to_numpy(float) == pytest.approx(table["knn"].to_numpy(float), rel=1e-5, nan_ok=True)
    assert set(again["control"].dropna()) == {"none", "same", "mlp"}
    first = path.read_bytes()
    write_headbench(path, again)
    assert path.read_bytes() == first


def test_a_table_of_version_1_is_read_and_a_later_one_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.csv.gz"
    first = collect(folder).drop(columns=["version", "miou"])
    first.to_csv(path, index=False)
    old = read_headbench(path)
    assert (old["version"] == 1).all()
    assert old["miou"].isna().all()
    write_headbench(path, old)
    new = read_headbench(path)
    assert (new["version"] == 2).all()
    pd.testing.assert_series_equal(new["knn"], old["knn"], rtol=1e-5)
    new.assign(version=3).to_csv(path, index=False)
    with pytest.raises(RunError, match="has version 3 of HeadBench; this reads 1 to 2"):
        read_headbench(path)


def test_a_folder_without_parts_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no part of a HeadBench"):
        collect(tmp_path)
    other = tmp_path / "other.csv.gz"
    other.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(RunError, match="no column part"):
        read_headbench(other)
    other.write_bytes(b"no gzip")
    with pytest.raises(RunError, match="cannot be read"):
        read_headbench(other)
    with pytest.raises(RunError, match="cannot be read"):
        read_headbench(tmp_path / "none.csv.gz")


def test_a_part_that_is_not_there_is_named(folder: Path) -> None:
    table = collect(folder)
    need_parts("bench", table, "proxies", "screen")
    with pytest.raises(
        RunError, match=r"bench: has no part long; .*make_headbench.py makes it \(--parts long screen-all\)"
    ):
        need_parts("bench", table, "proxies", "long", "screen-all")


def test_every_row_has_the_score_of_its_measures(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.csv.gz"
    write_headbench(path, collect(folder))
    table = read_headbench(path)
    screen = table[table["part"] == "screen"]
    different = screen["cka.embedding.output"]
    assert screen["score"].to_numpy() == pytest.approx(different * screen["retrieval.head"] / 100)
    assert table.loc[table["control"] == "none", "score"].isna().all()
