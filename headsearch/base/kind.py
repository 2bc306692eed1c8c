"""What kind of network a timm model is: how many blocks it has, and which family of heads is nearest to them.

timm names block classes by what they are, so names decide; a class without a telling name is judged by what it contains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

_BLOCK = re.compile(r"(Block(2d|V2)?|Bottleneck|Residual|SeparableConv)$")
_ATTENDS = re.compile(r"Attention|Attn")

_FAMILY_BY_NAME = (
    (re.compile(r"^Swin"), "swin"),
    (re.compile(r"^ConvNeXt"), "convnext"),
    (re.compile(r"^(BasicBlock|Bottleneck)$"), "resnet"),
    (re.compile(r"InvertedResidual$"), "mbconv"),
    (re.compile(r"^MixerBlock$"), "mixer"),
    (re.compile(r"^ResBlock$"), "resmlp"),
    (re.compile(r"^SpatialGatingBlock$"), "gmlp"),
)


def count_blocks(model: nn.Module) -> int:
    """Number of outermost blocks; of layers with a weight matrix or kernel where the model has no blocks, as VGG."""
    blocks = sum(1 for _ in _blocks(model))
    return blocks or sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules())


def nearest_family(model: nn.Module) -> str:
    """Family of heads nearest to the model's last block, the one a head would follow.

    Blocks without a telling name are `vit` if they attend, `mbconv` if they hold depthwise convolutions, `resnet` if they
    convolve at all, and `mlp` otherwise. A model without blocks is judged as one.
    """
    block = next(reversed(list(_blocks(model))), model)
    name = type(block).__name__
    if name == "MetaFormerBlock":
        return "poolformer" if type(block.token_mixer).__name__ == "Pooling" else "metaformer"
    for pattern, family in _FAMILY_BY_NAME:
        if pattern.search(name):
            return family
    if any(_ATTENDS.search(type(module).__name__) for module in block.modules()):
        return "vit"
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    if any(module.groups == module.in_channels > 1 for module in convolutions):
        return "mbconv"
    return "resnet" if convolutions else "mlp"


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks inside a module in the order they are registered; blocks within blocks are left out."""
    for child in module.children():
        if _BLOCK.search(type(child).__name__):
            yield child
        else:
            yield from _blocks(child)
