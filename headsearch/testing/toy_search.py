"""A whole search on the toy objective: an experiment and its materials, without torch, images or timm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from headsearch.experiment import Experiment, parse_experiment
from headsearch.heads import Candidate, HeadConfig, Stage
from headsearch.results.records import TrialRecord
from headsearch.scoring.zero_cost_scores import ZeroCostScores, write_scores
from headsearch.search.executors import Executor
from headsearch.search.materials import Materials, read_space
from headsearch.search.observer import Observer
from headsearch.search.session import conduct
from headsearch.space import Space, parse_space
from headsearch.space.drawing import distinct_heads
from headsearch.testing.heads import toy_base
from headsearch.testing.toy import ToyEvaluator, limits, toy_cost
from headsearch.training.trial import Evaluate

TOY_BASE = replace(toy_base(64, (4, 4)), params=200_000, flops=10_000_000)
"""What a small ViT on small images looks like."""


def toy_experiment(
    labels: str = "probe", seed: int = 0, trunk: int | None = None, **search: Any
) -> Experiment:
    """An experiment of nine epochs with rungs at 1, 3 and 9, by proxies alone, without early stopping, and with all replicates, unless asked for; from a trunk
    of `trunk` epochs where that is given. `search` are keys of its section of that name."""
    return parse_experiment(
        {
            "name": "toy",
            "data": {"labels": labels},
            # Told to use the CPU, nobody imports torch to look for an accelerator.
            "proxy": {"epochs": 9, "rungs": [1, 3, 9], "device": "cpu", "trunk": trunk and {"epochs": trunk}},
            "search": {"space": "tiny", "strategy": "proxies", "stopping": {"kind": "none"}, "certainty": 1.0}
            | search,
            "seed": seed,
        }
    )


def toy_materials(
    experiment: Experiment, evaluate: Evaluate | None = None, *, space: str | None = None
) -> Materials:
    """The materials of a toy search. `space` is the text of a space in place of the one that the experiment names."""
    if space is None:
        parsed, text = read_space(experiment.search.space)
    else:
        parsed, text = parse_space(space, "toy.yaml"), space
    heads = {
        "none": Candidate.of(HeadConfig()),
        "same": Candidate.of(HeadConfig((Stage("vit", {"depth": 3}),)), TOY_BASE),
        "mlp": Candidate.of(HeadConfig((Stage("mlp", {"depth": 3}),)), TOY_BASE),
    }
    return Materials(
        anchors={name: heads[name] for name in ("same", "mlp")},
        score_candidates=lambda number, path, told: score_toys(parsed, number, path, told, experiment.seed),
        seconds_per_proxy=lambda: 60.0,
        space=parsed,
        space_text=text,
        base=TOY_BASE,
        controls={name: heads[name] for name in experiment.search.controls},
        evaluate=evaluate or ToyEvaluator(labels=experiment.data.labels == "probe"),
        cost_function=lambda config, base: toy_cost(config),
    )


def score_toys(
    space: Space, number: int, path: Path, told: Callable[[int, int], None], seed: int
) -> list[ZeroCostScores]:
    """The first stage of a funnel in closed form: a tenth of a percent of what a head's probe tends to, and its discrepancy."""
    rows: list[ZeroCostScores] = []
    heads = distinct_heads(
        space, number, seed=seed, base=TOY_BASE, cost_function=lambda head, _: toy_cost(head)
    )
    for head in heads:
        probe, discrepancy = limits(head.config)
        measures = {"cka.embedding.output": discrepancy, "cka.tokens.output": discrepancy}
        quality = {"retrieval.head": probe / 10.0}
        rows.append(ZeroCostScores(head.head_id, head.config, 1, toy_cost(head.config), measures, quality))
        told(len(rows), len(heads))
    write_scores(path, rows, "toy")
    return rows


def run_toy(
    out: Path,
    experiment: Experiment,
    evaluate: Evaluate | None = None,
    *,
    space: str | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    executor: Executor | None = None,
) -> list[TrialRecord]:
    """Search on the toy objective and write the run directory `out`; every trial of it. `executor` is used in place of the experiment's."""
    materials = toy_materials(experiment, evaluate, space=space)
    summary = conduct(experiment, materials, out, resume=resume, observer=observer, executor=executor)
    return list(summary.records)


def scores(records: Iterable[TrialRecord]) -> dict[tuple[str, str, int], tuple[object, ...]]:
    """All of the records that must not depend on where and in which order trials ran, by stage, head and replicate.

    Raises:
        AssertionError: a head was trained twice with one seed.
    """
    trained = [record for record in records if record.state != "duplicate"]
    found: dict[tuple[str, str, int], tuple[object, ...]] = {
        (r.stage, r.head_id, r.replicate): (r.state, r.seed, r.rungs, r.cost) for r in trained
    }
    assert len(found) == len(trained), "a head was trained twice with one seed"
    return found


def results(records: Iterable[TrialRecord]) -> list[tuple[object, ...]]:
    """All of the records that must not depend on when a search was interrupted, run by one worker."""
    fields = (
        "number",
        "state",
        "head_id",
        "control",
        "replicate",
        "seed",
        "rungs",
        "cost",
        "reason",
        "duplicate_of",
    )
    return [tuple(getattr(record, name) for name in fields) for record in records]
