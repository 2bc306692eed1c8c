"""Bases that are not timm's: what a factory makes, from the search to weights that load strictly into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import headsearch
from safetensors.torch import load_file

from headsearch.base.model import load_base
from headsearch.errors import BaseModelError, ExperimentError, HeadError, PluginError, RunError
from headsearch.experiment import load_experiment
from headsearch.export import export_head, read_head
from headsearch.plugins import load_factory
from headsearch.pretrain import PretrainSpec, pretrain
from headsearch.search.session import run_search
from headsearch.testing.tiny import tiny_experiment, write_two_colours

EXAMPLES = Path(__file__).parents[2] / "examples" / "own_base"
RESNET = f"{EXAMPLES / 'torchvision_resnet.py'}:resnet18"
VIT = f"{EXAMPLES / 'transformers_vit.py'}:vit"
TINY: dict[str, dict[str, Any]] = {
    RESNET: {"layers": [1, 1, 1, 1]},
    VIT: {"image_size": 16, "hidden_size": 16, "num_hidden_layers": 1},
}


def own(tmp_path: Path, body: str) -> str:
    """The reference of a factory `build` that makes a module with these methods."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass build(nn.Module):\n"
        "    def __init__(self, width=8):\n        super().__init__()\n        self.stem = nn.Conv2d(3, width, 4, 4)\n"
        + body
    )
    return f"{tmp_path / name}.py:build"


def test_images_with_other_channels_are_refused_in_one_line(tmp_path: Path) -> None:
    body = "    def map_and_embedding(self, x):\n        return (y := self.stem(x)), y.mean((2, 3))\n"
    reference = own(tmp_path, body)
    with pytest.raises(BaseModelError) as raised:
        load_base(reference, image_size=16, channels=5)
    assert str(raised.value).endswith(
        ".py:build takes images with 3 channels, and these have 5; expected data.channels: rgb"
    )
    assert load_base(reference, image_size=16, channels=None).info.channels == 3


@pytest.mark.parametrize("reference", TINY)
def test_facts_about_it_are_measured(reference: str) -> None:
    base = load_base(reference, image_size=16, kwargs=TINY[reference]).eval()
    info = base.info
    output = base(torch.randn(2, 3, 16, 16))
    assert output.map.shape == (2, info.width, *info.grid)
    assert output.embedding.shape == (2, info.embedding_dim)
    assert (info.model, info.family) == {
        RESNET: ("torchvision_resnet.py:resnet18", "resnet"),
        VIT: ("transformers_vit.py:vit", "vit"),
    }[reference]
    made = load_factory(reference)(**TINY[reference])
    assert info.params == sum(weight.numel() for weight in made.parameters())
    assert list(base.model.state_dict()) == list(made.state_dict())


