"""The recipes of docs/interop.md, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from headsearch.base.model import load_base
from headsearch.experiment import DataSpec, MethodSpec
from headsearch.export import BaseFacts, ExportedBase, ExportedHead, Provenance
from headsearch.heads import canonical, head_id, parse_head

PAGE = Path(__file__).parent.parent / "docs" / "interop.md"


def recipes() -> dict[str, str]:
    """The code below each heading that has some, in order."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = {
        section.splitlines()[0]: "\n".join(re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL))
        for section in sections
    }
    return {heading: code for heading, code in found.items() if code}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with the files that the page speaks of, and the names that its snippets have made so far."""
    folder = tmp_path_factory.mktemp("interop")
    torch.manual_seed(3)
    kwargs = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
    base = load_base("vit_tiny_patch16_224", image_size=16, kwargs=kwargs)
    save_file(base.model.state_dict(), folder / "base.safetensors")
    config = canonical(parse_head({"convnext": {"depth": 2}}), base.info)
    described: Any = config.to_dict()
    exported = ExportedHead(
        head_id=head_id(config),
        config=described,
        base=ExportedBase(
            model="vit_tiny_patch16_224",
            kwargs=kwargs,
            weights=None,
            info=BaseFacts.of(base.info),
        ),
        data=DataSpec(dataset="digits", image_size=16),
        method=MethodSpec(name="mocov3", kwargs={}),
        scores={},
        provenance=Provenance(experiment="x", seed=0, space="tiny", space_hash="0", versions={}, trials=[]),
    )
    (folder / "head.yaml").write_text(exported.to_yaml())
    return folder, {"__name__": "interop"}


@pytest.mark.parametrize("heading", recipes())
def test_the_recipe_runs(
    heading: str, world: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = world
    monkeypatch.chdir(folder)
    exec(compile(recipes()[heading], f"{PAGE.name}: {heading}", "exec"), names)
    checks = {
        "timm": lambda: names["embedding"].shape == (2, 32),
        "Hugging Face transformers": lambda: (folder / "for-transformers" / "config.json").is_file(),
        "lightly": lambda: all(weight.grad is not None for weight in names["backbone"].parameters()),
        "torchvision detectors": lambda: all(map(torch.isfinite, names["losses"].values())),
        "A head in your own training loop": lambda: (
            names["terms"].loss.isfinite()
            and names["backbone"].state_dict().keys() == names["model"].state_dict().keys()
        ),
        "The head itself": lambda: (
            names["head_embedding"].shape == (2, 32) and names["seen"].shape == names["output"].map.shape
        ),
    }
    assert checks[heading]()


def test_bases_of_other_kinds_give_transformers_the_same_embeddings() -> None:
    from transformers import TimmWrapperConfig, TimmWrapperModel

    for model, kwargs in (
        ("resnet10t", {"channels": [8, 8, 16, 16]}),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}),
    ):
        base = load_base(model, image_size=32, kwargs=kwargs).eval()
        wrapped = TimmWrapperModel(TimmWrapperConfig(architecture=model, model_args=kwargs)).eval()
        wrapped.timm_model.load_state_dict(base.model.state_dict())
        images = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(wrapped(images).pooler_output, base(images).embedding)
