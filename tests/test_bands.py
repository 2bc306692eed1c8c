"""Images of 13 bands from a search to better weights, with the label in one band alone: the whole set tells it, its first three bands cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from headsearch.cli import app
from headsearch.errors import BaseModelError, ExperimentError
from headsearch.evaluation.evaluate import evaluate
from headsearch.evaluation.spec import evaluation_spec
from headsearch.experiment import load_experiment
from headsearch.heads import parse_head
from headsearch.pretrain import PretrainSpec
from headsearch.testing.tiny import Context, tiny_experiment, training
from headsearch.training.evaluator import Evaluator
from headsearch.training.materials import Inputs

TELLING, BANDS = 9, 13
HEAD = {"convnext": {"depth": 1, "kernel_size": 3}}


def thirteen_bands(count: int, seed: int) -> tuple[Any, Any]:
    """Float bands of very different range and offset; two classes, whose images differ in the brightness of band 9."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    ranges, offsets = 10.0 ** (np.arange(BANDS) % 5 - 2), 100.0 * np.arange(BANDS)
    images = random.normal(size=(count, 16, 16, BANDS))
    images[..., TELLING] += 1.5 * labels[:, None, None]
    return (images * ranges + offsets).astype(np.float32), labels


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The set as `.npz`, and as RGB of 8 bits what its first three bands hold."""
    folder = tmp_path_factory.mktemp("bands")
    whole: dict[str, Any] = {}
    for split, count, seed in (("train", 128, 0), ("test", 200, 1)):
        whole[f"{split}_images"], whole[f"{split}_labels"] = thirteen_bands(count, seed)
    np.savez(folder / "bands.npz", **whole)
    low, high = (whole["train_images"][..., :3].min((0, 1, 2)), whole["train_images"][..., :3].max((0, 1, 2)))
    rgb = {
        name: np.clip(255 * (x[..., :3] - low) / (high - low), 0, 255).astype(np.uint8) if x.ndim == 4 else x
        for name, x in whole.items()
    }
    np.savez(folder / "rgb.npz", **rgb)
    return {"bands": folder / "bands.npz", "rgb": folder / "rgb.npz"}


@pytest.mark.parametrize(
    ("images", "channels", "low", "high"), [("bands", BANDS, 90, 100), ("rgb", "rgb", 40, 60)]
)
def test_the_label_in_band_9_is_seen_by_the_whole_set_alone(
    sets: dict[str, Path], images: str, channels: Any, low: float, high: float, tmp_path: Path
) -> None:
    experiment = tiny_experiment(
        sets[images], data={"channels": channels}, proxy={"epochs": 2, "rungs": [2], "learning_rate": 1e-3}
    )
    (result,) = Evaluator(experiment)(training(tmp_path, parse_head(HEAD)), Context()).trials
    assert result.rungs[-1].linear is not None
    assert low <= result.rungs[-1].linear <= high


def run(*arguments: str | Path, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_from_a_search_to_weights_and_their_evaluation(sets: dict[str, Path], tmp_path: Path) -> None:
    settings = {
        "base.kwargs": "{patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2}",
        "data.channels": BANDS,
        "data.image_size": 16,
        "proxy.epochs": 1,
        "proxy.batch_size": 64,
        "proxy.device": "cpu",
        "search.strategy": "proxies",
        "search.trials": 1,
        "search.finalists": 0,
        "search.replicates": 1,
        "search.controls": "[none]",
        "search.space": "tiny",
    }
    keys = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    out = tmp_path / "run"
    run("run", "--base", "vit_tiny_patch16_224", "--data", sets["bands"], *keys, "--out", out, "--quiet")
    run("export", out, "--out", tmp_path / "head.yaml")
    assert "channels: 13" in (tmp_path / "head.yaml").read_text()
    small = ["recipe.epochs=1", "recipe.batch_size=64", "recipe.device=cpu", "recipe.probe_every=0"]
    small = [part for key in small for part in ("--set", key)]
    run("pretrain", tmp_path / "head.yaml", "--out", tmp_path / "better", *small, "--quiet")
    card = (tmp_path / "better" / "README.md").read_text()
    assert "in_chans=13" in card
    assert "of the bands as they are" in card
    import timm

    state = load_file(tmp_path / "better" / "base.safetensors")
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, in_chans=13, img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2
    )  # fmt: skip
    model.load_state_dict(state)
    probes = ["knn", "linear", "finetune", "retrieval", "detection"]
    spec = evaluation_spec(
        {"probes": probes, "seeds": 1, "device": "cpu"}, ["finetune.epochs=1", "detection.steps=1"]
    )
    found = evaluate(spec, [str(tmp_path / "better"), "random"])
    assert found.spec.data.channels == BANDS
    scores = {(row.probe, row.weights == "random"): row.score for row in found.rows}
    assert scores["linear", False] > 90
    assert all(check.passed for check in found.checks)
    compared = tmp_path / "compared"
    run(
        "compare", tmp_path / "head.yaml", "--out", compared, "--seeds", "1", "--probes", "knn", *small, "--quiet"
    )  # fmt: skip
    assert (compared / "comparison.json").is_file()


def test_masked_methods_hide_bands_and_predict_them(sets: dict[str, Path], tmp_path: Path) -> None:
    for number, (model, kwargs) in enumerate(
        [
            ("vit_tiny_patch16_224", {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}),
            ("resnet10t", {"channels": [8, 8, 8, 8]}),
        ]
    ):
        experiment = tiny_experiment(
            sets["bands"],
            base={"model": model, "kwargs": kwargs},
            data={"channels": BANDS},
            method={"name": "simmim"},
            proxy={"epochs": 1, "rungs": [1], "batch_size": 64},
        )
        (result,) = Evaluator(experiment)(
            training(tmp_path / str(number), parse_head(HEAD)), Context()
        ).trials
        assert result.state == "complete"


@pytest.mark.parametrize(
    ("channels", "in_chans", "message"),
    [
        (13, 4, "base.kwargs.in_chans is 4: data.channels makes it 13; expected data.channels alone"),
        ("rgb", 13, "base.kwargs.in_chans is 13: data.channels makes it 3; expected data.channels alone"),
    ],
)
def test_a_base_of_other_channels_than_the_images_is_one_line(
    sets: dict[str, Path], channels: Any, in_chans: int, message: str
) -> None:
    base = {"kwargs": {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "in_chans": in_chans}}
    experiment = tiny_experiment(sets["bands"], base=base, data={"channels": channels})
    with pytest.raises(BaseModelError) as error:
        _ = Inputs(experiment.base, experiment.data, batch_size=32, seed=0).info
    assert str(error.value) == message


def test_channels_that_do_not_exist_are_one_line() -> None:
    for channels in ("0", "grey", "2.5", "true"):
        with pytest.raises(ExperimentError) as error:
            load_experiment("digits", [f"data.channels={channels}"])
        assert "data.channels: got" in str(error.value)
        assert "expected rgb, or the number of bands" in str(error.value)
        assert "\n" not in str(error.value)


def test_a_pretraining_of_former_versions_is_rgb() -> None:
    spec = PretrainSpec.parse({"recipe": {}}, "pretrain")
    assert spec.data.channels == "rgb"
    assert "channels" not in spec.to_yaml()
