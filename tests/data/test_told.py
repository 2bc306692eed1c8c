"""What a person is told of images before and after any training, by every command: what was understood, and what is left out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from headsearch.cli import app
from headsearch.errors import UserError
from headsearch.testing.pretraining import small_export
from headsearch.testing.tiny import tiny_experiment

BASE = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
EVALUATE = ["--base", "vit_tiny_patch16_224", "--base-kwargs", json.dumps(BASE), "--image-size", "16"]
PRETRAIN = [
    part
    for override in ("epochs=1", "batch_size=16", "device=cpu", "probe_every=0")
    for part in ("--set", f"recipe.{override}")
]


def told(*arguments: object, code: int = 0) -> str:
    """Everything that a command writes, with the line of a mistake, which ends it with code 2."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    mistake = isinstance(result.exception, UserError)
    assert (2 if mistake else result.exit_code) == code, result.output
    return f"{result.output}{result.exception}" if mistake else result.output


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """60 images of three classes, train and val; 3 of them broken, one stray beside the splits."""
    root, random = tmp_path / "pets 😀", np.random.default_rng(0)
    for number in range(60):
        folder = root / ("Train" if number < 40 else "Val") / ("cat", "dog", "eel")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{number:02}.png"
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
        if number in (1, 5, 50):
            os.truncate(file, 100)
    Image.new("RGB", (16, 16)).save(root / "cover.png")
    return root


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    search: dict[str, Any] = {
        "strategy": "proxies",
        "trials": 1,
        "finalists": 0,
        "controls": [],
        "space": "tiny",
    }
    file = tmp_path / "tiny.yaml"
    proxy = {"epochs": 1, "rungs": [1], "batch_size": 16}
    file.write_text(tiny_experiment(tmp_path / "none.npz", search=search, proxy=proxy).to_yaml())
    return file


UNDERSTOOD = "data: folder: 38 images to train on, 19 held out; training in 'Train', held out in 'Val'; 3 classes (cat, dog, eel)"


def check_told(text: str) -> None:
    assert UNDERSTOOD in text
    assert "3 files left out, cannot be read: Train/dog/01.png (" in text
    assert "1 file left out, beside the data set: cover.png" in text


def test_run_says_what_it_understood_and_keeps_what_it_left_out(
    pets: Path, experiment: Path, tmp_path: Path
) -> None:
    run = tmp_path / "a run"
    check_told(told("run", experiment, "--data", pets, "--set", "data.image_size=16", "--out", run))
    assert len((run / "left_out.txt").read_text().splitlines()) == 4
    check_told("\n".join(json.loads((run / "run.json").read_text())["data"]))
    check_told("\n".join(json.loads(told("status", run, "--format", "json"))["data"]))
    assert "cover.png" in told("status", run)


def test_pretrain_and_evaluate_say_it_too(pets: Path, tmp_path: Path) -> None:
    head, out = tmp_path / "head.yaml", tmp_path / "out"
    head.write_text(small_export().to_yaml())
    check_told(told("pretrain", head, "--data", pets, "--out", out, *PRETRAIN))
    assert len((out / "left_out.txt").read_text().splitlines()) == 4
    assert "| images left out | 4, listed in `left_out.txt` |" in (out / "README.md").read_text()
    check_told(told("evaluate", "random", *EVALUATE, "--probes", "knn", "--data", pets))
    report = tmp_path / "evaluation.json"
    told("evaluate", "random", *EVALUATE, "--probes", "knn", "--data", pets, "--out", report, "--quiet")
    check_told("\n".join(json.loads(report.read_text())["data"]))


@pytest.mark.parametrize("command", ["run", "pretrain", "evaluate"])
def test_many_unreadable_files_end_every_command_unless_accepted(
    command: str, pets: Path, experiment: Path, tmp_path: Path
) -> None:
    for file in sorted((pets / "Train").rglob("*.png"))[:12]:
        os.truncate(file, 100)
    head, out = tmp_path / "head.yaml", tmp_path / "out"
    head.write_text(small_export().to_yaml())
    arguments: dict[str, list[object]] = {
        "run": [experiment, "--out", out, "--set", "data.image_size=16"],
        "pretrain": [head, "--out", out, *PRETRAIN],
        "evaluate": ["random", *EVALUATE, "--probes", "knn"],
    }
    refused = told(command, *arguments[command], "--data", pets, code=2)
    assert "cannot be read: Train/cat/00.png (" in refused
    assert "set data.unreadable to accept" in refused
    assert not out.exists()
    accepted = told(command, *arguments[command], "--data", pets, "--set", "data.unreadable=accept")
    assert "files left out, cannot be read: Train/cat/00.png (" in accepted


@pytest.mark.parametrize("command", ["run", "pretrain", "evaluate"])
def test_a_probe_that_cannot_be_made_is_known_before_any_training(
    command: str, experiment: Path, tmp_path: Path
) -> None:
    singles = tmp_path / "singles"
    for number in range(40):
        (singles / f"{number}").mkdir(parents=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(singles / f"{number}/x.png")
    head, out = tmp_path / "head.yaml", tmp_path / "out"
    head.write_text(small_export().to_yaml())
    arguments: dict[str, list[object]] = {
        "run": [experiment, "--out", out, "--set", "data.image_size=16"],
        "pretrain": [head, "--out", out, *PRETRAIN],
        "evaluate": ["random", *EVALUATE, "--probes", "knn,linear"],
    }
    text = told(command, *arguments[command], "--data", singles, code=2)
    assert "a linear probe needs a class with two images" in text
    assert not out.exists()
    if command != "evaluate":
        told(command, *arguments[command], "--data", singles, "--set", "data.labels=none")
    else:
        told("evaluate", "random", *EVALUATE, "--probes", "knn", "--data", singles)


def test_run_takes_an_npz_as_the_other_commands_do(experiment: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(60) % 2)
    out = tmp_path / "out"
    text = told("run", experiment, "--data", tmp_path / "x.npz", "--set", "data.image_size=16", "--out", out)
    assert "data: npz: 48 images to train on, 12 held out; training on 'images'; 2 classes (0, 1)" in text


def test_a_tilde_is_the_home_folder_for_run_too(
    pets: Path, experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    root = json.dumps(f"~/{pets.name}", ensure_ascii=False)
    arguments = ["--set", "data.dataset=folder", "--set", f"data.root={root}", "--set", "data.image_size=16"]
    assert UNDERSTOOD in told("run", experiment, *arguments, "--out", tmp_path / "out")


@pytest.mark.parametrize("command", ["run", "pretrain", "evaluate"])
def test_a_root_that_is_no_utf8_is_refused_alike(command: str, experiment: Path, tmp_path: Path) -> None:
    head = tmp_path / "head.yaml"
    head.write_text(small_export().to_yaml())
    first = {"run": experiment, "pretrain": head, "evaluate": "random"}[command]
    out = [] if command == "evaluate" else ["--out", tmp_path / "out"]
    text = told(command, first, *out, "--data", os.fsdecode(b"caf\xe9"), code=2)
    assert "'caf\\udce9' is not text in UTF-8" in text