@pytest.mark.parametrize(
    ("reference", "executor", "probes"),
    [
        pytest.param(RESNET, {"kind": "inline"}, "knn", marks=pytest.mark.slow),
        (VIT, {"kind": "process", "workers": 1}, "knn,finetune"),
    ],
)
def test_from_a_search_to_weights_that_load_strictly_into_it(
    reference: str, executor: dict[str, Any], probes: str, tmp_path: Path
) -> None:
    images = write_two_colours(tmp_path / "images.npz")
    (tmp_path / "s.yaml").write_text(
        "space: headsearch/space@1\nhead: {convnext: {depth: 1, kernel_size: 3}}"
    )
    search = {
        "space": str(tmp_path / "s.yaml"),
        "strategy": "proxies",
        "trials": 1,
        "finalists": 0,
        "controls": ["none"],
        "executor": executor,
    }
    proxy = {"epochs": 1, "rungs": [1], "batch_size": 32, "device": "cpu"}
    method = {"kwargs": {"hidden_dim": 64, "output_dim": 32}}
    tiny = tiny_experiment(images, search=search, proxy=proxy, method=method).model_dump(mode="json")
    tiny["base"] = {"module": reference, "kwargs": TINY[reference]}
    # The ResNet works at the size of the images.
    tiny["data"]["image_size"] = TINY[reference].get("image_size", 8)
    file = tmp_path / "e.yaml"
    file.write_text(json.dumps(tiny))
    experiment = load_experiment(file)
    run_search(experiment, tmp_path / "run")
    exported = export_head(tmp_path / "run", tmp_path / "head.yaml")
    name = reference.rpartition("/")[2]
    assert (exported.base.model, exported.base.module) == (name, reference)
    assert list(exported.code) == [name.partition(":")[0]]

    small = ["recipe.epochs=1", "recipe.batch_size=32", "recipe.device=cpu", "recipe.probe_every=0"]
    spec = PretrainSpec.from_head(read_head(tmp_path / "head.yaml"), overrides=small)
    out = tmp_path / "pretrained"
    pretrain(spec, out)
    card = (out / "README.md").read_text()
    assert "model.load_state_dict(load_file" in card
    model = load_factory(reference)(**TINY[reference])
    model.load_state_dict(load_file(out / "base.safetensors"), strict=True)

    command = ["evaluate", str(out), "--probes", probes, "--set", "finetune.epochs=1", "--seeds", "1"]
    seen = headsearch(*command, "--format", "json")
    assert seen.returncode == 0, seen.stderr
    named = {"20-NN" if probe == "knn" else probe for probe in probes.split(",")}
    assert {row["probe"] for row in json.loads(seen.stdout)["rows"]} == named


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "    def map_and_embedding(self, x):\n        x = self.stem(x).mean((2, 3))\n        return x, x\n",
            "its map has shape (1, 8), its embedding (1, 8) (expected B,C,H,W and B,D)",
        ),
        (
            "    def map_and_embedding(self, x):\n        return self.stem(x)\n",
            "map_and_embedding gives Tensor",
        ),
        ("    def map_and_embedding(self, x):\n        raise RuntimeError('no such size')\n", "no such size"),
        ("    pass\n", "expected an nn.Module with a method map_and_embedding(images)"),
    ],
)
def test_what_cannot_be_a_base_is_one_line(tmp_path: Path, body: str, expected: str) -> None:
    reference = own(tmp_path, body)
    with pytest.raises(BaseModelError) as raised:
        load_base(reference, image_size=16)
    assert str(raised.value).startswith(reference.rpartition("/")[2])
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_it_is_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"resnet18\(layer=3\) raises TypeError: .*unexpected keyword"):
        load_base(RESNET, image_size=16, kwargs={"layer": 3})
    with pytest.raises(
        PluginError, match=r"torchvision_resnet.py: no function or class 'resnet'; did you mean"
    ):
        load_base(RESNET.replace("resnet18", "resnet"), image_size=16)
    with pytest.raises(PluginError, match=r"gone.py: cannot be read"):
        load_base(str(tmp_path / "gone.py:build"), image_size=16)
    with pytest.raises(BaseModelError, match="has no pretrained weights"):
        load_base(RESNET, image_size=16, weights="pretrained")
    with pytest.raises(BaseModelError, match="has one feature map; expected -1"):
        load_base(RESNET, image_size=16, stage=-2)
    with pytest.raises(ExperimentError, match=r"expected file.py:name or package.module:name"):
        load_experiment(None, ["base.module=resnet18"])


def test_it_is_named_by_either_key_and_found_beside_the_experiment(tmp_path: Path) -> None:
    reference = own(tmp_path, "    pass\n")
    name = reference.rpartition("/")[2]
    file = tmp_path / "e.yaml"
    for key in ("model", "module"):
        file.write_text(f"base: {{{key}: {name}}}")
        base = load_experiment(file).base
        assert (base.model, base.module) == (name, reference)
    assert load_experiment(file, ["base.model=resnet18"]).base.module is None
    assert "module" not in load_experiment(None).base.model_dump()


def test_a_run_is_not_resumed_and_a_head_not_used_with_a_changed_base(tmp_path: Path) -> None:
    reference = own(
        tmp_path,
        "    def map_and_embedding(self, x):\n        x = self.stem(x)\n        return x, x.mean((2, 3))\n",
    )
    source = Path(reference.rpartition(":")[0])
    images = write_two_colours(tmp_path / "images.npz")
    search = {"strategy": "proxies", "space": "tiny", "trials": 1, "finalists": 0, "controls": ["none"]}
    proxy = {"epochs": 1, "rungs": [1], "batch_size": 32, "device": "cpu"}
    tiny = tiny_experiment(images, search=search, proxy=proxy)
    base = type(tiny.base)(module=reference)
    experiment = tiny.model_copy(update={"base": base})
    run_search(experiment, tmp_path / "run")
    export_head(tmp_path / "run", tmp_path / "head.yaml")
    spec = PretrainSpec.from_head(
        read_head(tmp_path / "head.yaml"), overrides=["base.kwargs={width: 4}", "recipe.batch_size=32"]
    )
    with pytest.raises(HeadError, match=r"chosen for a base whose width is 8, but the base at hand .* has 4"):
        pretrain(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    source.write_text(source.read_text() + "\n# Another.\n")
    with pytest.raises(RunError, match=f"cannot resume with another {source.name}"):
        run_search(experiment, tmp_path / "run", resume=True)
    with pytest.raises(PluginError, match=f"{source.name} has changed since the search"):
        read_head(tmp_path / "head.yaml")
