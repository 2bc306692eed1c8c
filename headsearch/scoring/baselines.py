"""Two published scores of an untrained network, adapted to heads, to compare our own score with: synflow and NASWOT.

Input: a head. Output: one number, larger meant to be better. Neither trains or reads labels, and synflow does not even read data. Only
`headsearch space score --baselines` computes them, and nothing is chosen by them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from headsearch.heads.build import Head

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)
_RECTIFIERS = frozenset({"ReLU", "GELU", "SiLU"})
"""Names of classes, since timm has a GELU of its own. Gates (sigmoid) and softmax divide the input into no regions."""


def baseline_scores(head: Head, maps_BCHW: Tensor) -> dict[str, float]:
    """`synflow` and `naswot` by name, if they are defined. The head cannot be used afterwards."""
    values = {"naswot": naswot(head, maps_BCHW), "synflow": synflow(head)}
    return {name: value for name, value in values.items() if value is not None}


def synflow(head: Head) -> float | None:
    """ln(1 + S), with S the sum over all weights θ of matrices and kernels of |θ · ∂R/∂θ|, and R the sum of the head's map of all ones.

    Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow", NeurIPS 2020 (arXiv 2006.05467),
    equation 2, with all parameters replaced by their absolute values. As a score of architectures, and hence without normalisation layers:
    Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021 (arXiv 2101.08134). In float64. The logarithm keeps the order: S grows
    exponentially with depth. None if S is too large for float64. The norm of the embedding is left out. The head cannot be used afterwards: a copy would
    take as long as all the rest.
    """
    head.double().eval()
    _drop_norms(head)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.abs_()
    device = next(head.parameters()).device
    flow = head(torch.ones(1, head.width, *head.grid, dtype=torch.float64, device=device)).sum()
    weights = [layer.weight for layer in head.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    gradients = torch.autograd.grad(flow, weights, allow_unused=True)
    saliency = sum(
        float((weight.detach() * gradient).abs().sum())
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None
    )
    return math.log1p(saliency) if math.isfinite(saliency) else None


def naswot(head: Head, maps_BCHW: Tensor) -> float | None:
    """ln |det K|, with K_ij the number of units that are both on or both off for images i and j.

    Mellor et al., "Neural Architecture Search without Training", ICML 2021 (arXiv 2006.04647), equation 2. A unit is one channel of one position
    before a rectifier (ReLU, GELU, SiLU, and the ReLU within StarReLU), and is on where its input is positive. For ReLU that is Mellor's definition;
    GELU and SiLU are smooth, and the sign says on which side of their bend they are. The value grows with the number of units and of images, so only
    values of the same batch compare. The head runs once, in the mode that it is in. None for a singular K (two images that switch all alike) or a
    head without rectifiers.
    """
    agreeing_BB: list[Tensor] = []

    def look(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        # Before the call, since a rectifier may work in place. Counts below 2^24 are exact in float32.
        on_BU = (inputs[0].flatten(1) > 0).float()
        both_on_BB = (on_BU @ on_BU.T).double()
        on_B = both_on_BB.diagonal()
        agreeing_BB.append(2.0 * both_on_BB + (on_BU.shape[1] - on_B[:, None] - on_B[None, :]))

    handles = [
        module.register_forward_pre_hook(look)
        for module in head.modules()
        if type(module).__name__ in _RECTIFIERS
    ]
    try:
        with torch.no_grad():
            head(maps_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    if not agreeing_BB:
        return None
    sign, log_determinant = torch.linalg.slogdet(torch.stack(agreeing_BB).sum(dim=0))
    return float(log_determinant) if float(sign) != 0.0 else None


def _drop_norms(module: nn.Module) -> None:
    """Replace each normalisation layer by the activation that timm's may hold, or by nothing."""
    for name, child in module.named_children():
        if isinstance(child, _NORMS):
            setattr(module, name, getattr(child, "act", nn.Identity()))
        else:
            _drop_norms(child)
