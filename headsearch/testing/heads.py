"""What every family of heads must do, on any base. A new family is done when `check_family` passes.

>>> check_family("mlp")
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headsearch.base.info import BaseInfo
from headsearch.errors import HeadError
from headsearch.heads import HeadConfig, Scalar, Stage, canonical, family, head_id, parse_head, validate_stage

if TYPE_CHECKING:
    from headsearch.heads.build import Head

BASES = ((24, (1, 1)), (48, (7, 7)), (50, (3, 5)))
"""Widths and grids: a single position, an odd grid, a width that neither 4 nor 8 divides on a grid that is not square."""


def toy_base(width: int = 24, grid: tuple[int, int] = (3, 3), kind: str = "vit") -> BaseInfo:
    """Facts about an imaginary base, as heads need them."""
    return BaseInfo(
        model="toy",
        family=kind,
        width=width,
        grid=grid,
        embedding_dim=width,
        depth=4,
        params=10**6,
        flops=10**8,
        image_size=4 * max(grid),
    )


def check_family(name: str) -> None:
    """Raises an `AssertionError` that names what the family does wrong."""
    _check_declaration(name)
    _check_set(name)
    for width, grid in BASES:
        for first_shortcut in (True, False):
            _check_head(name, toy_base(width, grid), {"first_shortcut": first_shortcut})
    for parameter in family(name).parameters:
        for choice in parameter.choices or ():
            _check_head(name, toy_base(*BASES[-1]), {parameter.name: choice})
    _check_other_grids(name)


def _check_declaration(name: str) -> None:
    stage = validate_stage(name, {})
    parameters = family(name).by_name
    assert {"depth", "first_shortcut", "drop_path"} <= parameters.keys(), (
        f"{name} lacks a parameter that all have"
    )
    for parameter in parameters.values():
        validate_stage(name, {parameter.name: parameter.default})
        assert parameter.doc, f"{name}.{parameter.name} is not documented"
    once = canonical(HeadConfig((stage,)), toy_base())
    assert canonical(once, toy_base()) == once, f"{name}: the canonical form of a canonical form differs"
    assert parse_head(once.to_dict()) == once, f"{name}: the canonical form does not survive a round trip"


def _check_set(name: str) -> None:
    """A head of the family stands beside another in a set, in any order and through a file."""
    members = HeadConfig((Stage(name, {"depth": 1}),)), HeadConfig((Stage(name, {"depth": 2}),))
    once, turned = (canonical(HeadConfig(members=pair), toy_base()) for pair in (members, members[::-1]))
    assert head_id(once) == head_id(turned), f"{name}: the order of a set changes its name"
    assert parse_head(once.to_dict()) == once, f"{name}: a set of it does not survive a round trip"


def _check_head(name: str, base: BaseInfo, params: Mapping[str, Scalar]) -> None:
    import torch

    config = HeadConfig((Stage(name, {"depth": 2, "drop_path": 0.1, **params}),))
    where = f"{name} of width {base.width} on {base.grid}, {dict(params)}"
    head, twin = _build(config, base), _build(config, base)
    maps = torch.randn(4, base.width, *base.grid, generator=torch.Generator().manual_seed(1))

    out = head(maps)
    assert out.shape == maps.shape, f"{where}: the map changed its shape to {tuple(out.shape)}"
    torch.autograd.backward(head.embed(out).square().sum())
    without = [key for key, weight in head.named_parameters() if weight.grad is None]
    assert not without, f"{where}: no gradient reaches {without}"

    head = _build(config, base).eval()
    twin = copy.deepcopy(twin).eval()
    twin.load_state_dict(head.state_dict())
    with torch.no_grad():
        assert torch.equal(head(maps), twin(maps)), f"{where}: a copy does not compute the same"
        assert torch.allclose(head(maps)[:1], head(maps[:1]), atol=1e-5), (
            f"{where}: images influence each other"
        )


def _check_other_grids(name: str) -> None:
    import torch

    head = _build(HeadConfig((Stage(name),)), toy_base(24, (4, 4))).eval()
    for grid in ((2, 2), (6, 5)):
        maps = torch.randn(2, 24, *grid)
        try:
            ran = head(maps).shape == maps.shape
        except HeadError:
            ran = False
        assert ran != family(name).grid_bound, (
            f"{name} on another grid: grid_bound is {family(name).grid_bound}"
        )


def _build(config: HeadConfig, base: BaseInfo) -> Head:
    import torch

    from headsearch.heads.build import build_head

    torch.manual_seed(0)
    return build_head(config, base)
