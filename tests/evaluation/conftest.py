"""A tiny base and its weights on disk, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from headsearch.base.model import load_base
from headsearch.evaluation.spec import EvaluationSpec, evaluation_spec

MODEL = "vit_tiny_patch16_224"
KWARGS = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a tiny ViT for images of 16 pixels."""
    torch.manual_seed(7)
    file = tmp_path_factory.mktemp("weights") / "base.safetensors"
    save_file(load_base(MODEL, image_size=16, kwargs=KWARGS).model.state_dict(), file)
    return file


@pytest.fixture(scope="session")
def spec() -> EvaluationSpec:
    """The tiny ViT on the digits, two seeds."""
    return evaluation_spec(
        {"base": {"model": MODEL, "kwargs": KWARGS}, "data": {"dataset": "digits"}, "seeds": 2}
    )
