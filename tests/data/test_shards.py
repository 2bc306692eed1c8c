"""Tar shards of WebDataset: the images of a folder, wherever they lie, and one line for whatever is wrong with them."""

from __future__ import annotations

import io
import json
import re
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image

from headsearch.data.collection import Request
from headsearch.data.load import load_data
from headsearch.data.names import check_data, data_named
from headsearch.data.sets import Dataset, MemoryImages
from headsearch.data.shards import ShardSource, _without_braces, webdataset
from headsearch.errors import DataError, LabelsMissing
from headsearch.testing.sources import check_source

COUNT = 48
SHARD = 10


def jpeg(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Five shards as WebDataset's own writer writes them."""
    folder = tmp_path / "shards"
    folder.mkdir()
    with wds.ShardWriter(str(folder / "pics-%03d.tar"), maxcount=SHARD, verbose=0) as writer:
        for number in range(COUNT):
            writer.write({"__key__": f"{number:04}", "jpg": jpeg(number), "cls": number % 3})
    return folder


def load(root: str | Path, **options: object) -> Dataset:
    settings = {"image_size": 16, "labels": "probe", "seed": 0, "root": str(root)} | options
    return load_data("webdataset", **settings)  # type: ignore[arg-type]


def everything(data: Dataset, **options: object) -> tuple[torch.Tensor, list[int]]:
    """Pixels and class numbers, training images first."""
    sets = [data.train, data.held_out]
    pixels = torch.cat([batch for images in sets for batch, _ in images.batches(7, **options)])  # type: ignore[arg-type]
    return pixels, [int(label) for images in sets if images.labels is not None for label in images.labels]


class _Ranges(SimpleHTTPRequestHandler):
    """A server as those of clouds are: it gives ranges, and a tag that changes with the file."""

    asked: list[str]
    met: threading.Event | None = None
    """The first requests are answered when there are four."""

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        if self.met is not None:
            if len(self.asked) >= 4:
                self.met.set()
            self.met.wait(300)
        self._answer()

    def _answer(self) -> None:
        file = Path(self.translate_path(self.path))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or not file.is_file():
            super().do_GET()
            return
        content = file.read_bytes()
        start, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last - start + 1))
        self.end_headers()
        self.wfile.write(content[start : last + 1])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(shards: Path) -> Iterator[tuple[str, list[str]]]:
    handler = type("Handler", (_Ranges,), {"asked": []})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(shards)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", handler.asked
    httpd.shutdown()
    httpd.server_close()


def test_they_hold_what_webdataset_reads(shards: Path) -> None:
    expected = {
        sample["__key__"]: (sample["jpg"], int(sample["cls"]))
        for sample in wds.WebDataset(sorted(map(str, shards.glob("*.tar"))), shardshuffle=False)
    }
    found = webdataset(Request(str(shards), labels=True))
    source, labels = found.train.source, found.train.labels
    assert isinstance(source, ShardSource)
    assert labels is not None
    assert len(source) == len(expected) == COUNT
    for index in range(COUNT):
        shard, key = source.name(index).split("/")
        assert shard == f"pics-{index // SHARD:03}.tar"
        content, label = expected[key.removesuffix(".jpg")]
        with source.opened(index) as file:
            assert isinstance(file, io.BytesIO)
            assert file.getvalue() == content
        assert labels[index] == label
    assert found.classes == ["0", "1", "2"]


@pytest.mark.parametrize("labels", ["probe", "none"])
def test_addresses_of_every_kind_give_the_same_data_set(
    shards: Path, server: tuple[str, list[str]], labels: str
) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/pics", recursive=True)
    url, _ = server
    roots = [
        str(shards),
        f"{shards}/pics-{{000..004}}.tar",
        f"{shards}/pics-*.tar",
        f"{url}/pics-{{000..004}}.tar",
        "memory://pics/pics-{000..004}.tar",
    ]
    expected, classes = everything(load(shards, labels=labels))
    assert len(classes) == (COUNT if labels == "probe" else 0)
    for root in roots:
        data = load(root, labels=labels)
        assert data.told()[0].startswith("data: webdataset: 39 images to train on, 9 held out; 5 shards")
        assert isinstance(data.train, MemoryImages)
        pixels, found = everything(data)
        assert torch.equal(pixels, expected)
        assert found == classes
    memory.rm("/pics", recursive=True)


