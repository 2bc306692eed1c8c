"""Any timm model as a base: its last map before the norm, its own embedding, and facts about it."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from headsearch.base.model import check_base, load_base
from headsearch.errors import BaseModelError

TINY_VIT: dict[str, Any] = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}

MODELS: list[tuple[str, int, str, int, tuple[int, int]]] = [
    ("vit_tiny_patch16_224", 64, "vit", 192, (4, 4)),
    ("vit_base_patch16_gap_224", 32, "vit", 768, (2, 2)),
    ("vit_small_patch14_reg4_dinov2", 56, "vit", 384, (4, 4)),
    ("swin_tiny_patch4_window7_224", 64, "swin", 768, (2, 2)),
    ("convnext_atto", 64, "convnext", 320, (2, 2)),
    ("resnet18", 64, "resnet", 512, (2, 2)),
    ("mobilenetv3_small_100", 64, "mbconv", 576, (2, 2)),
    ("mixer_s32_224", 64, "mixer", 512, (2, 2)),
    ("resmlp_12_224", 32, "resmlp", 384, (2, 2)),
    ("gmlp_ti16_224", 32, "gmlp", 128, (2, 2)),
    ("efficientvit_b0", 64, "mbconv", 128, (2, 2)),
    ("poolformer_s12", 64, "poolformer", 512, (2, 2)),
    ("caformer_s18", 64, "metaformer", 512, (2, 2)),
    ("hiera_tiny_224", 64, "vit", 768, (2, 2)),
    ("cait_xxs24_224", 32, "vit", 192, (2, 2)),
]


@pytest.mark.parametrize(("name", "image_size", "family", "width", "grid"), MODELS)
def test_models_of_every_kind_give_their_own_embedding_and_a_map(
    name: str, image_size: int, family: str, width: int, grid: tuple[int, int]
) -> None:
    base = load_base(name, image_size=image_size).eval()
    assert (base.info.family, base.info.width, base.info.grid) == (family, width, grid)
    images = torch.randn(2, 3, image_size, image_size)
    with torch.no_grad():
        output = base(images)
        own = base.model.forward_head(base.model.forward_features(images), pre_logits=True)  # type: ignore[operator]
    assert output.map.shape == (2, width, *grid)
    assert output.embedding.shape == (2, base.info.embedding_dim)
    torch.testing.assert_close(output.embedding, own)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "resnet18", "swin_tiny_patch4_window7_224", "convnext_atto"]
)
def test_facts_without_weights_are_the_facts(name: str) -> None:
    assert check_base(name, image_size=64) == load_base(name, image_size=64).info


def test_facts_of_a_vit_are_those_counted_by_hand() -> None:
    info = load_base("vit_tiny_patch16_224", image_size=16, kwargs=TINY_VIT).info
    width, tokens, hidden = 32, 17, 128
    block = (
        3 * width * width
        + 3 * width
        + width * width
        + width
        + 2 * width * hidden
        + hidden
        + width
        + 4 * width
    )
    embed = 3 * 4 * 4 * width + width + tokens * width + width  # patches, positions, class token
    assert info.params == 2 * block + embed + 2 * width
    multiply_adds = 16 * 48 * width + 2 * (
        tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
    )
    assert info.flops == 2 * multiply_adds
    assert (info.depth, info.grid, info.width, info.embedding_dim, info.image_size) == (2, (4, 4), 32, 32, 16)


def test_the_map_is_taken_before_the_final_norm_and_without_class_and_register_tokens() -> None:
    base = load_base("vit_small_patch14_reg4_dinov2", image_size=28, kwargs={"depth": 1}).eval()
    images = torch.randn(1, 3, 28, 28)
    seen: list[torch.Tensor] = []
    base.model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    with torch.no_grad():
        map_BCHW = base(images).map
    patches = seen[0][0, 1 + 4 :]  # one class token, four registers
    torch.testing.assert_close(map_BCHW[0].flatten(1).T, patches)


def test_measuring_leaves_the_model_as_it_was() -> None:
    base = load_base("mobilenetv3_small_100", image_size=32)
    assert base.training
    assert base.model.training
    assert all(weight.requires_grad for weight in base.parameters())
    assert all(
        torch.equal(b, torch.zeros_like(b)) for n, b in base.named_buffers() if n.endswith("running_mean")
    )


def test_the_same_seed_gives_the_same_base() -> None:
    torch.manual_seed(5)
    first = load_base("vit_tiny_patch16_224", image_size=16, kwargs=TINY_VIT).state_dict()
    torch.manual_seed(5)
    again = load_base("vit_tiny_patch16_224", image_size=16, kwargs=TINY_VIT).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.items())


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_come_from_a_file_and_a_classifier_in_it_is_left_out(tmp_path: Path, suffix: str) -> None:
    trained = timm.create_model("vit_tiny_patch16_224", num_classes=7, **TINY_VIT)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": trained.state_dict()}, path)
    else:
        save_file(trained.state_dict(), path)
    base = load_base("vit_tiny_patch16_224", image_size=16, kwargs=TINY_VIT, weights=str(path))
    for name, value in base.model.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name])


def test_weights_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    wide = timm.create_model("vit_tiny_patch16_224", num_classes=0, **{**TINY_VIT, "embed_dim": 64})
    save_file(wide.state_dict(), tmp_path / "wide.safetensors")
    with pytest.raises(BaseModelError, match=r"cls_token has shape \(1, 1, 64\), expected \(1, 1, 32\)"):
        load_base(
            "vit_tiny_patch16_224", image_size=16, kwargs=TINY_VIT, weights=str(tmp_path / "wide.safetensors")
        )


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "no file"),
        (b"not weights", "is neither safetensors nor a dictionary of tensors"),
        ({"other": torch.ones(1)}, "does not fit resnet18: it lacks conv1.weight"),
    ],
)
def test_a_file_that_is_no_weights_is_refused(tmp_path: Path, state: object, message: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(state, bytes):
        path.write_bytes(state)
    elif state is not None:
        torch.save(state, path)
    with pytest.raises(BaseModelError, match=message):
        load_base("resnet18", image_size=32, weights=str(path))


@pytest.mark.parametrize(
    ("name", "image_size", "kwargs", "message"),
    [
        (
            "vit_tiny_patch16_22",
            64,
            {},
            "timm has no model 'vit_tiny_patch16_22'; did you mean 'vit_tiny_patch16_224'",
        ),
        ("zzz", 64, {}, "timm has no model 'zzz'"),
        ("resnet18", 64, {"foo": 1}, "resnet18 takes no keyword 'foo'"),
        ("resnet18", 64, {"img_size": 64}, "resnet18 takes no keyword 'img_size'"),
        ("resnet18", 64, {"in_chans": 1}, "base.kwargs.in_chans is 1: data.channels makes it 3"),
        ("resnet18", 64, {"num_classes": 3}, "base.kwargs sets 'num_classes'"),
        ("vit_tiny_patch16_224", 10, {}, "vit_tiny_patch16_224 cannot take images of 10x10 pixels"),
        ("convnext_atto", 16, {}, "convnext_atto cannot take images of 16x16 pixels"),
        (
            "vit_tiny_patch16_224",
            64,
            {"img_size": 32},
            "base.kwargs.img_size is 32: expected data.image_size, 64",
        ),
        ("vit_tiny_patch16_224", 64, {"embed_dim": 50}, "cannot be built with embed_dim=50"),
        ("vit_tiny_patch16_224", 32, {"global_pool": ""}, "cannot be a base at 32x32 pixels"),
    ],
)
@pytest.mark.parametrize("load", [load_base, check_base])
def test_what_cannot_be_a_base_is_refused_in_one_line(
    name: str, image_size: int, kwargs: dict[str, Any], message: str, load: Any
) -> None:
    with pytest.raises(BaseModelError, match=message) as raised:
        load(name, image_size=image_size, kwargs=kwargs)
    assert "\n" not in str(raised.value)


def test_an_image_size_may_be_said_twice() -> None:
    assert check_base("vit_tiny_patch16_224", image_size=32, kwargs={"img_size": [32, 32]}).grid == (2, 2)


@pytest.mark.parametrize(
    ("model", "image_size", "kwargs"),
    [("mobilenetv3_small_050", 32, {}), ("convnext_atto", 32, {}), ("vit_tiny_patch16_224", 16, TINY_VIT)],
)
def test_an_earlier_map_may_be_the_one_that_heads_work_on(
    model: str, image_size: int, kwargs: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    last = load_base(model, image_size=image_size, kwargs=kwargs).eval()
    torch.manual_seed(0)
    earlier = load_base(model, image_size=image_size, kwargs=kwargs, stage=-2).eval()
    images = torch.randn(2, 3, image_size, image_size)
    with torch.no_grad():
        maps = earlier.model.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
        output = earlier(images)
        torch.testing.assert_close(output.embedding, last(images).embedding)
    torch.testing.assert_close(output.map, maps[-2])
    assert output.map.shape == (2, earlier.info.width, *earlier.info.grid)
    assert earlier.info == check_base(model, image_size=image_size, kwargs=kwargs, stage=-2)
    assert earlier.info.grid >= last.info.grid


def test_a_map_that_is_not_there_is_refused() -> None:
    with pytest.raises(BaseModelError, match=r"has no feature map -9 \(base.stage\)"):
        check_base("resnet18", image_size=64, stage=-9)


def test_a_model_that_looks_at_values_is_built_to_be_looked_at() -> None:
    assert check_base("test_vit", image_size=32).grid == load_base("test_vit", image_size=32).info.grid
