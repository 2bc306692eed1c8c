"""The smallest bases, heads, images and schedules that show what a pretraining does: a training in a second or two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headsearch.base.model import check_base
from headsearch.experiment import DataSpec, MethodSpec
from headsearch.export import BaseFacts, ExportedBase, ExportedHead, Provenance
from headsearch.heads import parse_head
from headsearch.heads.canonical import canonical, head_id
from headsearch.pretrain import PretrainSpec

SMALL_VIT: Mapping[str, Any] = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
SMALL_HEAD: Mapping[str, Any] = {"convnext": {"depth": 1, "kernel_size": 3, "first_shortcut": False}}


def small_export(
    method: str = "mocov3",
    head: Any = SMALL_HEAD,
    model: str = "vit_tiny_patch16_224",
    kwargs: Mapping[str, Any] = SMALL_VIT,
) -> ExportedHead:
    """The content of a head.yaml for images of 16 pixels."""
    info = check_base(model, image_size=16, kwargs=kwargs)
    config = canonical(parse_head(head), info)
    content = config.to_dict()
    assert content is not None
    return ExportedHead(
        head_id=head_id(config),
        config=content,
        base=ExportedBase(model=model, kwargs=dict(kwargs), weights=None, info=BaseFacts.of(info)),
        data=DataSpec(dataset="folder", image_size=16),
        method=MethodSpec(name=method, kwargs={}),
        scores={},
        provenance=Provenance(
            experiment="small", seed=3, space="tiny", space_hash="0", versions={}, trials=[0]
        ),
    )


def small_spec(images: Path, *overrides: str, without_head: bool = False, **exported: Any) -> PretrainSpec:
    """A pretraining of 3 epochs of 3 steps on the CPU, without labels. `overrides` come on top; `exported` as for `small_export`."""
    small = (
        "recipe.epochs=3",
        "recipe.batch_size=32",
        "recipe.device=cpu",
        "recipe.probe_every=0",
        "data.labels=none",
    )
    return PretrainSpec.from_head(
        small_export(**exported), data=str(images), overrides=[*small, *overrides], without_head=without_head
    )
