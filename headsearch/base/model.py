"""Any timm model as a base: images in; the last feature map, before the final norm, and the model's own embedding out.

timm's `forward_intermediates` gives both in one pass, for transformers, convolutional networks and MLPs alike. The model
itself is untouched: `Base.model` is what pretraining improves and what gets exported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from headsearch.base.info import BaseInfo
from headsearch.base.kind import count_blocks, nearest_family
from headsearch.errors import BaseModelError, did_you_mean

_RESERVED = ("checkpoint_path", "features_only", "num_classes", "pretrained")


class BaseOutput(NamedTuple):
    """What a base makes of a batch of images."""

    map: Tensor
    """The last feature map before the final norm, BCHW; class and register tokens left out."""
    embedding: Tensor
    """After the model's own norm and pooling, BD."""


class Base(nn.Module):
    """A timm model without its classifier."""

    def __init__(self, model: nn.Module, info: BaseInfo) -> None:
        super().__init__()
        self.model = model
        self.info = info

    def forward(self, images_BCHW: Tensor) -> BaseOutput:
        """Map and embedding of normalised images."""
        return _forward(self.model, images_BCHW)


def load_base(
    model: str, *, image_size: int, kwargs: Mapping[str, Any] | None = None, weights: str | None = None
) -> Base:
    """The timm model of that name as a base for square images of `image_size` pixels.

    `kwargs` go to timm's `create_model`; a model made for one image size is told `img_size` unless they say it.
    `weights` is None (random, from torch's global generator), `pretrained` (timm's, fetched if need be), or a file of the
    model's state: safetensors, or what `torch.load(weights_only=True)` reads.

    Raises `BaseModelError` for an unknown name or keyword, an image size that the model cannot take, weights that do not fit.
    """
    options = model_options(model, image_size, kwargs or {})
    made = _create(model, options, kwargs or {}, pretrained=weights == "pretrained")
    if weights not in (None, "pretrained"):
        _load_weights(made, model, str(weights))
    return Base(made, _measure(made, model, image_size, torch.device("cpu")))


def empty_base(model: str, *, image_size: int, kwargs: Mapping[str, Any] | None = None) -> Base:
    """A base without its weights, on torch's meta device: built and looked at in a fraction of a second at any size.

    Raises `BaseModelError` as `load_base` does.
    """
    options = model_options(model, image_size, kwargs or {})
    meta = torch.device("meta")
    with meta:
        made = _create(model, options, kwargs or {}, pretrained=False)
        return Base(made, _measure(made, model, image_size, meta))


def check_base(model: str, *, image_size: int, kwargs: Mapping[str, Any] | None = None) -> BaseInfo:
    """Facts about a base without its weights.

    Raises `BaseModelError` as `load_base` does.
    """
    return empty_base(model, image_size=image_size, kwargs=kwargs).info


def check_size(base: Base, size: int) -> None:
    """Check that a base built for one image size takes another too, as local crops ask of it.

    Raises `BaseModelError` where it does not.
    """
    device = next(base.parameters()).device
    _measure(base.model, base.info.model, size, device)


def _forward(model: nn.Module, images_BCHW: Tensor) -> BaseOutput:
    final, maps = model.forward_intermediates(  # type: ignore[operator]
        images_BCHW, indices=1, norm=False, output_fmt="NCHW", intermediates_only=False
    )
    return BaseOutput(maps[-1], model.forward_head(final, pre_logits=True))  # type: ignore[operator]


