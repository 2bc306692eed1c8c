"""Bases of two seeds against each other: 0 for the same up to rotation, about 1 once the images no longer go together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headsearch.errors import RunError
from headsearch.scoring.between_bases import compare_bases, kept_embeddings
from headsearch.training.checkpoint import save_tensors


def kept(path: Path, embedding: torch.Tensor) -> Path:
    save_tensors(path, kept_embeddings(embedding))
    return path


def test_rotated_bases_are_the_same_and_shuffled_ones_unrelated(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 16, generator=generator)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
    files = {3: kept(tmp_path / "a", x), 7: kept(tmp_path / "b", 2.0 * x @ rotation)}
    found = {
        measure: (seeds, value, shuffled) for seeds, measure, value, shuffled in compare_bases(files, seed=0)
    }
    assert {seeds for seeds, _, _ in found.values()} == {(3, 7)}
    assert found["cka"][1:] == pytest.approx((0.0, 1.0), abs=0.02)
    # Unrelated sides share 10 of 999 neighbours by chance.
    assert found["mutual_knn"][1:] == pytest.approx((0.0, 1.0 - 10 / 999), abs=0.01)
    assert found["procrustes"][1] == pytest.approx(0.0, abs=1e-3)
    assert found["procrustes"][2] > 1.2


def test_every_pair_is_compared_and_unrelated_bases_read_one_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    files = {n: kept(tmp_path / str(n), torch.randn(400, 8)) for n in range(3)}
    found = list(compare_bases(files, seed=0))
    assert {seeds for seeds, *_ in found} == {(0, 1), (0, 2), (1, 2)}
    assert all(value == pytest.approx(1.0, abs=0.05) for _, name, value, _ in found if name == "cka")
    assert found == list(compare_bases(files, seed=0))


def test_what_is_undefined_is_left_out_and_reads_no_zero(tmp_path: Path) -> None:
    torch.manual_seed(0)
    files = {0: kept(tmp_path / "a", torch.ones(40, 8)), 1: kept(tmp_path / "b", torch.randn(40, 8))}
    assert list(compare_bases(files, seed=0)) == []


def test_files_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    good = kept(tmp_path / "good", torch.randn(20, 4))
    for name, content, expected in (
        ("broken", b"no tensors", "broken: cannot be read as embeddings"),
        ("fewer", torch.randn(19, 4), "fewer: 19 images, expected 20"),
        ("flat", torch.randn(20), "expected finite embeddings of shape"),
    ):
        file = tmp_path / name
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            kept(file, content)
        with pytest.raises(RunError, match=expected):
            list(compare_bases({0: good, 1: file}, seed=0))
