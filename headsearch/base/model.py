"""Any timm model, or a module of the user's, as a base: images in; a feature map, before the final norm, and the model's own embedding out.

timm's `forward_intermediates` gives both in one pass, for transformers, convolutional networks and MLPs alike. The model
itself is untouched: `Base.model` is what pretraining improves and what gets exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from headsearch.base.info import BaseInfo
from headsearch.base.kind import count_blocks, nearest_family
from headsearch.base.own import OwnBase, create_own, own_channels, own_output
from headsearch.base.timm_models import create, in_short, model_options
from headsearch.base.weights import load_weights
from headsearch.errors import BaseModelError
from headsearch.plugins import is_factory, short_name


class BaseOutput(NamedTuple):
    """What a base makes of a batch of images."""

    map: Tensor
    """The feature map that heads work on, before the final norm, BCHW; class and register tokens left out."""
    embedding: Tensor
    """After the model's own norm and pooling, BD."""


class Base(nn.Module):
    """A timm model without its classifier, or a module of the user's."""

    def __init__(self, model: nn.Module, info: BaseInfo) -> None:
        super().__init__()
        self.model = model
        self.info = info

    def forward(self, images_BCHW: Tensor) -> BaseOutput:
        """Map and embedding of normalised images."""
        return _forward(self.model, images_BCHW, self.info.stage)


def load_base(
    model: str,
    *,
    image_size: int,
    channels: int | None = 3,
    kwargs: Mapping[str, Any] | None = None,
    weights: str | None = None,
    stage: int = -1,
) -> Base:
    """The timm model of that name as a base for square images of `image_size` pixels with so many channels; None: as many as it is made for.

    `kwargs` go to timm's `create_model`; a model made for one image size is told `img_size` unless they say it.
    `weights` is None (random, from torch's global generator), `pretrained` (timm's, fetched if need be), or a file of the
    model's state: safetensors, or what `torch.load(weights_only=True)` reads.
    `model` may also be a factory, `file.py:name` or `package.module:name`; `headsearch.base.own` says what it makes. It takes `kwargs` alone.
    `stage` is the feature map that heads work on, an index into those of timm's `forward_intermediates`: -1 the last, -2 the one before.

    Raises `BaseModelError` for an unknown name, keyword or stage, an image size that the model cannot take, weights that do not fit.
    """
    if is_factory(model):
        made = _own(model, kwargs or {}, weights, stage)
        channels = own_channels(made) if channels is None else channels
    else:
        channels = 3 if channels is None else channels
        options = model_options(model, image_size, kwargs or {}, channels)
        made = create(model, options, kwargs or {}, pretrained=weights == "pretrained")
    if weights not in (None, "pretrained"):
        load_weights(made, model, str(weights))
    return Base(made, _measure(made, model, image_size, channels, torch.device("cpu"), stage))


def empty_base(
    model: str,
    *,
    image_size: int,
    channels: int = 3,
    kwargs: Mapping[str, Any] | None = None,
    stage: int = -1,
) -> Base:
    """A base without its weights, on torch's meta device: built and looked at in a fraction of a second at any size.

    Raises `BaseModelError` as `load_base` does.
    """
    if is_factory(model):
        # It may do anything, and need not go with a device without memory.
        return load_base(model, image_size=image_size, channels=channels, kwargs=kwargs, stage=stage)
    options = model_options(model, image_size, kwargs or {}, channels)
    meta = torch.device("meta")
    try:
        with meta:
            made = create(model, options, kwargs or {})
            return Base(made, _measure(made, model, image_size, channels, meta, stage))
    except BaseModelError as error:
        if "meta" not in str(error):
            raise
    # It looks at values, and there are none.
    return load_base(model, image_size=image_size, channels=channels, kwargs=kwargs, stage=stage)


def check_base(
    model: str, *, image_size: int, kwargs: Mapping[str, Any] | None = None, stage: int = -1
) -> BaseInfo:
    """Facts about a base without its weights.

    Raises `BaseModelError` as `load_base` does.
    """
    return empty_base(model, image_size=image_size, kwargs=kwargs, stage=stage).info