def model_options(model: str, image_size: int, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords for timm's `create_model`, with the image size for models that are made for one.

    Raises `BaseModelError` for an unknown model, a keyword that headsearch sets itself, or another image size.
    """
    if ":" not in model and not timm.is_model(model):
        raise BaseModelError(f"timm has no model '{model}'{_nearest_model(model)}")
    for name in _RESERVED:
        if name in kwargs:
            raise BaseModelError(f"base.kwargs sets '{name}', which headsearch sets itself")
    options = dict(kwargs)
    asked = options.get("img_size")
    if asked is None:
        cfg = timm.get_pretrained_cfg(model, allow_unregistered=True)
        if cfg is not None and cfg.fixed_input_size and cfg.input_size[-1] != image_size:
            options["img_size"] = image_size
    elif asked not in (image_size, [image_size, image_size], (image_size, image_size)):
        raise BaseModelError(f"base.kwargs.img_size is {asked}: expected data.image_size, {image_size}")
    return options


def _create(
    model: str, options: Mapping[str, Any], asked: Mapping[str, Any], *, pretrained: bool
) -> nn.Module:
    """The model with `options`, of which the user has `asked` for some."""
    try:
        made: nn.Module = timm.create_model(model, pretrained=pretrained, num_classes=0, **options)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument[^']*'(\w+)'", str(error))
        if unknown is None:
            raise BaseModelError(f"{model} cannot be built with {_shown(options)}: {_line(error)}") from error
        if unknown[1] not in asked:
            raise BaseModelError(
                f"{model} takes images of its own size only, not of {options['img_size']} pixels"
            ) from error
        raise BaseModelError(f"{model} takes no keyword '{unknown[1]}' (base.kwargs)") from error
    except (ArithmeticError, AssertionError, LookupError, OSError, RuntimeError, ValueError) as error:
        what = "timm's weights" if pretrained else "this configuration"
        raise BaseModelError(
            f"{model} cannot be built with {what} ({_shown(options)}): {_line(error)}"
        ) from error
    if not hasattr(made, "forward_intermediates"):
        raise BaseModelError(
            f"{model} cannot be a base: timm offers no feature maps of it (forward_intermediates)"
        )
    return made


def _load_weights(made: nn.Module, model: str, path: str) -> None:
    """Load a file into the model; a classifier in the file is left out, all else must fit."""
    if not Path(path).is_file():
        raise BaseModelError(f"base.weights: no file '{path}' (expected null, pretrained, or a file)")
    try:
        state = load_state_dict(path, weights_only=True)
    except (
        AttributeError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        SafetensorError,
        UnpicklingError,
    ) as error:
        raise BaseModelError(
            f"base.weights: '{path}' is neither safetensors nor a dictionary of tensors that torch.load can read"
        ) from error
    classifier = getattr(made, "pretrained_cfg", {}).get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    own = made.state_dict()
    state = {name: value for name, value in state.items() if name in own or not name.startswith(prefixes)}
    for name in [*own, *state]:
        if name not in state:
            raise BaseModelError(f"base.weights: '{path}' does not fit {model}: it lacks {name}")
        if name not in own:
            raise BaseModelError(f"base.weights: '{path}' does not fit {model}, which has no {name}")
        if state[name].shape != own[name].shape:
            raise BaseModelError(
                f"base.weights: '{path}' does not fit {model}: {name} has shape {tuple(state[name].shape)}, "
                f"expected {tuple(own[name].shape)}"
            )
    made.load_state_dict(state)


def _measure(made: nn.Module, model: str, image_size: int, device: torch.device) -> BaseInfo:
    """Run one image and see. The model is left in the mode it was in."""
    was_training = made.training
    trainable = [weight for weight in made.parameters() if weight.requires_grad]
    made.eval().requires_grad_(False)  # the counter trips over views of trainable weights, no_grad or not
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            output = _forward(made, torch.zeros(1, 3, image_size, image_size, device=device))
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError) as error:
        raise BaseModelError(
            f"{model} cannot take images of {image_size}x{image_size} pixels: {_line(error)}"
        ) from error
    finally:
        made.train(was_training)
        for weight in trainable:
            weight.requires_grad_(True)
    if output.map.ndim != 4 or output.map.numel() == 0 or output.embedding.ndim != 2:
        raise BaseModelError(
            f"{model} cannot be a base at {image_size}x{image_size} pixels: its map has shape {tuple(output.map.shape)}, "
            f"its embedding {tuple(output.embedding.shape)} (expected B,C,H,W and B,D)"
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
    )


def _nearest_model(name: str) -> str:
    """A tail for an error message; all of timm's names would be too long a list."""
    tail = did_you_mean(name, timm.list_models())
    return tail if "did you mean" in tail else " (see timm.list_models())"


def _line(error: Exception) -> str:
    """The first line of an error, with its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _shown(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "no keywords"
