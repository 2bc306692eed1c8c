"""timm's names: each works as a base or is refused in one line, whatever timm says about it."""

import json
import logging
import socket
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants as hub
from timm.models import get_deprecated_models

from headsearch.base import timm_models
from headsearch.base.model import check_base, load_base
from headsearch.base.timm_models import configuration
from headsearch.errors import BaseModelError


def one_per_kind(each: int) -> list[str]:
    """So many models of every file of timm's."""
    names: set[str] = set()
    for module in timm.list_modules():
        own = timm.list_models(module=module)
        names.update(own[:: max(1, len(own) // each)][:each])
    return sorted(names)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub at a port that nobody listens on, and an empty cache."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(timm_models, "getproxies", dict)


def refusal(model: str, **options: Any) -> str:
    with pytest.raises(BaseModelError) as raised:
        load_base(model, image_size=32, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet18.a1_in2k", "timm has no weights 'a1_in2k' of resnet18; did you mean 'a1_in1k'?"),
        ("resnet18.", "timm has no weights '' of resnet18"),
        ("resnet188.a1_in1k", "timm has no model 'resnet188.a1_in1k'"),
        ("timm/resnet18.a1_in1k", "timm has no model"),
        ("local-dir:", "has no model id / path"),
        ("local-dir:/no/such/folder", "Config file not found"),
    ],
)
@pytest.mark.parametrize("weights", [None, "pretrained"])
def test_names_that_are_no_base_are_refused_in_one_line(
    model: str, message: str, weights: str | None, no_hub: None
) -> None:
    assert message in refusal(model, weights=weights)


def test_a_model_without_an_embedding_is_no_base() -> None:
    with pytest.raises(
        BaseModelError, match="mobilenetv5_300m_enc cannot be a base: timm offers no embedding of it"
    ):
        check_base("mobilenetv5_300m_enc", image_size=64)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"block": "no class"},
        {"act_layer": "nosuch"},
        {"layers": None},
        {"layers": [1]},
        {"layers": "many"},
        {"stem_width": {}},
        {"pretrained_cfg": "nosuch"},
        {"pretrained_cfg": ["x"]},
        {3: 4},
        {"img_size": []},
        {"img_size": "x"},
    ],
)
def test_keywords_of_any_type_work_or_are_refused_in_one_line(kwargs: dict[Any, Any]) -> None:
    works_or_is_refused("resnet18", kwargs)


def test_a_name_that_timm_has_replaced_is_the_model_that_replaced_it() -> None:
    assert get_deprecated_models()["vit_tiny_patch16_224_in21k"] == "vit_tiny_patch16_224.augreg_in21k"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        old = check_base("vit_tiny_patch16_224_in21k", image_size=32)
    new = check_base("vit_tiny_patch16_224.augreg_in21k", image_size=32)
    assert (old.grid, old.params, old.model) == ((2, 2), new.params, "vit_tiny_patch16_224_in21k")


def test_a_model_in_a_folder_is_built_from_it_for_the_images_at_hand(tmp_path: Path) -> None:
    kwargs = {"patch_size": 4, "embed_dim": 32, "depth": 1, "num_heads": 2}
    made = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=16, **kwargs)
    torch.save(made.state_dict(), tmp_path / "pytorch_model.bin")
    cfg = {"input_size": [3, 16, 16], "fixed_input_size": True, "mean": [0.5] * 3, "std": [0.25] * 3}
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "architecture": "vit_tiny_patch16_224",
                "num_classes": 0,
                "model_args": {**kwargs, "img_size": 16},
                "pretrained_cfg": {**cfg, "num_classes": 0},
            }
        )
    )
    name = f"local-dir:{tmp_path}"
    base = load_base(name, image_size=16, weights="pretrained")
    assert base.info.grid == (4, 4)
    assert torch.equal(base.model.state_dict()["pos_embed"], made.state_dict()["pos_embed"])
    assert load_base(name, image_size=32).info.grid == (8, 8)
    found = configuration(name)
    assert found is not None
    assert tuple(found.mean) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("model", "weights"), [("hf-hub:timm/resnet18.a1_in1k", None), ("resnet18", "pretrained")]
)
def test_a_hub_out_of_reach_is_given_up_at_once_and_quietly(
    model: str, weights: str | None, no_hub: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert "127.0.0.1 cannot be reached, and it is not in the local cache" in refusal(
            model, weights=weights
        )
    # It would take time, and be told.
    assert "Retrying" not in caplog.text
    assert not hub.HF_HUB_OFFLINE


def test_weights_of_timms_that_are_not_finite_are_noticed(tmp_path: Path) -> None:
    made = timm.create_model("resnet18", num_classes=0)
    with torch.no_grad():
        made.conv1.weight[0] = float("nan")
    torch.save(made.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "resnet18", "num_classes": 0, "pretrained_cfg": {"num_classes": 0}})
    )
    assert "values that are not finite" in refusal(f"local-dir:{tmp_path}", weights="pretrained")


@pytest.mark.parametrize(
    "model",
    [
        "bat_resnext26ts",
        "davit_tiny",
        "edgenext_xx_small",
        "fastvit_t8",
        "ghostnet_050",
        "levit_128s",
        "regnetx_002",
        "test_vit",
        "vgg11",
        "xcit_nano_12_p16_224",
    ],
)
def test_models_of_other_kinds_work_or_are_refused(model: str) -> None:
    works_or_is_refused(model)


def works_or_is_refused(model: str, kwargs: dict[Any, Any] | None = None) -> str | None:
    """None where it works at 64 pixels, else the refusal."""
    try:
        info = check_base(model, image_size=64, kwargs=kwargs)
    except BaseModelError as error:
        why = str(error)
    else:
        assert min(info.width, *info.grid, info.embedding_dim, info.params) > 0
        return None
    assert "\n" not in why
    assert model in why or "base.kwargs" in why
    return why


@pytest.mark.slow
def test_every_kind_of_timms_models_works_or_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    names = one_per_kind(2)
    assert len(names) >= 150
    refused = {name: why for name in names if (why := works_or_is_refused(name)) is not None}
    counts = Counter("refused" if name in refused else "works" for name in names)
    with capsys.disabled():
        print(f"\n{len(names)} models of {len(timm.list_modules())} files: {dict(counts)}")
        print("\n".join(refused.values()))
    assert counts["works"] >= 0.9 * len(names)
