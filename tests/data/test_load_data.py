"""`load_data` from end to end: splits, labels, statistics, memory or streaming, and what bad input gets."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from headsearch.data.collection import cut, held_out_count
from headsearch.data.digits import _HELD_OUT
from headsearch.data.load import check_probe, load_data, pixel_statistics
from headsearch.data.sets import Dataset, MemoryImages, StreamedImages
from headsearch.data.sources import FileSource
from headsearch.errors import DataError, LabelsMissing


def load(dataset: str, root: Path | None = None, **options: object) -> Dataset:
    settings = {"image_size": 16, "labels": "probe", "seed": 0} | options
    return load_data(dataset, root=None if root is None else str(root), **settings)  # type: ignore[arg-type]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 24, 20, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        folder = tmp_path / ("cat", "dog", "eel")[number % 3]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return tmp_path


def test_digits_are_split_in_the_shares_of_their_classes() -> None:
    target, held_out = load_digits().target, []
    by_class = defaultdict(list)
    for index, label in enumerate(target):
        by_class[label].append(index)
    quotas = {label: len(rows) * 517 / 1797 for label, rows in by_class.items()}
    counts = {label: int(quota) for label, quota in quotas.items()}
    for label in sorted(quotas, key=lambda label: counts[label] - quotas[label])[
        : 517 - sum(counts.values())
    ]:
        counts[label] += 1
    for label, rows in by_class.items():
        rows.sort(key=lambda row: hashlib.blake2b(f"0:{row}".encode(), digest_size=16).digest())
        held_out += rows[: counts[label]]
    assert sorted(held_out) == [row for row in range(1797) if _HELD_OUT >> row & 1]


def test_digits() -> None:
    data = load("digits")
    assert (len(data.train), len(data.held_out), data.canvas) == (1280, 517, 16)
    assert data.classes == list("0123456789")
    assert isinstance(data.train, MemoryImages)
    assert isinstance(data.held_out, MemoryImages)
    assert data.train.images.shape == (1280, 3, 16, 16)
    everything = {image.numpy().tobytes() for image in data.train.images}
    assert not everything & {image.numpy().tobytes() for image in data.held_out.images}
    kept = np.array([not _HELD_OUT >> row & 1 for row in range(1797)])
    assert data.train.labels is not None
    np.testing.assert_array_equal(data.train.labels.numpy(), load_digits().target[kept])
    small = torch.nn.functional.interpolate(
        torch.from_numpy(load_digits().images[kept])[:, None], size=16, mode="bilinear"
    )
    assert (data.train.images[:, :1] - small * 255 / 16).abs().max() <= 1.5
    assert load("digits", seed=5).train.labels.equal(data.train.labels)  # type: ignore[union-attr]


@pytest.mark.parametrize("dataset", ["digits", "folder"])
def test_without_labels_there_is_no_label_and_the_same_images_are_held_out(dataset: str, pets: Path) -> None:
    root = pets if dataset == "folder" else None
    labelled, unlabelled = load(dataset, root), load(dataset, root, labels="none")
    assert unlabelled.train.labels is unlabelled.held_out.labels is unlabelled.classes is None
    assert isinstance(labelled.held_out, MemoryImages)
    assert isinstance(unlabelled.held_out, MemoryImages)
    assert torch.equal(labelled.held_out.images, unlabelled.held_out.images)


@pytest.mark.parametrize(
    ("count", "held"), [(10, 2), (1000, 200), (5000, 1000), (8000, 1000), (50_000, 5000)]
)
def test_a_tenth_is_held_out_or_the_lesser_of_a_thousand_and_a_fifth(count: int, held: int) -> None:
    assert held_out_count(count) == held


def test_the_cut_depends_on_seed_and_name_alone() -> None:
    source = FileSource(Path(), [f"{number}.png" for number in range(500)])
    train, held_out = cut(source, 0)
    assert sorted(train + held_out) == list(range(500))
    assert len(held_out) == 100
    assert cut(source, 0) == (train, held_out)
    assert cut(source, 1) != (train, held_out)
    backwards = FileSource(Path(), source.files[::-1])
    assert {backwards.files[row] for row in cut(backwards, 0)[1]} == {source.files[row] for row in held_out}


def test_a_folder_is_cut_decoded_and_labelled(pets: Path) -> None:
    data = load("folder", pets)
    assert (len(data.train), len(data.held_out)) == (48, 12)
    assert data.classes == ["cat", "dog", "eel"]
    assert data.canvas == 18
    assert isinstance(data.train, MemoryImages)
    assert data.train.labels is not None
    names = sorted((path.parent.name, path) for path in pets.rglob("*.png"))
    first = next(
        row
        for row in range(60)
        if row in cut(FileSource(pets, [str(p.relative_to(pets)) for _, p in names]), 0)[0]
    )
    expected = np.asarray(
        Image.open(names[first][1]).crop((0, 2, 20, 22)).resize((18, 18), Image.Resampling.BILINEAR)
    )
    np.testing.assert_allclose(data.train.images[0].int(), expected.transpose(2, 0, 1), atol=2)
    assert data.classes[int(data.train.labels[0])] == names[first][0]


def test_memory_and_streaming_give_the_same_images_labels_and_statistics(pets: Path) -> None:
    kept, streamed = load("folder", pets), load("folder", pets, memory_limit=1000)
    assert isinstance(kept.train, MemoryImages)
    assert isinstance(streamed.train, StreamedImages)
    for one, other in [(kept.train, streamed.train), (kept.held_out, streamed.held_out)]:
        first = list(one.batches(7, generator=torch.Generator().manual_seed(1)))
        second = list(other.batches(7, generator=torch.Generator().manual_seed(1)))
        assert all(
            torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, second, strict=True)
        )
        assert one.labels is not None
        assert other.labels is not None
        assert torch.equal(one.labels, other.labels)
    assert (kept.mean, kept.std) == (streamed.mean, streamed.std)


def test_progress_ends_at_the_number_of_images(pets: Path) -> None:
    seen: list[tuple[int, int]] = []
    load("folder", pets, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (60, 60)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_broken_files_are_left_out_and_named(pets: Path) -> None:
    (pets / "cat/00.png").write_bytes(b"\x89PNG broken")
    (pets / "dog/empty.jpg").touch()
    data = load("folder", pets)
    assert len(data.train) + len(data.held_out) == 59
    assert sorted(data.left_out.unreadable) == ["cat/00.png", "dog/empty.jpg"]
    assert data.left_out.told()[0].startswith("2 files left out, cannot be read: cat/00.png (")


@pytest.mark.parametrize("memory_limit", [0, 2**30])
@pytest.mark.parametrize(("broken", "refused"), [(11, False), (12, True), (60, True)])
def test_a_fifth_of_unreadable_files_is_refused_unless_accepted(
    pets: Path, memory_limit: int, broken: int, refused: bool
) -> None:
    files = sorted(pets.rglob("*.png"))
    for number in range(broken):
        file = files[number * 60 // broken]
        file.write_bytes(file.read_bytes()[:200])
    settings = {"memory_limit": memory_limit, "labels": "none"}
    if memory_limit == 0 and broken < 60:
        # Only the training part is looked at before: which are broken there is left to chance.
        data = load("folder", pets, unreadable="accept", **settings)
        assert 0 < len(data.left_out) <= broken
        return
    if not refused:
        data = load("folder", pets, **settings)
        assert len(data.train) + len(data.held_out) == 60 - broken
        assert f"{broken} files left out" in data.left_out.told()[0]
        assert f"and {broken - 3} more" in data.left_out.told()[0]
        assert len(data.left_out.listed().splitlines()) == broken
        return
    with pytest.raises(DataError, match=r"cannot be read: .* set data.unreadable to accept") as error:
        load("folder", pets, **settings)
    assert str(error.value).count(".png") == 3
    if broken < 60:
        assert len(load("folder", pets, unreadable="accept", **settings).train) > 0


def test_what_was_understood_is_one_line(pets: Path) -> None:
    assert load("folder", pets).understood() == (
        "data: folder: 48 images to train on, 12 held out; folders; 3 classes (cat, dog, eel)"
    )
    (pets / "Val").mkdir()
    for name in ("cat", "eel"):
        (pets / "Val" / name).mkdir()
        Image.new("RGB", (8, 8)).save(pets / "Val" / name / "1.png")
    assert load("folder", pets, labels="none").understood() == (
        "data: folder: 60 images to train on, 2 held out; training in the other folders, held out in 'Val'; no labels"
    )


def test_a_linear_probe_needs_a_class_with_two_images(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}/x.png")
    with pytest.raises(LabelsMissing, match=r"needs a class with two images .* data.labels to none"):
        check_probe(load("folder", tmp_path))
    check_probe(load("folder", tmp_path, labels="none"))
    for name in ("y", "z"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"0/{name}.png")
    check_probe(load("folder", tmp_path))


def test_the_home_folder_may_be_written_as_a_tilde(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(pets.parent))
    assert len(load("folder", Path("~") / pets.name).train) == 48
    np.savez(pets / "x.npz", images=np.zeros((9, 8, 8), dtype=np.uint8))
    assert len(load("npz", Path("~") / pets.name / "x.npz", labels="none").train) == 8
    with pytest.raises(DataError, match="no folder '~nobody-here/x'"):
        load("folder", Path("~nobody-here/x"))


@pytest.mark.parametrize("name", ["pics 😀", "a b'c", os.fsdecode(b"caf\xe9")])
def test_roots_may_have_any_name(pets: Path, name: str) -> None:
    pets.rename(pets.parent / name)
    assert len(load("folder", pets.parent / name).train) == 48


def test_statistics_agree_with_numpy() -> None:
    images = torch.randint(
        0, 200, (700, 3, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    mean, std = pixel_statistics(images)
    values = images.numpy() / 255
    np.testing.assert_allclose(mean, values.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, values.std(axis=(0, 2, 3)), rtol=1e-9)
    assert pixel_statistics(torch.full((2, 3, 4, 4), 7, dtype=torch.uint8))[1] == (1 / 255,) * 3


def test_bad_input_gets_one_line(tmp_path: Path, pets: Path) -> None:
    single, tiny, broken = tmp_path / "single", tmp_path / "tiny", tmp_path / "broken"
    for number in range(10):
        (single / "only").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(single / f"only/{number}.png")
        (broken / "a").mkdir(parents=True, exist_ok=True)
        (broken / f"a/{number}.png").write_bytes(b"broken")
    for name in ("a", "b"):
        (tiny / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tiny / name / "1.png")
    for dataset, root, options, message in [
        ("digit", None, {}, "unknown data set 'digit'; did you mean 'digits'?"),
        ("torch/cifar11", None, {}, "did you mean 'torch/cifar10'?"),
        ("wds/", None, {}, "names no data set after 'wds/'"),
        ("folder", None, {}, "needs the path of a folder of images"),
        ("npz", None, {}, "needs the path of a .npz file"),
        ("folder", tmp_path / "gone", {}, "no folder"),
        ("folder", single, {}, "one class only"),
        ("folder", tiny, {}, "no held-out images"),
        (
            "folder",
            pets / "cat",
            {"labels": "none", "min_train_images": 256},
            "has 16 images to train on, fewer than the 256 of a batch; expected more, or a smaller batch_size",
        ),
        ("folder", broken, {"labels": "none"}, "10 of 10 files of 'folder' in"),
        ("folder", broken, {"labels": "none", "memory_limit": 0}, "8 of 8 files of 'folder' in"),
        (
            "folder",
            broken,
            {"labels": "none", "unreadable": "accept"},
            "has 0 images to train on, fewer than the 2 needed; 10 files left out, cannot be read: a/",
        ),
        (
            "folder",
            broken,
            {"labels": "none", "unreadable": "accept", "memory_limit": 0},
            "none of 8 images of 'folder' in",
        ),
        ("folder", Path("x" * 5000), {}, "no folder"),
        ("folder", Path("/dev/zero"), {}, "it is a device"),
    ]:
        with pytest.raises(DataError) as error:
            load(dataset, root, **options)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    assert len(load("folder", single, labels="none").train) == 8


def test_names_can_be_checked_without_torch() -> None:
    code = "import headsearch.data, headsearch.data.names, headsearch.data.recipe, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("memory_limit", [2**30, 0])
def test_a_subset_is_balanced_and_the_same_for_whoever_reads_it(pets: Path, memory_limit: int) -> None:
    whole = load("folder", pets, memory_limit=memory_limit)
    some = load("folder", pets, memory_limit=memory_limit, subset=12)
    assert some.train.labels is not None
    assert torch.bincount(some.train.labels).tolist() == [4, 4, 4]
    assert "12 images to train on, 12 held out; folders; a subset of 48 training images" in some.understood()
    for one, other in ((some, load("folder", pets, subset=0.25)), (load("folder", pets, subset=48), whole)):
        assert torch.equal(pixels_of(one), pixels_of(other))
    more = {image.numpy().tobytes() for image in pixels_of(load("folder", pets, subset=24))}
    assert {image.numpy().tobytes() for image in pixels_of(some)} < more, (
        "a smaller subset is part of a larger one"
    )


def test_a_class_that_is_too_small_for_its_share_is_taken_whole(pets: Path) -> None:
    for number in range(3, 60, 3):
        (pets / "cat" / f"{number:02}.png").unlink()
    labels = load("folder", pets, subset=11).train.labels
    assert labels is not None
    assert torch.bincount(labels).tolist() == [1, 5, 5]


def test_without_labels_a_subset_is_drawn_by_the_names_alone(pets: Path) -> None:
    one = load("folder", pets, labels="none", subset=20)
    for folder in ("dog", "eel"):
        (pets / folder).rename(pets / f"{folder}s")
    other = load("folder", pets, labels="none", subset=20)
    assert len(one.train) == len(other.train) == 20
    assert not torch.equal(pixels_of(one), pixels_of(other))


def test_a_subset_that_cannot_be_is_refused_in_a_line(pets: Path) -> None:
    with pytest.raises(
        DataError, match=r"data.subset: .* has 48 images to train on; expected at most that, got 49$"
    ):
        load("folder", pets, subset=49)
    with pytest.raises(DataError, match=r"^data.subset: 5 images are fewer than the 16 of a batch$"):
        load("folder", pets, subset=0.1, min_train_images=16)


def pixels_of(data: Dataset) -> torch.Tensor:
    return torch.cat([batch for batch, _ in data.train.batches(64)])
