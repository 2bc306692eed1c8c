"""MetaFormer baselines: one block, several token mixers (Yu et al., arXiv 2210.13452).

timm has four: `identity` (IdentityFormer: no mixing at all), `pooling` (PoolFormerV2), `sepconv` (ConvFormer) and
`attention` (CAFormer's later stages).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headsearch.base.info import BaseInfo
from headsearch.heads import common
from headsearch.heads.config import Params
from headsearch.heads.family import BlockSpec, Family, Parameter
from headsearch.heads.poolformer import pool_size_parameter, resolve_pool_size

if TYPE_CHECKING:
    from torch import nn

_DEFAULT_KERNEL = 7
_DEFAULT_POOL = 3


def block(spec: BlockSpec) -> nn.Module:
    """timm's `MetaFormerBlock` without biases, as the baselines have it, and without scales. Batch norm comes with its own bias."""
    from timm.layers.create_act import get_act_layer
    from timm.models.metaformer import GroupNorm1NoBias, LayerNorm2dNoBias, Pooling, SepConv, StarReLU
    from torch import nn

    from headsearch.heads.blocks import MapAttention, make_metaformer_block

    mixer: type[nn.Module]
    options: dict[str, Any]
    match spec["token_mixer"]:
        case "sepconv":
            kernel = spec["kernel_size"]
            mixer, options = SepConv, {"kernel_size": kernel, "padding": kernel // 2}
        case "pooling":
            mixer, options = Pooling, {"pool_size": spec["pool_size"]}
        case "attention":
            heads = spec["num_heads"]
            mixer, options = MapAttention, {"num_heads": heads, "head_dim": spec.width // heads}
        case _:
            mixer, options = nn.Identity, {}
    norms = {"layer": LayerNorm2dNoBias, "group": GroupNorm1NoBias, "batch": nn.BatchNorm2d}
    return make_metaformer_block(
        spec,
        token_mixer=mixer,
        norm_layer=norms[spec["norm"]],
        mlp_act=StarReLU if spec["act"] == "starrelu" else get_act_layer(spec["act"]),
        mlp_bias=False,
        **options,
    )


def simplify(params: Params) -> tuple[str, Params]:
    """Each of kernel size, pool size and heads means something to one token mixer alone, and is null for the others."""
    mixer = params["token_mixer"]
    kernel = params["kernel_size"] or _DEFAULT_KERNEL
    pool = params["pool_size"] or _DEFAULT_POOL
    return "metaformer", {
        **params,
        "kernel_size": kernel if mixer == "sepconv" else None,
        "pool_size": pool if mixer == "pooling" else None,
        "num_heads": params["num_heads"] if mixer == "attention" else None,
    }


def resolve(params: Params, base: BaseInfo) -> Params:
    """The canonical MLP ratio, and heads or pool size where the token mixer has them."""
    resolved = common.resolve_mlp_ratio(params, base)
    if params["token_mixer"] == "attention":
        return common.resolve_num_heads(resolved, base)
    if params["token_mixer"] == "pooling":
        return resolve_pool_size(resolved, base)
    return resolved


def _of_mixer(parameter: Parameter, mixer: str) -> Parameter:
    """The parameter, null by default: it goes with one token mixer."""
    default = "" if parameter.default is None else f"; null: {parameter.default}"
    return replace(parameter, default=None, nullable=True, doc=f"with {mixer}: {parameter.doc}{default}")


FAMILY = Family(
    name="metaformer",
    doc="One transformer-like block with a token mixer of choice (MetaFormer baselines, arXiv 2210.13452).",
    parameters=(
        *common.COMMON_PARAMETERS,
        Parameter(
            "token_mixer",
            "str",
            "sepconv",
            "how positions are mixed",
            choices=("sepconv", "pooling", "attention", "identity"),
            slug="",
        ),
        _of_mixer(common.kernel_parameter(_DEFAULT_KERNEL), "sepconv"),
        _of_mixer(pool_size_parameter(_DEFAULT_POOL), "pooling"),
        _of_mixer(common.num_heads_parameter(), "attention"),
        common.mlp_ratio_parameter(),
        Parameter(
            "norm",
            "str",
            "layer",
            "normalisation: of a position (layer), of the whole map (group), or of a channel over the batch (batch)",
            choices=("layer", "group", "batch"),
        ),
        Parameter(
            "act", "str", "starrelu", "activation of the MLP", choices=("starrelu", *common.ACTIVATIONS)
        ),
    ),
    layout="BCHW",
    block=block,
    simplify=simplify,
    resolve=resolve,
)
