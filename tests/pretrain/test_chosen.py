"""Heads without a search: a description on a base is what a head.yaml of that head and base is; what cannot be used is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import headsearch
from headsearch.cli import app
from headsearch.comparison.plan import make_plan
from headsearch.errors import UserError
from headsearch.heads import parse_head
from headsearch.pretrain import PretrainSpec
from headsearch.pretrain.chosen import chosen_heads, pretraining_of
from headsearch.scoring.cost import head_cost
from headsearch.testing.pretraining import SMALL_HEAD, SMALL_VIT, small_export

VIT = {"model": "vit_tiny_patch16_224", "kwargs": dict(SMALL_VIT)}
TEXT = "{convnext: {depth: 1, kernel_size: 3, first_shortcut: false}}"
SMALL = ["data.image_size=16", "recipe.batch_size=32", "recipe.device=cpu", "recipe.epochs=2"]


def file_of(folder: Path, **exported: Any) -> Path:
    path = folder / "head.yaml"
    path.write_text(small_export(**exported).to_yaml())
    return path


@pytest.mark.parametrize("head", [TEXT, SMALL_HEAD])
def test_a_description_is_pretrained_as_the_head_file_of_the_same_head(head: Any, images: Path) -> None:
    described = pretraining_of(head, base=VIT, data=str(images), overrides=SMALL)
    searched = PretrainSpec.from_head(small_export(), data=str(images), overrides=SMALL)
    assert searched.seed == 3, "the search's"
    assert described == searched.model_copy(update={"seed": 0})


def test_what_is_not_given_is_that_of_the_first_head_file(images: Path, tmp_path: Path) -> None:
    file = file_of(tmp_path, method="byol")
    searched, paper = chosen_heads([file, "paper"])
    assert parse_head(paper.config) == parse_head({"convnext": {"first_shortcut": False}})
    assert (paper.base, paper.data, paper.method) == (searched.base, searched.data, searched.method)
    info = searched.base.base_info()
    assert paper.scores == {
        "params": head_cost(parse_head("paper"), info).params,
        "flops": head_cost(parse_head("paper"), info).flops,
    }
    wider = {"model": "vit_tiny_patch16_224", "kwargs": {**SMALL_VIT, "embed_dim": 32}}
    moved, _ = chosen_heads([file, "paper"], base=wider, data=str(images), overrides=SMALL)
    assert (moved.base.info.width, moved.method.name, moved.scores.keys()) == (
        32,
        "byol",
        {"params", "flops"},
    )
    assert moved.config == searched.config
    assert moved.provenance is None
    assert "provenance" not in moved.to_yaml()


def test_all_arms_of_a_comparison_have_the_seeds_of_the_first(tmp_path: Path, images: Path) -> None:
    plan = make_plan([file_of(tmp_path), "mixer"], data=str(images), seeds=2, overrides=SMALL)
    assert [name.partition("-")[0] for name in plan.arms] == ["none", "convnext", "mixer"]
    assert [spec.seed for _, spec in plan.trainings()] == [3, 3, 3, 4, 4, 4]
    contents = [spec.model_dump(exclude={"head", "head_id"}) for spec in plan.arms.values()]
    assert contents[0] == contents[1] == contents[2]


def test_a_base_alone_is_pretrained_without_a_head(images: Path) -> None:
    spec = pretraining_of(None, base=VIT, data=str(images), overrides=SMALL, without_head=True)
    assert (spec.head, spec.head_id, spec.base.model) == (None, "none", VIT["model"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--head", TEXT], "describes a head and no base; expected the base's name beside it"),
        (["--base", "resnet18"], "no head; expected a head.yaml"),
        (["--no-head"], "no head.yaml and no base"),
        (["--base", "resnet18", "--head", "convnet"], "'convnet' is no file, and no family of heads; did you mean 'convnext'?"),
        (["--base", "resnet18", "--head", "papr"], "did you mean 'paper'?"),
        (["--base", "resnet18", "--head", "{convnext: {depht: 1}}"], "convnext has no parameter 'depht'; did you mean 'depth'?"),
        (["--base", "resnet18", "--head", "{convnext: {depth: 99}}"], "convnext.depth is 99: expected an integer from 1 to 12"),
        (["--base", "resnet18", "--head", "{convnext: {depth"], "head:1:18: not valid YAML"),
        (["--base", "resnet18", "--head", "gone.yaml"], "gone.yaml: cannot be read: No such file"),
        (["--base", "resnet18", "--head", "null: 1"], "head:1:1: nothing (null) as a key"),
        (["--base", "resnet81", "--head", TEXT], "timm has no model 'resnet81'; did you mean 'resnet18'?"),
        (["--base", "my_models.py:build", "--head", TEXT], "my_models.py: cannot be read: No such file"),
        (["--base", "vit_tiny_patch16_224", "--head", "{swin: {num_heads: 5}}"], "{swin: {num_heads: 5}} on vit_tiny_patch16_224:"),
        (["--base", "resnet18", "--head", TEXT, "--set", "recipe.batch_size=1000000"], "1,000,000 images at once with convnext-d1-k3-noshortcut-"),
        (["--base", "resnet18", "--head", TEXT, "--plugin", "my_plugin.py"], "my_plugin.py: cannot be read: No such file"),
        (["a.yaml", "--head", TEXT], "two heads, a.yaml and"),
    ],
)  # fmt: skip
def test_what_cannot_be_pretrained_is_one_line_and_leaves_nothing(
    options: list[str], line: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["pretrain", *options, "--data", str(images), "--out", "out"])
    assert isinstance(result.exception, UserError)
    assert line in str(result.exception)
    assert "\n" not in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_images_must_be_named_where_no_search_has_any(tmp_path: Path) -> None:
    with pytest.raises(headsearch.UserError, match="no images; expected a folder"):
        headsearch.pretrain("paper", base="resnet18", out=tmp_path / "out")
    with pytest.raises(headsearch.UserError, match="no folder of images at"):
        headsearch.compare("paper", base="resnet18", data=tmp_path / "gone", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_described_head_is_pretrained_and_the_training_goes_on(images: Path, tmp_path: Path) -> None:
    data = {"dataset": "npz", "root": images, "image_size": 16, "labels": "none"}
    recipe: dict[str, Any] = {"batch_size": 32, "epochs": 1, "device": "cpu", "probe_every": 0}
    out = tmp_path / "out"
    done = headsearch.pretrain("paper", base=VIT, data=data, out=out, quiet=True, recipe=recipe)
    assert PretrainSpec.read(out / "pretrain.yaml").head == parse_head("paper").to_dict()
    options = ["--base", "vit_tiny_patch16_224", "--head", "paper", "--data", str(images), "--out", str(out)]
    settings = [f"base.kwargs={dict(SMALL_VIT)}", "data.labels=none", "data.image_size=16"]
    settings += [f"recipe.{key}={value}" for key, value in recipe.items()]
    again = CliRunner().invoke(
        app, ["pretrain", *options, "--resume", *(word for each in settings for word in ("--set", each))]
    )
    assert again.exit_code == 0, again.exception
    assert f"loss {done.loss:.4f}" in again.stderr, "the command means the same training"
