"""From a search without labels to the verdict: every command takes what the former one left, and nothing about the images is said again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from headsearch.cli import app

SCHEDULE = ["recipe.epochs=1", "recipe.batch_size=16", "recipe.device=cpu"]
BASES = {
    "vit_tiny_patch16_224": (16, "{patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2}", "epochs: 1"),
    "resnet10t": (64, "{channels: [8, 8, 16, 16]}", "epochs: 1"),
    # Its statistics of batches take some steps to be worth anything.
    "mobilenetv3_small_050": (64, "{}", "epochs: 10, rungs: [10], learning_rate: 1.0e-3"),
}


def pixels(count: int, size: int) -> np.ndarray:
    found = np.random.default_rng(0).integers(0, 120, size=(count, size, size, 3))
    found[::2, :, :, 0] += 120
    found[1::2, :, :, 2] += 120
    return found.astype(np.uint8)


def write_images(layout: str, folder: Path, size: int) -> Path:
    """64 images of two kinds: class folders, one flat folder, or an npz file with or without labels."""
    images = pixels(64, size)
    if layout.startswith("npz"):
        labels = {"train_labels": np.arange(64) % 2} if layout == "npz with labels" else {}
        np.savez(folder / "my images.npz", train_images=images, **labels)
        return folder / "my images.npz"
    root = folder / "my images"
    for number, image in enumerate(images):
        place = root / ("ab"[number % 2] if layout == "class folders" else "")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return root


def headsearch(*arguments: object) -> str:
    """What a command prints to stdout; it must end well."""
    done = CliRunner().invoke(app, [str(part) for part in arguments])
    assert done.exit_code == 0, f"{arguments}: {done.exception!r}\n{done.output}"
    return done.stdout


def sets(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        ("vit_tiny_patch16_224", "class folders"),
        ("vit_tiny_patch16_224", "flat folder"),
        ("vit_tiny_patch16_224", "npz without labels"),
        *(
            pytest.param(model, layout, marks=pytest.mark.slow)
            for model in BASES
            for layout in ("class folders", "flat folder", "npz with labels", "npz without labels")
            if (model, layout[:3]) not in {("vit_tiny_patch16_224", part) for part in ("cla", "fla")}
        ),
    ],
)
def test_a_search_without_labels_leads_to_a_verdict(model: str, layout: str, tmp_path: Path) -> None:
    size, kwargs, schedule = BASES[model]
    images = write_images(layout, tmp_path, size)
    run, head, trained = tmp_path / "run", tmp_path / "head.yaml", tmp_path / "trained"
    search = "{space: tiny, strategy: proxies, sampler: random, trials: 1, finalists: 0, replicates: 1, controls: [none], stopping: {kind: none}}"
    experiment = tmp_path / "mine.yaml"
    experiment.write_text(
        f"base: {{model: {model}, kwargs: {kwargs}}}\n"
        f"data: {{dataset: {'npz' if layout.startswith('npz') else 'folder'}, root: '{images}', image_size: {size}, labels: none}}\n"
        f"proxy: {{{schedule}, batch_size: 16, device: cpu}}\nsearch: {search}\n"
    )
    headsearch("run", experiment, "--out", run, "-q")
    headsearch("export", run, "--out", head)
    headsearch("pretrain", head, "--out", trained, "-q", *sets(*SCHEDULE))
    assert f"`{images.name}` ({'npz' if images.suffix else 'folder'})" in (trained / "README.md").read_text()
    scores = json.loads(headsearch("evaluate", trained, "random", "--format", "json", "-q"))
    probes = {row["probe"] for row in scores["rows"]}
    labelled = layout in ("class folders", "npz with labels")
    assert probes == ({"20-NN", "linear", "few-shot 1%", "few-shot 10%"} if labelled else {"retrieval"})
    headsearch("compare", head, "--out", tmp_path / "compared", "--seeds", 1, "-q", *sets(*SCHEDULE))
    compared = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert "beats no head in" in compared["verdict"].replace("Cannot tell whether a head ", "")
    assert set(compared["rows"][0]["scores"]) == probes


def test_probes_that_were_chosen_are_not_replaced(tmp_path: Path) -> None:
    images = write_images("flat folder", tmp_path, 16)
    base = [
        "--base",
        "vit_tiny_patch16_224",
        "--base-kwargs",
        '{"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}',
    ]
    done = CliRunner().invoke(
        app, ["evaluate", "random", *base, "--data", str(images), "--image-size", "16", "--probes", "knn"]
    )
    assert "class folders" in str(done.exception)
