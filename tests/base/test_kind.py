"""What kind of network a timm model is. Built without memory: only the modules' names matter."""

import pytest
import timm
import torch

from headsearch.base.kind import count_blocks, nearest_family


@pytest.mark.parametrize(
    ("name", "family", "blocks"),
    [
        ("vit_tiny_patch16_224", "vit", 12),
        ("beit_base_patch16_224", "vit", 12),
        ("swinv2_tiny_window8_256", "swin", 12),
        ("convnextv2_atto", "convnext", 12),
        ("resnet50", "resnet", 16),
        ("regnety_002", "resnet", 13),
        ("efficientnet_b0", "mbconv", 16),
        ("mobilenetv4_conv_small", "mbconv", 12),
        ("mixer_s16_224", "mixer", 8),
        ("resmlp_12_224", "resmlp", 12),
        ("gmlp_ti16_224", "gmlp", 30),
        ("poolformer_s12", "poolformer", 12),
        ("convformer_s18", "metaformer", 18),
        ("vgg11", "resnet", 10),
    ],
)
def test_kinds_of_models(name: str, family: str, blocks: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    assert (nearest_family(model), count_blocks(model)) == (family, blocks)
