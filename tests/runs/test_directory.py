import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headsearch.errors import RunError
from headsearch.experiment import load_experiment
from headsearch.files import write_atomically
from headsearch.runs.directory import RunDirectory, RunFacts, changed_keys
from headsearch.testing.toy_search import TOY_BASE, toy_experiment

FACTS = RunFacts(study="toy", space_hash="abc", base=TOY_BASE)


def create(path: Path) -> RunDirectory:
    return RunDirectory.create(path, toy_experiment(trials=5), "space: text\n", FACTS)


def test_a_run_directory_holds_what_it_was_made_of(tmp_path: Path) -> None:
    directory = create(tmp_path / "runs" / "mine")
    assert directory.experiment() == toy_experiment(trials=5)
    assert directory.space_path.read_text() == "space: text\n"
    again = RunDirectory.open(tmp_path / "runs" / "mine").facts()
    assert again == FACTS
    assert again.base.grid == (4, 4)
    assert {"python", "torch", "optuna", "timm", "headsearch"} <= set(again.versions)
    assert sorted(path.name for path in directory.path.iterdir()) == [
        "experiment.yaml",
        "run.json",
        "space.yaml",
        "trials",
    ]
    assert [path.name for path in directory.path.parent.iterdir()] == ["mine"]


def test_the_written_experiment_starts_another_run(tmp_path: Path) -> None:
    directory = create(tmp_path / "mine")
    assert load_experiment(directory.path / "experiment.yaml") == toy_experiment(trials=5)


def test_an_existing_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("dear")
    with pytest.raises(RunError, match=r"mine exists; add --resume to continue it, or choose another --out"):
        create(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_an_empty_directory_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert create(tmp_path / "mine").facts() == FACTS


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"runs/mine: cannot be created: No space left on device"):
        create(tmp_path / "runs" / "mine")
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="run: cannot be created: File exists"):
        create(tmp_path / "file" / "run")


def test_opening_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run directory"):
        RunDirectory.open(tmp_path / "nothing")
    with pytest.raises(RunError, match="not a run directory"):
        RunDirectory.open(tmp_path)


def test_a_second_coordinator_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path: Path) -> None:
    directory = create(tmp_path / "mine")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom headsearch.runs.directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).lock():\n    print('locked', flush=True)\n    time.sleep(3600)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(directory.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="another headsearch run is at work on it"), directory.lock():
            pass
    finally:
        holder.kill()
        holder.wait()
    with directory.lock():
        pass


def test_a_search_may_be_extended(tmp_path: Path) -> None:
    directory = create(tmp_path / "mine")
    longer = toy_experiment(trials=50, finalists=7, replicates=9)
    directory.check_resume(longer, "abc")
    directory.extend(longer)
    assert directory.experiment() == longer


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "another seed: 1, it has 0"),
        ({"labels": "none"}, "another data.labels: 'none', it has 'probe'"),
        ({"sampler": "random"}, "another search.sampler: 'random', it has 'tpe'"),
        ({"controls": ["none"]}, "another search.controls"),
        ({"seed": 1, "labels": "none"}, r"it has 'probe' \(and another seed\); choose another --out"),
    ],
)
def test_a_resume_that_would_mix_trials_names_what_changed(
    tmp_path: Path, changed: dict[str, object], named: str
) -> None:
    directory = create(tmp_path / "mine")
    with pytest.raises(RunError, match=named):
        directory.check_resume(toy_experiment(**{"trials": 5, **changed}), "abc")  # type: ignore[arg-type]


def test_a_resume_with_another_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot resume with another space \(hash xyz, the run has abc\)"):
        create(tmp_path / "mine").check_resume(toy_experiment(trials=5), "xyz")


def test_every_section_that_decides_scores_is_compared() -> None:
    before = toy_experiment()
    for section, key, value in (
        ("base", "model", "resnet18"),
        ("base", "kwargs", {"depth": 3}),
        ("data", "image_size", 7),
        ("method", "name", "dino"),
        ("proxy", "learning_rate", 0.5),
    ):
        after = before.model_copy(update={section: getattr(before, section).model_copy(update={key: value})})
        assert [changed[0].split(".")[0] for changed in changed_keys(before, after)] == [section]


def test_a_failed_write_keeps_the_old_text_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.txt"
    write_atomically(file, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
