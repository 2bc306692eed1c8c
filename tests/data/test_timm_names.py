"""timm's data sets, on small local copies in the layouts their libraries expect. Nothing is downloaded."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import pickle
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import CIFAR10

from headsearch.data.collection import Request
from headsearch.data.decode import RGB
from headsearch.data.load import load_data
from headsearch.data.sets import Dataset, MemoryImages
from headsearch.data.timm_names import _sequential
from headsearch.errors import DataError

RANDOM = np.random.default_rng(0)


def load(dataset: str, root: Path | None, **options: object) -> Dataset:
    settings = {"image_size": 28, "labels": "probe", "seed": 0} | options
    return load_data(dataset, root=None if root is None else str(root), **settings)  # type: ignore[arg-type]


def pixels_of(data: Dataset) -> torch.Tensor:
    assert isinstance(data.train, MemoryImages)
    return data.train.images


def write_mnist(root: Path) -> NDArray[np.uint8]:
    folder = root / "MNIST/raw"
    folder.mkdir(parents=True)
    images = RANDOM.integers(0, 256, (30, 28, 28), dtype=np.uint8)
    for split, count in (("train", 30), ("t10k", 12)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pictures = folder / f"{split}-images-idx3-ubyte"
        pictures.write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + images[:count].tobytes())
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, count) + labels.tobytes()
        )
        for file in (pictures, folder / f"{split}-labels-idx1-ubyte"):
            (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    return images


def test_mnist(tmp_path: Path) -> None:
    images = write_mnist(tmp_path)
    data = load("torch/mnist", tmp_path)
    assert (len(data.train), len(data.held_out), data.canvas) == (30, 12, 28)
    assert data.classes is not None
    assert data.classes[3] == "3 - three"
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [number % 10 for number in range(30)]
    np.testing.assert_array_equal(pixels_of(data)[:, 1].numpy(), images)
    unlabelled = load("torch/mnist", tmp_path, labels="none")
    assert unlabelled.train.labels is unlabelled.held_out.labels is unlabelled.classes is None


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    images = RANDOM.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)

    def write(name: str, content: dict[str, object]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    batch = {"data": images.reshape(6, -1), "labels": [0, 1, 2, 3, 4, 9]}
    # The layout and the code are torchvision's; only the checksums it expects are those of the small files.
    monkeypatch.setattr(CIFAR10, "train_list", [[n, write(n, batch)] for n, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [[n, write(n, batch)] for n, _ in CIFAR10.test_list])
    names = {"label_names": ["airplane", *"bcdefghi", "truck"]}
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": write("batches.meta", names)})
    data = load("torch/cifar10", tmp_path, image_size=32)
    assert (len(data.train), len(data.held_out), data.canvas) == (30, 6, 32)
    assert data.classes is not None
    assert (data.classes[0], data.classes[9]) == ("airplane", "truck")
    np.testing.assert_array_equal(pixels_of(data)[6:12].numpy(), images)


@pytest.mark.parametrize("splits", [("train", "val"), ("train",), ()])
def test_torchvisions_image_folder(tmp_path: Path, splits: tuple[str, ...]) -> None:
    for split in splits or ("",):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(10):
                Image.new("RGB", (30, 28), (number, 0, 0)).save(tmp_path / split / name / f"{number}.png")
    data = load("torch/image_folder", tmp_path)
    assert (len(data.train), len(data.held_out)) == ((20, 20) if "val" in splits else (16, 4))
    assert data.classes == ["cat", "dog"]


def test_what_is_not_there_gets_one_line(tmp_path: Path) -> None:
    for dataset, root, message in [
        ("torch/cifar10", tmp_path, "no 'torch/cifar10' in .*CIFAR10.*download=True"),
        ("torch/cifar10", None, "needs the folder that holds it"),
        ("torch/image_folder", tmp_path / "gone", "cannot open 'torch/image_folder'"),
        ("torch/image_folder", tmp_path, "cannot open"),
    ]:
        with pytest.raises(DataError, match=message) as error:
            load(dataset, root)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("dataset", "package"),
    [("hfds/x", "datasets"), ("tfds/x", "tensorflow_datasets"), ("wds/x", "webdataset")],
)
def test_a_missing_package_is_named(
    dataset: str, package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(DataError, match=f"needs the package {package}"):
        load(dataset, tmp_path)
    assert capsys.readouterr().out == ""


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 28), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def test_webdataset(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    splits = {}
    for split, count in (("train", 40), ("validation", 6)):
        with tarfile.open(tmp_path / f"{split}-0.tar", "w") as archive:
            for number in range(count):
                for suffix, content in (("png", png(number)), ("cls", str(number % 4).encode())):
                    entry = tarfile.TarInfo(f"{number:03}.{suffix}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
        splits[split] = {
            "name": split,
            "num_samples": count,
            "filenames": [f"{split}-0.tar"],
            "shard_lengths": [count],
        }
    (tmp_path / "info.json").write_text(json.dumps({"splits": splits}))
    data = load("wds/any", tmp_path)
    assert (len(data.train), len(data.held_out)) == (40, 6)
    assert pixels_of(data)[:, 0, 0, 0].tolist() == list(range(40))
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [number % 4 for number in range(40)]
    with pytest.raises(DataError, match="has more than 4 images, too many to keep"):
        load("wds/any", tmp_path, memory_limit=4 * 3 * 28 * 28)


def test_hugging_face(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    for split, count in (("train", 30), ("test", 6)):
        for number in range(count):
            (tmp_path / "repo" / split / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            (tmp_path / "repo" / split / "ab"[number % 2] / f"{number:02}.png").write_bytes(png(number))
    data = load(f"hfds/{tmp_path}/repo", tmp_path / "cache")
    assert (len(data.train), len(data.held_out)) == (30, 6)
    assert data.classes == ["a", "b"]
    assert data.train.labels is not None
    first = pixels_of(data)[:, 0, 0, 0] % 2
    assert torch.equal(first.long(), data.train.labels)


def test_a_sequential_data_set_that_breaks_off_is_told_in_one_line() -> None:
    def items() -> Iterator[tuple[Image.Image, int]]:
        yield Image.new("RGB", (8, 8)), 0
        raise struct.error("unpack\nrequires a buffer")

    with pytest.raises(DataError, match="'wds/x train' cannot be read to its end: unpack requires a buffer"):
        _sequential(items(), "wds/x train", Request(None, True, "val", 8, 10**6, RGB))
