"""A whole search on the toy objective: an experiment and its materials, without torch, images or timm."""

from __future__ import annotations

from typing import Any

from headsearch.base_info import BaseInfo
from headsearch.experiment import Experiment, parse_experiment
from headsearch.heads import HeadConfig, Stage
from headsearch.heads.canonical import canonical
from headsearch.search.run import Materials, read_space
from headsearch.space import parse_space
from headsearch.testing.toy import ToyEvaluator, toy_cost

TOY_BASE = BaseInfo(
    model="toy",
    family="vit",
    width=64,
    grid=(4, 4),
    embedding_dim=64,
    depth=4,
    params=200_000,
    flops=10_000_000,
    image_size=16,
)
"""What a small ViT on small images looks like."""


def toy_experiment(labels: str = "probe", seed: int = 0, **search: Any) -> Experiment:
    """An experiment of nine epochs with rungs at 1, 3 and 9; `search` are keys of its section of that name."""
    return parse_experiment(
        {
            "name": "toy",
            "data": {"labels": labels},
            "proxy": {"epochs": 9, "rungs": [1, 3, 9]},
            "search": {"space": "tiny", **search},
            "seed": seed,
        }
    )


def toy_materials(
    experiment: Experiment, evaluate: ToyEvaluator | None = None, *, space: str | None = None
) -> Materials:
    """The materials of a toy search. `space` is the text of a space in place of the one that the experiment names."""
    if space is None:
        parsed, text = read_space(experiment.search.space)
    else:
        parsed, text = parse_space(space, "toy.yaml"), space
    heads = {
        "none": HeadConfig(),
        "same": canonical(HeadConfig((Stage("vit", {"depth": 3}),)), TOY_BASE),
        "mlp": canonical(HeadConfig((Stage("mlp", {"depth": 3}),)), TOY_BASE),
    }
    return Materials(
        space=parsed,
        space_text=text,
        base=TOY_BASE,
        controls={name: heads[name] for name in experiment.search.controls},
        evaluate=evaluate or ToyEvaluator(labels=experiment.data.labels == "probe"),
        cost_function=lambda config, base: toy_cost(config),
    )
