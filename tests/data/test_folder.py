"""Listing image folders: layouts, classes, splits, and what is ignored."""

from __future__ import annotations

import os
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest

from headsearch.data import folder as source
from headsearch.data.collection import Collection, Request, cut
from headsearch.data.sources import FileSource
from headsearch.errors import DataError, LabelsMissing


def folder(path: Path, with_labels: bool, **request: Any) -> Collection:
    return source.folder(Request(str(path), with_labels, **request))


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


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("train", "val"),
        ("train", "valid"),
        ("train", "validation"),
        ("train", "test"),
        ("Train", "Val"),
        ("TRAIN", "TEST"),
        ("training", "validation"),
        ("Training", "Testing"),
        ("train", "dev"),
        ("train2017", "val2017"),
        ("train_set", "test_set"),
        ("training-data", "Eval"),
    ],
)
@pytest.mark.parametrize("stray", [[], ["preview.png", "z.jpg"], ["extra/sub/9.jpg"]])
def test_train_and_held_out_folders(tmp_path: Path, train: str, held_out: str, stray: list[str]) -> None:
    touch(tmp_path, f"{train}/a/1.jpg", f"{train}/b/2.jpg", f"{held_out}/b/3.jpg", "README.md", *stray)
    found = folder(tmp_path, with_labels=True)
    assert found.held_out is not None
    assert found.classes == ["a", "b"]
    assert (files(found.train), found.train.labels) == ([f"{train}/a/1.jpg", f"{train}/b/2.jpg"], [0, 1])
    assert (files(found.held_out), found.held_out.labels) == ([f"{held_out}/b/3.jpg"], [1])
    assert list(found.left_out.beside) == stray
    assert f"training in '{train}', held out in '{held_out}'" in found.layout
    unlabelled = folder(tmp_path, with_labels=False)
    assert unlabelled.held_out is not None
    assert files(unlabelled.train) == files(found.train)
    assert files(unlabelled.held_out) == [f"{held_out}/b/3.jpg"]
    assert unlabelled.held_out.labels is None


def test_val_goes_before_test_unless_test_is_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "Test/a/4.jpg")
    for prefer, expected, other in (("val", "val/a/3.jpg", "Test"), ("test", "Test/a/4.jpg", "val")):
        found = folder(tmp_path, with_labels=True, prefer=prefer)  # type: ignore[arg-type]
        assert found.held_out is not None
        assert files(found.held_out) == [expected]
        assert f"'{other}' not used" in found.layout


def test_splits_are_found_in_a_folder_that_wraps_them(tmp_path: Path) -> None:
    touch(tmp_path, "pets/v2/train/a/1.jpg", "pets/v2/train/b/2.jpg", "pets/v2/val/a/3.jpg", "cover.png")
    for with_labels in (True, False):
        found = folder(tmp_path, with_labels)
        assert found.held_out is not None
        assert files(found.train) == ["pets/v2/train/a/1.jpg", "pets/v2/train/b/2.jpg"]
        assert files(found.held_out) == ["pets/v2/val/a/3.jpg"]
        assert list(found.left_out.beside) == ["cover.png"]
    assert folder(tmp_path, True).classes == ["a", "b"]


def test_splits_are_found_in_every_class_folder(tmp_path: Path) -> None:
    touch(tmp_path, "cat/train/1.jpg", "cat/test/2.jpg", "dog/Train/3.jpg", "dog/x.jpg")
    found = folder(tmp_path, with_labels=True)
    assert found.held_out is not None
    assert (files(found.train), found.train.labels) == (["cat/train/1.jpg", "dog/Train/3.jpg"], [0, 1])
    assert (files(found.held_out), found.classes) == (["cat/test/2.jpg"], ["cat", "dog"])
    assert list(found.left_out.beside) == ["dog/x.jpg"]


def test_a_test_folder_beside_class_folders_is_held_out(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg", "test/cat/3.jpg", "loose.jpg")
    found = folder(tmp_path, with_labels=True)
    assert found.held_out is not None
    assert (files(found.train), found.classes) == (["cat/1.jpg", "dog/2.jpg"], ["cat", "dog"])
    assert (files(found.held_out), found.held_out.labels) == (["test/cat/3.jpg"], [0])
    unlabelled = folder(tmp_path, with_labels=False)
    assert files(unlabelled.train) == ["cat/1.jpg", "dog/2.jpg"]


def test_train_alone_is_a_split_and_images_beside_it_are_strays(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "sheet.png")
    found = folder(tmp_path, with_labels=True)
    assert (found.classes, found.held_out) == (["a", "b"], None)
    assert list(found.left_out.beside) == ["sheet.png"]


def test_test_folders_without_anything_to_train_on_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "val/a/1.jpg", "test/a/2.jpg")
    for with_labels in (True, False):
        with pytest.raises(DataError, match="test and val but no train"):
            folder(tmp_path, with_labels)


def test_a_class_named_train_is_a_class(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "plane/2.jpg", "test/3.jpg")
    assert folder(tmp_path, with_labels=True).classes == ["plane", "test", "train"]


def test_images_beside_class_folders_are_left_out_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "overview.png")
    found = folder(tmp_path, with_labels=True)
    assert files(found.train) == ["a/1.jpg", "b/2.jpg"]
    assert found.left_out.beside == {"overview.png": "not in a class folder"}


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


def test_what_is_no_file_is_left_out_with_the_reason(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "b/[3.jpg")
    os.mkfifo(tmp_path / "a/pipe.png")
    os.mkfifo(tmp_path / "a/pipe")
    (tmp_path / "a/zero.png").symlink_to("/dev/zero")
    (tmp_path / "a/me.png").symlink_to("me.png")
    (tmp_path / "a/gone.png").symlink_to("/no/such/file.png")
    (tmp_path / "c").symlink_to("/no/such/folder")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a/s.png"))
        found = folder(tmp_path, with_labels=True)
    assert files(found.train) == ["a/1.jpg", "b/2.jpg", "b/[3.jpg"]
    reasons = found.left_out.unreadable
    assert sorted(reasons) == ["a/gone.png", "a/me.png", "a/pipe.png", "a/s.png", "a/zero.png", "c"]
    assert reasons["a/pipe.png"] == "a FIFO, not a file"
    assert reasons["a/zero.png"] == "a device, not a file"
    assert reasons["a/s.png"] == "a socket, not a file"
    assert all(
        reasons[name].startswith("a link that leads nowhere") for name in ("a/me.png", "a/gone.png", "c")
    )


def test_names_that_are_no_utf8_are_read_and_shown_escaped(tmp_path: Path) -> None:
    for folder_name in (b"caf\xe9", b"caf\xc3\xa9", "pics \U0001f600".encode()):
        (tmp_path / os.fsdecode(folder_name)).mkdir()
        (tmp_path / os.fsdecode(folder_name) / os.fsdecode(b"\xff.png")).touch()
    found = folder(tmp_path, with_labels=True)
    assert found.classes == ["café", "caf\\udce9", "pics \U0001f600"]
    assert len(cut(found.train.source, 0)[0]) == 3


def test_missing_roots_get_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "file.jpg")
    with pytest.raises(DataError, match=r"no folder '.*gone'$"):
        folder(tmp_path / "gone", with_labels=False)
    with pytest.raises(DataError, match="it is a file"):
        folder(tmp_path / "file.jpg", with_labels=False)


def test_missing_labels_keep_their_advice_apart_also_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(LabelsMissing("there are none", "do without")))
    assert (str(error), error.problem) == ("there are none; do without", "there are none")