def check_size(base: Base, size: int) -> None:
    """Check that a base built for one image size takes another too, as local crops ask of it.

    Raises `BaseModelError` where it does not.
    """
    device = next(base.parameters()).device
    _measure(base.model, base.info.model, size, base.info.channels, device, base.info.stage)


def _own(reference: str, kwargs: Mapping[str, Any], weights: str | None, stage: int) -> nn.Module:
    name = short_name(reference)
    if weights == "pretrained":
        raise BaseModelError(
            f"base.weights: {name} has no pretrained weights of timm's; expected null, or a file"
        )
    if stage != -1:
        raise BaseModelError(f"base.stage is {stage}: {name} has one feature map; expected -1")
    return create_own(reference, kwargs)


def _forward(model: nn.Module, images_BCHW: Tensor, stage: int) -> BaseOutput:
    if isinstance(model, OwnBase):
        return BaseOutput(*own_output(model, images_BCHW))
    final, maps = model.forward_intermediates(  # type: ignore[operator]
        images_BCHW, indices=[stage], norm=False, output_fmt="NCHW", intermediates_only=False
    )
    return BaseOutput(maps[-1], model.forward_head(final, pre_logits=True))  # type: ignore[operator]


def _measure(
    made: nn.Module, model: str, image_size: int, channels: int, device: torch.device, stage: int
) -> BaseInfo:
    """Run one image and see. The model is left in the mode it was in."""
    model = short_name(model)
    was_training = made.training
    trainable = [weight for weight in made.parameters() if weight.requires_grad]
    made.eval().requires_grad_(False)  # the counter trips over views of trainable weights, no_grad or not
    counter = FlopCounterMode(display=False)
    size = f"{image_size}x{image_size} pixels"
    try:
        with torch.no_grad(), counter:
            image = torch.zeros(1, channels, image_size, image_size, device=device)
            output = _forward(made, image, stage)
        shapes = tuple(output.map.shape), tuple(output.embedding.shape)
        finite = device.type == "meta" or all(bool(torch.isfinite(value).all()) for value in output)
    except Exception as error:
        # Models are free to raise anything about an image that they cannot take.
        raise BaseModelError(_refusal(made, model, size, channels, stage, error)) from error
    finally:
        made.train(was_training)
        for weight in trainable:
            weight.requires_grad_(True)
    if (len(shapes[0]), len(shapes[1])) != (4, 2) or 0 in shapes[0] or 0 in shapes[1]:
        raise BaseModelError(
            f"{model} cannot be a base at {size}: its map has shape {shapes[0]}, its embedding {shapes[1]} "
            f"(expected B,C,H,W and B,D)"
        )
    if not finite:
        raise BaseModelError(
            f"{model} cannot be a base: with these weights a black image gives values that are not finite"
        )
    _, width, rows, columns = output.map.shape
    return BaseInfo(
        model=model,
        family=nearest_family(made),
        width=width,
        grid=(rows, columns),
        embedding_dim=output.embedding.shape[1],
        depth=count_blocks(made),
        params=sum(weight.numel() for weight in trainable),
        flops=int(counter.get_total_flops()),
        image_size=image_size,
        stage=stage,
        channels=channels,
    )


def _refusal(made: nn.Module, model: str, size: str, channels: int, stage: int, error: Exception) -> str:
    """Why a model does not take an image, and which it would take."""
    if isinstance(made, OwnBase):
        takes = own_channels(made)
        if takes != channels:
            return f"{model} takes images with {takes} channels, and these have {channels}; expected data.channels: {'rgb' if takes == 3 else takes}"
        return f"{model} cannot be a base at {size}: {in_short(error)}"
    if "feature index" in str(error):
        return f"{model} has no feature map {stage} (base.stage): {in_short(error)}"
    own = (getattr(made, "pretrained_cfg", None) or {}).get("input_size")
    hint = f" (timm makes it for {own[-2]}x{own[-1]})" if own else ""
    return f"{model} cannot take images of {size}: {in_short(error)}{hint}"
