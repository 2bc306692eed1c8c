"""Listing image folders: layouts, classes, splits, and what is ignored."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from headsearch.data.folder import folder
from headsearch.data.sources import FileSource
from headsearch.errors import DataError, LabelsMissing


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def files(part: object) -> list[str]:
    source = part.source  # type: ignore[attr-defined]
    assert isinstance(source, FileSource)
    return list(source.files)


def test_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.PNG", "dog/deep/er/a.jpg", "cat/c.webp", "ape/notes.txt")
    found = folder(tmp_path, with_labels=True)
    assert found.classes == ["cat", "dog"]
    assert files(found.train) == ["cat/c.webp", "dog/b.PNG", "dog/deep/er/a.jpg"]
    assert found.train.labels == [0, 1, 1]
    assert found.held_out is None


def test_without_labels_class_folders_are_just_folders(tmp_path: Path) -> None:
    touch(tmp_path, "dog/a.jpg", "cat/b.jpg", "loose.jpg")
    found = folder(tmp_path, with_labels=False)
    assert files(found.train) == ["cat/b.jpg", "dog/a.jpg", "loose.jpg"]
    assert found.train.labels is None
    assert found.classes is None


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_train_and_test_folders(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", f"{name}/b/3.jpg", "README.md")
    found = folder(tmp_path, with_labels=True)
    assert found.held_out is not None
    assert (files(found.train), found.train.labels) == (["train/a/1.jpg", "train/b/2.jpg"], [0, 1])
    assert (files(found.held_out), found.held_out.labels) == ([f"{name}/b/3.jpg"], [1])
    unlabelled = folder(tmp_path, with_labels=False)
    assert unlabelled.held_out is not None
    assert files(unlabelled.held_out) == [f"{name}/b/3.jpg"]
    assert unlabelled.held_out.labels is None


def test_val_goes_before_test(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "test/a/4.jpg")
    found = folder(tmp_path, with_labels=True)
    assert found.held_out is not None
    assert files(found.held_out) == ["val/a/3.jpg"]


def test_a_class_named_train_is_a_class(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "plane/2.jpg", "test/3.jpg")
    assert folder(tmp_path, with_labels=True).classes == ["plane", "test", "train"]


def test_images_beside_class_folders_are_left_out_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "overview.png")
    found = folder(tmp_path, with_labels=True)
    assert files(found.train) == ["a/1.jpg", "b/2.jpg"]
    assert found.skipped == ["overview.png: not in a class folder"]


def test_hidden_files_and_folders_are_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/.2.jpg", ".cache/3.jpg", "__MACOSX/._1.jpg", "b/4.jpg")
    assert folder(tmp_path, with_labels=True).classes == ["a", "b"]


def test_links_to_folders_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "store/1.jpg", "data/b/2.jpg")
    (tmp_path / "data/a").symlink_to(tmp_path / "store")
    (tmp_path / "data/b/up").symlink_to(tmp_path / "data")
    assert files(folder(tmp_path / "data", with_labels=False).train) == ["a/1.jpg", "b/2.jpg"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], "no images in"),
        (["a/notes.txt", ".b/1.jpg"], "no images in"),
        (["1.jpg", "2.jpg"], "needs class folders"),
        (["train/1.jpg", "val/2.jpg"], "needs class folders"),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "test/c/2.jpg"],
            "class folder '.*test/c' has no images in '.*train'",
        ),
    ],
)
def test_unusable_folders_get_one_line(tmp_path: Path, made: list[str], message: str) -> None:
    touch(tmp_path, *made)
    with pytest.raises(DataError, match=message) as error:
        folder(tmp_path, with_labels=True)
    assert "\n" not in str(error.value)


def test_missing_roots_get_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "file.jpg")
    with pytest.raises(DataError, match=r"no folder '.*gone'$"):
        folder(tmp_path / "gone", with_labels=False)
    with pytest.raises(DataError, match="it is a file"):
        folder(tmp_path / "file.jpg", with_labels=False)


def test_missing_labels_keep_their_advice_apart_also_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(LabelsMissing("there are none", "do without")))
    assert (str(error), error.problem) == ("there are none; do without", "there are none")
