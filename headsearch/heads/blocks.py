"""timm's blocks, adapted: without residual connections, on any width, on changing grids. The families pick from here.

A `Plain…` block is timm's block with the same weights and without its residual connections: the first block of a stage with
`first_shortcut: false`. Each is written out as the chain of its branches; subtracting the input from a block with residuals
would drop only the last one. Layouts: BCHW (maps), BHWC (maps, channels last), BNC (sequences of positions).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.layers.create_act import get_act_layer
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from timm.layers.norm import GroupNorm1, LayerNorm, LayerNorm2d
from timm.models.convnext import ConvNeXtBlock
from timm.models.metaformer import Attention, MetaFormerBlock
from timm.models.mlp_mixer import MixerBlock, ResBlock, SpatialGatingBlock
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headsearch.heads.common import exact_ratio
from headsearch.heads.family import BlockSpec


def norm_2d(name: str) -> type[nn.Module]:
    """The normalisation of BCHW maps called `batch`, `layer` or `group`."""
    return {"batch": nn.BatchNorm2d, "layer": LayerNorm2d, "group": GroupNorm1}[name]


class BatchNormLast(_BatchNorm):
    """Batch normalisation where channels come last: BNC or BHWC."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions will do."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every channel over images and positions."""
        return super().forward(x.movedim(-1, 1)).movedim(1, -1)


class GroupNormLast(GroupNorm1):
    """Normalisation of the whole map (one group) where channels come last: BNC or BHWC."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every image over channels and positions."""
        return super().forward(x.movedim(-1, 1)).movedim(1, -1)


def chosen_layers(spec: BlockSpec, *, norm: str = "layer", act: str = "gelu") -> dict[str, Any]:
    """What to tell a timm block with channels last whose own layers are `norm` and `act`: only what is to be different.

    A block that keeps its own layers keeps them to the last detail, such as the eps that its authors chose.
    """
    layers: dict[str, Any] = {}
    if spec["norm"] != norm:
        layers["norm_layer"] = {"layer": LayerNorm, "batch": BatchNormLast, "group": GroupNormLast}[
            spec["norm"]
        ]
    if spec["act"] != act:
        layers["act_layer"] = get_act_layer(spec["act"])
    return layers


def make_block(spec: BlockSpec, plain: type[nn.Module], *, norm: str = "layer", **options: Any) -> nn.Module:
    """A block with channels last, whose own normalisation is `norm`: `plain` without a shortcut, else the block of timm's that it derives from."""
    kind: Any = plain.__base__ if spec.shortcut else plain
    block: nn.Module = kind(spec.width, drop_path=spec.drop_path, **options, **chosen_layers(spec, norm=norm))
    return block


def chain(*parts: str) -> Any:
    """A forward pass through these parts of a block, one after the other: its branches without what is added to them."""

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        for part in parts:
            x = getattr(self, part)(x)
        return x

    return forward


class PlainConvNeXtBlock(ConvNeXtBlock):
    """BCHW to BCHW."""

    def forward(self, x: Tensor) -> Tensor:
        """Depthwise convolution, norm, MLP."""
        x = self.norm(self.conv_dw(x).permute(0, 2, 3, 1))
        out: Tensor = self.mlp(x).permute(0, 3, 1, 2)
        return out


class PlainBasicBlock(BasicBlock):
    """BCHW to BCHW: two 3×3 convolutions."""

    forward = chain("conv1", "bn1", "act1", "conv2", "bn2", "act2")


class WidthBottleneck(Bottleneck):
    """timm's `Bottleneck` told its outer width (`planes`) instead of a quarter of it, so that any width will do."""

    expansion = 1

    def __init__(self, width: int, inner: int, **options: Any) -> None:
        """`width` channels outside, `inner` inside."""
        # timm derives the inner width from `base_width`, declared an integer but used as the ratio of inner to 64.
        super().__init__(width, width, base_width=64 * exact_ratio(width, inner), **options)  # type: ignore[arg-type]