def test_a_stream_over_http_is_shuffled_and_resumed_exactly(
    shards: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = server
    monkeypatch.setenv("HEADSEARCH_CORES", "3")
    root = f"{url}/pics-{{000..004}}.tar"
    streamed, kept = load(root, memory_limit=0), load(shards)
    assert not isinstance(streamed.train, MemoryImages)
    order = list(torch.randperm(39, generator=torch.Generator().manual_seed(0)).split(6))
    expected = list(kept.train.read(order))
    for start in (0, 3):
        batches = list(streamed.train.read(order[start:]))
        assert all(torch.equal(one, other) for one, other in zip(batches, expected[start:], strict=True))
    # Two ranks, each with its part of every batch: together they see every image once.
    halves = [list(streamed.train.read([batch[rank::2] for batch in order])) for rank in range(2)]
    for first, second, whole in zip(*halves, expected, strict=True):
        assert torch.equal(first, whole[::2])
        assert torch.equal(second, whole[1::2])


@pytest.mark.parametrize("cached", [False, True])
def test_a_server_is_asked_for_many_images_at_once(
    server: tuple[str, list[str]], tmp_path: Path, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = server
    monkeypatch.setenv("HEADSEARCH_CORES", "1")
    cache = str(tmp_path / "cache") if cached else None
    streamed = load(f"{url}/pics-{{000..004}}.tar", memory_limit=0, cache=cache)
    asked.clear()
    # Asked for one after the other, the first would be given up, and asked for again.
    monkeypatch.setattr(_Ranges, "met", threading.Event())
    for _ in streamed.train.read([torch.arange(39)]):
        pass
    # The statistics have read all of them before.
    assert len(asked) == (0 if cached else 39)
    assert _Ranges.met is not None
    assert _Ranges.met.is_set() is not cached


def test_with_a_cache_shards_are_looked_through_and_images_fetched_once(
    shards: Path, server: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, asked = server
    root, cache = f"{url}/pics-{{000..004}}.tar", str(tmp_path / "cache")
    expected = everything(load(shards))
    assert torch.equal(everything(load(root, cache=cache))[0], expected[0])
    asked.clear()
    again = load(root, cache=cache)
    assert torch.equal(everything(again)[0], expected[0])
    assert everything(again)[1] == expected[1]
    # The canvas is measured on images before they are decoded, 33 of them.
    assert len(asked) <= 33
    for file in Path(cache).glob("shard-*.json"):
        file.write_text("{}")
    assert torch.equal(everything(load(root, cache=cache))[0], expected[0])
    with tarfile.open(shards / "pics-004.tar", "w") as tar:
        add(tar, "0099.jpg", jpeg(99))
        add(tar, "0099.cls", b"1")
    assert len(everything(load(root, cache=cache))[1]) == 41


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("names", "held_out"),
    [
        (["a-train-{}.tar", "a-validation-{}.tar", "a-test-{}.tar"], "val"),
        (["train/{}.tar", "val/{}.tar"], "val"),
        (["training_{}.tar", "test_{}.tar"], "test"),
    ],
)
def test_splits_are_told_by_the_names_of_shards_or_folders(
    tmp_path: Path, names: list[str], held_out: str
) -> None:
    for split, pattern in enumerate(names):
        for shard in range(2):
            path = tmp_path / pattern.format(shard)
            path.parent.mkdir(exist_ok=True)
            with tarfile.open(path, "w") as tar:
                for number in range(8):
                    add(tar, f"{number}.jpg", jpeg(100 * split + 10 * shard + number))
                    add(tar, f"{number}.cls", b"%d" % (number % 2))
    data = load(tmp_path)
    assert (len(data.train), len(data.held_out)) == (16, 16)
    assert f"2 shards to train on, 2 of '{held_out}'" in data.told()[0]


def test_class_numbers_may_be_in_json(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pics.tar", "w") as tar:
        for number in range(20):
            add(tar, f"./x/{number}.json", json.dumps({"label": number % 4, "caption": "a.b"}).encode())
            add(tar, f"./x/{number}.seg.png", b"no image of the set")
            add(tar, f"./x/{number}.JPG", jpeg(number))
    found = webdataset(Request(str(tmp_path / "pics.tar"), labels=True))
    assert found.train.labels == [number % 4 for number in range(20)]
    assert found.train.source.name(3) == "pics.tar/x/3.JPG"


def test_without_class_numbers_only_labels_are_missing(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pics.tar", "w") as tar:
        for number in range(20):
            add(tar, f"{number}.jpg", jpeg(number))
            add(tar, f"{number}.json", b'{"caption": "none"}')
    with pytest.raises(LabelsMissing, match=r"sample '0' of shard '.*/pics.tar' has no class number"):
        load(tmp_path)
    assert len(load(tmp_path, labels="none").train) == 16


@pytest.mark.parametrize("size", [3_000, 5_120, -1024])
def test_a_shard_that_ends_early_is_named_in_one_line(shards: Path, size: int) -> None:
    path = shards / "pics-002.tar"
    content = path.read_bytes()
    if size == -1024:
        # All members are whole, but for the end.
        size = len(content.rstrip(b"\0")) + 511 & ~511
    path.write_bytes(content[:size])
    with pytest.raises(DataError, match=r"shard '.*/pics-002.tar' ends early, after \d+ images") as error:
        load(shards)
    assert "\n" not in str(error.value)


def test_a_broken_image_is_left_out_like_one_of_a_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pics.tar", "w") as tar:
        for number in range(30):
            add(tar, f"{number}.jpg", b"broken" if number == 7 else jpeg(number))
    data = load(tmp_path, labels="none")
    assert (
        data.told()[1] == "1 file left out, cannot be read: pics.tar/7.jpg (not an image of a known format)"
    )
    assert len(data.train) + len(data.held_out) == 29


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ("{folder}/none-{{000..001}}.tar", r"shard '.*none-000.tar' cannot be read: No such file"),
        ("{folder}/*.tgz", r"no .tar files in"),
        (
            "{folder}/other.tar",
            r"shard '.*other.tar' ends early, after 0 images: .*; expected a whole tar file, not compressed",
        ),
        ("{folder}/empty.tar", r"no images to train on in 1 shards"),
        ("{url}/none.tar", r"shard 'http.*none.tar' cannot be read: No such file"),
        ("nfs3://bucket/x.tar", r"'nfs3://bucket/x.tar' cannot be read: Protocol not known: nfs3"),
    ],
)
def test_what_is_no_shard_is_refused_in_one_line(
    tmp_path: Path, server: tuple[str, list[str]], root: str, told: str
) -> None:
    (tmp_path / "other.tar").write_bytes(b"no tar file" * 100)
    tarfile.open(tmp_path / "empty.tar", "w").close()
    with pytest.raises(DataError, match=told) as error:
        load(root.format(folder=tmp_path, url=server[0]))
    assert "\n" not in str(error.value)


def test_a_file_system_with_errors_of_its_own_is_refused_in_one_line() -> None:
    class Locked(fsspec.AbstractFileSystem):
        """As s3fs without credentials: what it raises is no `OSError`."""

        def ls(self, path: str, detail: bool = True, **_: object) -> list[dict[str, object]]:
            raise RuntimeError("Unable to locate\ncredentials")

    fsspec.register_implementation("locked", Locked)
    for root in ("locked://pics", "locked://pics/*.tar", "locked://pics/a.tar"):
        with pytest.raises(
            DataError, match=f"'{re.escape(root)}' cannot be read: Unable to locate credentials$"
        ):
            load(root)


def test_data_that_is_an_address_or_a_tar_file_is_shards() -> None:
    for root in ("s3://pics/{000..127}.tar", "pics/a.tar", "https://x.org/a.tar?b=1"):
        assert data_named(root) == {"dataset": "webdataset", "root": root}
        check_data("webdataset", root)
    with pytest.raises(DataError, match=r"webdataset' needs the path of a folder of .tar files"):
        check_data("webdataset", None)


def test_an_address_with_a_password_is_refused_and_not_shown() -> None:
    root = "https://me:secret@example.org/{000..127}.tar"
    for check in (lambda: check_data("webdataset", root), lambda: load(root)):
        with pytest.raises(DataError, match="holds a password") as error:
            check()
        assert "secret" not in str(error.value)
    check_data("webdataset", "https://example.org/a:b@c.tar")


def test_an_image_that_is_too_large_is_not_fetched(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pics.tar", "w") as tar:
        for number in range(20):
            add(tar, f"{number}.jpg", jpeg(number))
    huge = tarfile.TarInfo("99.jpg")
    huge.size = 3 * 2**30
    with (tmp_path / "pics.tar").open("r+b") as file:
        file.seek(-(file.seek(0, 2) - last_member(tmp_path / "pics.tar")), 2)
        file.write(huge.tobuf())
        file.seek(huge.size, 1)
        file.write(b"\0" * 1024)
    data = load(tmp_path, labels="none")
    assert "pics.tar/99.jpg (3.0 GiB, more than 1)" in data.told()[1]


def last_member(path: Path) -> int:
    """Where the end mark of a tar file begins."""
    with tarfile.open(path) as tar:
        tar.getmembers()
        return tar.offset


def test_braces_stand_for_numbers_and_words() -> None:
    assert _without_braces("{a,b}/{08..10}.tar") == [
        f"{letter}/{number}.tar" for letter in "ab" for number in ("08", "09", "10")
    ]
    assert _without_braces("{0..2}x") == ["0x", "1x", "2x"]
    assert _without_braces("no{}ne") == ["no{}ne"]


def test_they_are_a_data_source_like_any_other(shards: Path) -> None:
    check_source("webdataset", root=str(shards))
