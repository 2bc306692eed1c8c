"""What a pretraining leaves behind: weights that plain timm loads, the head's weights, and a card that says what they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from headsearch.base.timm_models import model_options
from headsearch.data.names import channel_count
from headsearch.experiment import DataSpec
from headsearch.files import versions, write_atomically, writing
from headsearch.pretrain.prepare import SPEC_FILE, Setup
from headsearch.pretrain.recipe import PretrainSpec
from headsearch.pretrain.result import PretrainResult
from headsearch.runs.directory import LEFT_OUT
from headsearch.training.checkpoint import save_tensors


def write_outcome(spec: PretrainSpec, out: Path, setup: Setup, result: PretrainResult) -> PretrainResult:
    """Write `base.safetensors`, `head.safetensors` where there is a head, and `README.md`; each whole or not at all.

    Raises:
        RunError: a file cannot be written.
    """
    hssl = setup.trainer.hssl
    network = hssl.student if spec.recipe.export == "student" else hssl.teacher
    with writing(out):
        save_tensors(result.weights, network.base.model.state_dict())
        if result.head_weights is not None:
            # A single head's names are those of `headsearch.export.load_head`; those of a set are numbered.
            heads = network.heads[0] if len(network.heads) == 1 else network.heads
            save_tensors(result.head_weights, heads.state_dict())
        write_atomically(out / "README.md", model_card(spec, setup, result))
    return result


def model_card(spec: PretrainSpec, setup: Setup, result: PretrainResult) -> str:
    """The text of `README.md`: how to load the weights, and how they came about."""
    recipe, dataset = spec.recipe, setup.dataset
    head = (
        "no head: plain self-supervised learning"
        if spec.head is None
        else f"`{spec.head_id}`, thrown away after training; its weights are in `head.safetensors`"
    )
    start = {None: "random", "pretrained": "timm's"}.get(spec.base.weights, f"`{spec.base.weights}`")
    in_rgb = dataset.channels == "rgb"
    mean, std = (
        tuple(round(value, 4) if in_rgb else float(f"{value:.6g}") for value in values)
        for values in (dataset.mean, dataset.std)
    )
    of = "of values from 0 to 1" if in_rgb else "of the bands as they are"
    rows = {
        "base": f"`{spec.base.model}`, from {start} weights",
        "head during training": head,
        "method": f"{spec.method.name} {_listed(spec.method.kwargs)}".strip(),
        "images": f"{len(dataset.train):,} of {_named(spec.data)} at {spec.data.image_size} pixels, without labels",
        "images left out": f"{len(dataset.left_out):,}, listed in `{LEFT_OUT}`"
        if dataset.left_out
        else "none",
        "normalisation": f"mean {mean}, standard deviation {std}, {of}",
        "weights": f"of the {recipe.export}",
        "last epoch's loss": f"{result.loss:.4f}",
        "k-NN accuracy": "not measured"
        if result.knn is None
        else f"{result.knn:.2f} % on {len(dataset.held_out):,} held-out images ({len(dataset.classes or [])} classes)",
        "time": f"{result.seconds / 3600:.2f} h, {result.images_per_second:,.0f} images/s",
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    settings = "\n".join(f"| {name} | {value} |" for name, value in recipe.model_dump().items())
    library = "timm" if spec.base.module is None else "pytorch"
    return f"""---
library_name: {library}
tags: [image-feature-extraction, {library}, self-supervised, headsearch]
---

# {spec.base.model}, pretrained with headsearch

```python
{_loading(spec)}
```

| | |
|---|---|
{table}

Heterogeneous self-supervised learning ([arXiv 2310.05108](https://arxiv.org/abs/2310.05108)): the base learnt from what the head saw, and
keeps its own structure. The whole recipe, ready to be repeated, is in `{SPEC_FILE}`:

| recipe | |
|---|---|
{settings}

What happened epoch by epoch is in `metrics.jsonl`, and for TensorBoard in `tensorboard/`.
"""


def _loading(spec: PretrainSpec) -> str:
    """The lines of Python that load the weights."""
    base = spec.base
    if base.module is None:
        options = model_options(
            base.model, spec.data.image_size, base.kwargs, channel_count(spec.data.channels)
        )
        keywords = "".join(f", {name}={value!r}" for name, value in options.items())
        return (
            "import timm\n\n"
            f'model = timm.create_model({base.model!r}, checkpoint_path="base.safetensors", num_classes=0{keywords})'
        )
    module, _, factory = base.model.removesuffix(".py").replace(".py:", ":").partition(":")
    keywords = ", ".join(f"{name}={value!r}" for name, value in base.kwargs.items())
    return (
        f"from safetensors.torch import load_file\n\nfrom {module} import {factory}\n\n"
        f'model = {factory}({keywords})\nmodel.load_state_dict(load_file("base.safetensors"))'
    )


def _named(data: DataSpec) -> str:
    """What people call the images: a folder or file by its name, not by where it lies."""
    if data.root is None or data.dataset not in ("folder", "npz"):
        return f"`{data.dataset}`"
    return f"`{Path(data.root).absolute().name}` ({data.dataset})"


def _listed(options: Mapping[str, object]) -> str:
    return f"({', '.join(f'{name} {value}' for name, value in options.items())})" if options else ""