class PlainWidthBottleneck(WidthBottleneck):
    """BCHW to BCHW: 1×1, 3×3 and 1×1 convolutions."""

    forward = chain("conv1", "bn1", "act1", "conv2", "bn2", "act2", "conv3", "bn3", "act3")


class PlainTransformerBlock(Block):
    """BNC to BNC: attention, then the MLP."""

    forward = chain("norm1", "attn", "norm2", "mlp")


class SwinBlock(SwinTransformerBlock):
    """timm's block for changing grids (`dynamic_mask`), with the mask of each grid made once and kept. BHWC to BHWC."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._masks: dict[tuple[int, int, torch.device, torch.dtype], Tensor | None] = {}

    def get_attn_mask(
        self,
        x: Tensor | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor | None:
        """What may attend to what after the shift; None without a shift. `x` is the padded map, BHWC."""
        if x is None or not any(self.shift_size):
            return super().get_attn_mask(x, device, dtype)
        key = (x.shape[1], x.shape[2], x.device, x.dtype)
        if key not in self._masks:
            self._masks[key] = super().get_attn_mask(x)
        return self._masks[key]

    def __getstate__(self) -> dict[str, Any]:
        """Without the masks: they are quickly made again, and a copy for another device has no use for them."""
        return {**self.__dict__, "_masks": {}}


class PlainSwinBlock(SwinBlock):
    """BHWC to BHWC: attention within windows, then the MLP."""

    forward = chain("norm1", "_attn", "norm2", "mlp")


class PlainMixerBlock(MixerBlock):
    """BNC to BNC."""

    def forward(self, x: Tensor) -> Tensor:
        """The MLP over positions, then the one over channels."""
        x = self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.mlp_channels(self.norm2(x))
        return out


class PlainResBlock(ResBlock):
    """BNC to BNC."""

    def forward(self, x: Tensor) -> Tensor:
        """The linear map over positions, then the MLP over channels."""
        x = self.ls1 * self.linear_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.ls2 * self.mlp_channels(self.norm2(x))
        return out


class PlainGatingBlock(SpatialGatingBlock):
    """BNC to BNC: the gated MLP."""

    forward = chain("norm", "mlp_channels")


class PlainMetaFormerBlock(MetaFormerBlock):
    """BCHW to BCHW: the token mixer, then the MLP."""

    forward = chain("norm1", "token_mixer", "norm2", "mlp")


class MapAttention(Attention):
    """The MetaFormer's self-attention on maps: BCHW to BCHW. With channels last in memory the change of layout is a view."""

    def forward(self, x: Tensor) -> Tensor:
        """Attend between all positions."""
        x_BNC: Tensor = super().forward(x.flatten(2).transpose(1, 2))  # type: ignore[no-untyped-call]
        return x_BNC.transpose(1, 2).reshape(x.shape)


def make_metaformer_block(
    spec: BlockSpec, *, mlp_act: type[nn.Module], mlp_bias: bool, **options: Any
) -> nn.Module:
    """timm's `MetaFormerBlock` with an MLP of the ratio asked for (timm's own is always 4). BCHW to BCHW."""
    make: Callable[..., MetaFormerBlock] = MetaFormerBlock if spec.shortcut else PlainMetaFormerBlock
    block = make(spec.width, mlp_act=mlp_act, mlp_bias=mlp_bias, drop_path=spec.drop_path, **options)
    block.mlp = Mlp(
        spec.width, int(spec.width * spec["mlp_ratio"]), act_layer=mlp_act, bias=mlp_bias, use_conv=True
    )
    return block


class MlpBlock(nn.Module):
    """LayerNorm and MLP at each position on its own: the second half of a ViT block. BNC to BNC."""

    def __init__(self, width: int, mlp_ratio: float, *, shortcut: bool, drop_path: float) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """The MLP's output, added to the input where there is a shortcut."""
        change: Tensor = self.mlp(self.norm(x))
        return x + self.drop_path(change) if self.shortcut else change
