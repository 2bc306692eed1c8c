"""timm, wrapped once: which models there are, what each is made for, and how one is built.

Whatever timm raises becomes a `BaseModelError` of one line. Names that timm has replaced are taken for their successors, and weights that
have to be fetched are given up at once where their host cannot be reached.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
from huggingface_hub import constants as hub
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from timm.models import (
    PretrainedCfg,
    get_arch_pretrained_cfgs,
    get_deprecated_models,
    resolve_model_input_args,
)
from torch import nn

from headsearch.errors import BaseModelError, did_you_mean

REACH_SECONDS = 5.0
"""For the host of timm's weights to take a connection."""
_RESERVED = ("checkpoint_path", "features_only", "num_classes", "pretrained")


def configuration(model: str) -> PretrainedCfg | None:
    """What timm knows about a model beside its structure (image size, normalisation); None where it knows nothing.

    Raises `BaseModelError` for a name that timm does not know.
    """
    name = _current(model)
    try:
        if ":" in name:
            with _hub_or_cache(model):
                return PretrainedCfg(**resolve_model_input_args(name)["pretrained_cfg"])
        return timm.get_pretrained_cfg(name, allow_unregistered=True)
    except BaseModelError:
        raise
    except Exception as error:
        raise BaseModelError(f"base.model: '{model}' cannot be read: {in_short(error)}") from error


def model_options(
    model: str, image_size: int, kwargs: Mapping[str, Any], channels: int = 3
) -> dict[str, Any]:
    """Keywords for timm's `create_model`, with the image size for models that are made for one, and the channels where they are not 3.

    Raises `BaseModelError` for an unknown model, a keyword that headsearch sets itself, or another image size or number of channels.
    """
    cfg = configuration(model)
    for name in _RESERVED:
        if name in kwargs:
            raise BaseModelError(f"base.kwargs sets '{name}', which headsearch sets itself")
    options = dict(kwargs)
    asked = options.get("img_size")
    if asked is None:
        if cfg is not None and cfg.fixed_input_size and cfg.input_size[-1] != image_size:
            options["img_size"] = image_size
    elif asked not in (image_size, [image_size, image_size], (image_size, image_size)):
        raise BaseModelError(f"base.kwargs.img_size is {asked}: expected data.image_size, {image_size}")
    if channels != options.get("in_chans", 3):
        if "in_chans" in options:
            raise BaseModelError(
                f"base.kwargs.in_chans is {options['in_chans']}: data.channels makes it {channels}; expected data.channels alone"
            )
        options["in_chans"] = channels
    return options


def create(
    model: str, options: Mapping[str, Any], asked: Mapping[str, Any], *, pretrained: bool = False
) -> nn.Module:
    """The model without a classifier, built with `options`, of which the user has `asked` for some. Raises `BaseModelError`."""
    try:
        name = _current(model)
        if pretrained or ":" in name:
            with _hub_or_cache(model):
                made: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
        else:
            made = timm.create_model(name, num_classes=0, **options)
    except BaseModelError:
        raise
    except Exception as error:
        # Models are free to raise anything about what they are given.
        unknown = re.search(r"unexpected keyword argument[^']*'(\w+)'", str(error))
        if unknown is None:
            what = "timm's weights and " if pretrained else ""
            raise BaseModelError(
                f"{model} cannot be built with {what}{_shown(options)}: {in_short(error)}"
            ) from error
        if unknown[1] == "in_chans":
            raise BaseModelError(f"{model} takes RGB images only (data.channels)") from error
        if unknown[1] not in asked:
            raise BaseModelError(
                f"{model} takes images of its own size only, not of {options['img_size']} pixels"
            ) from error
        raise BaseModelError(f"{model} takes no keyword '{unknown[1]}' (base.kwargs)") from error
    for needed in ("forward_intermediates", "forward_head"):
        if not hasattr(made, needed):
            raise BaseModelError(f"{model} cannot be a base: timm offers no feature maps of it ({needed})")
    head: Any = made.forward_head
    if "pre_logits" not in inspect.signature(head).parameters:
        raise BaseModelError(f"{model} cannot be a base: timm offers no embedding of it (pre_logits)")
    return made


def in_short(error: Exception) -> str:
    """The first line of an error, with its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _current(model: str) -> str:
    """timm's present name of a model. Raises `BaseModelError` for a name, or a tag of weights, that timm does not know."""
    if ":" in model:
        return model
    replaced = get_deprecated_models()
    if model in replaced:
        current = replaced[model]
        if current is None:
            raise BaseModelError(f"base.model: timm no longer has '{model}'")
        return current
    architecture, dot, tag = model.partition(".")
    if not timm.is_model(architecture):
        tail = did_you_mean(architecture, timm.list_models())
        # All of timm's names would be too long a list.
        hint = tail if "did you mean" in tail else " (see timm.list_models())"
        raise BaseModelError(f"timm has no model '{model}'{hint}")
    tagged = get_arch_pretrained_cfgs(architecture)
    if dot and model not in tagged:
        tail = did_you_mean(tag, [name.partition(".")[2] for name in tagged])
        raise BaseModelError(f"timm has no weights '{tag}' of {architecture}{tail}")
    return model


@contextlib.contextmanager
def _hub_or_cache(model: str) -> Iterator[None]:
    """Have the hub be given up at once where it cannot be reached, and only its local cache be asked.

    huggingface_hub tries six times, half a minute a file.
    """
    offline = hub.HF_HUB_OFFLINE
    try:
        hub.HF_HUB_OFFLINE = offline or (not model.startswith("local-dir:") and not _reachable(hub.ENDPOINT))
        yield
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise BaseModelError(
            f"{model} cannot be fetched: {urlsplit(hub.ENDPOINT).hostname} cannot be reached, and it is not in the local cache"
        ) from error
    finally:
        hub.HF_HUB_OFFLINE = offline


def _reachable(address: str) -> bool:
    """Whether the host of a URL takes connections; not asked where there is a proxy, which alone may reach it."""
    url = urlsplit(address)
    if url.scheme in getproxies() or "all" in getproxies():
        return True
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        socket.create_connection((url.hostname or "", port), timeout=REACH_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _shown(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "no keywords"
