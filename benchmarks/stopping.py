"""Early stopping: training epochs until the front holds the best head, on tabulated curves.

Against: no stopping in the same random order of heads, and plain Optuna TPE on both objectives. None of them trains a head twice.
Afterwards: how that depends on what is assumed of the curves, and on where the rungs are.

    python benchmarks/stopping.py [--repeats 200] [--quick] [--json]

Every repeat draws curves of its own and all searches of a repeat see the same ones. A search that never has the best head on its
front counts as endless, so the median is infinite when more than half do. Intervals are 95% bootstrap intervals over repeats; a ratio
is resampled in pairs.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from headbench.curves import (
    DEPTHS,
    FAMILIES,
    MLP_RATIOS,
    SHORTCUTS,
    Assumptions,
    LearningCurves,
    learning_curves,
)
from headbench.simulation import InOrder, Sampler, epochs_spent, simulate
from optuna_search import OptunaSearch, Params
from scipy.stats import kendalltau

from headsearch.search.stopping import Objectives, SuccessiveHalving, non_dominated_layers

WORKERS = 2
BUDGET = 27
FIRST_SEED = 1000
"""Of the repeats; the policy was settled on curves of other seeds."""
TOLERANCE = 1.0
"""Points of probe that are as good as none: less than the noise between seeds."""

Policy = tuple[tuple[int, ...], int]
"""Rungs and reduction."""
NEVER: Policy = ((BUDGET,), 1)
HALVING: Policy = ((3, 9, BUDGET), 3)
POLICIES: list[Policy] = [
    ((7, 14, BUDGET), 3),
    ((3, 9, BUDGET), 2),
    ((3, 9, BUDGET), 4),
    ((1, 3, 9, BUDGET), 3),
]
CURVES = [(0.9, 0.75), (0.9, 1.5), (0.6, 3.0), (0.3, 1.5), (0.0, 1.5), (-0.3, 1.5), (-0.3, 3.0)]
"""Agreement and noise."""


class Outcome(NamedTuple):
    """Of one search; epochs of all workers together."""

    until_best: float
    """Epochs until the front held the best head; infinite when it never did."""
    until_good: float
    """Epochs until it held one whose expected probe is within the tolerance."""
    regret: float
    """Points that the front's best falls short of the best head once all heads have been tried."""
    epochs: float
    """Trained for all heads."""


def tpe(curves: LearningCurves, seed: int) -> Sampler:
    """Optuna's TPE on discrepancy and probe."""

    def suggest(trial: optuna.Trial) -> Params:
        return {
            "family": trial.suggest_categorical("family", FAMILIES),
            "depth": trial.suggest_int("depth", DEPTHS[0], DEPTHS[-1]),
            "mlp_ratio": trial.suggest_categorical("mlp_ratio", MLP_RATIOS),
            "first_shortcut": trial.suggest_categorical("first_shortcut", SHORTCUTS),
        }

    return OptunaSearch(
        optuna.samplers.TPESampler(seed=seed, multivariate=True),
        [{"family": head.config.family, **head.config.stages[0].params} for head in curves.heads],
        suggest,
        directions=2,
        seed=seed,
    )


def shuffled(curves: LearningCurves, seed: int) -> Sampler:
    """Random search."""
    order = list(range(len(curves)))
    random.Random(seed).shuffle(order)
    return InOrder(order)


def search(curves: LearningCurves, sampler: Sampler, stopping: SuccessiveHalving, seed: int) -> Outcome:
    """Try every head once."""
    trials = simulate(curves, sampler, stopping, workers=WORKERS, seed=seed)
    best = curves.expected_probe(curves.best)
    complete: dict[int, Objectives] = {}
    until_best = until_good = regret = math.inf
    for trial in trials:
        if trial.objectives is None:
            continue
        complete[trial.head] = trial.objectives
        front = non_dominated_layers(complete)[0]
        regret = best - max(map(curves.expected_probe, front))
        if math.isinf(until_best) and curves.best in front:
            until_best = epochs_spent(trials, trial.end)
        if math.isinf(until_good) and regret <= TOLERANCE:
            until_good = epochs_spent(trials, trial.end)
    return Outcome(until_best, until_good, regret, sum(trial.epochs for trial in trials))


def compare(
    assumptions: Assumptions,
    make_sampler: Callable[[LearningCurves, int], Sampler],
    policy: Policy,
    repeats: int,
) -> list[Outcome]:
    """One search a repeat."""
    outcomes = []
    for seed in range(FIRST_SEED, FIRST_SEED + repeats):
        curves = learning_curves(seed, assumptions)
        stopping = SuccessiveHalving(*policy)
        outcomes.append(search(curves, make_sampler(curves, seed), stopping, seed))
    return outcomes


def summary(outcomes: Sequence[Outcome], against: Sequence[Outcome]) -> dict[str, Any]:
    """Medians, means and intervals; ratios to `against`, repeat by repeat."""
    ours, theirs = np.array(outcomes), np.array(against)
    draws = np.random.default_rng(0).integers(len(ours), size=(2000, len(ours)))

    def interval(values: np.ndarray) -> list[float | None]:
        # No interpolation, which is undefined next to an infinite value.
        return [_finite(v) for v in np.quantile(values, [0.025, 0.975], method="nearest")]

    row: dict[str, Any] = {}
    for column, name in enumerate(Outcome._fields[:2]):
        a, b = ours[:, column], theirs[:, column]
        medians = np.median(a[draws], axis=1)
        with np.errstate(invalid="ignore"):
            ratios = np.nan_to_num(medians / np.median(b[draws], axis=1), nan=math.inf, posinf=math.inf)
            ratio = np.median(a) / np.median(b)
        row[name] = {
            "median": _finite(np.median(a)),
            "interval": interval(medians),
            "ratio": _finite(ratio),
            "ratio_interval": interval(ratios),
            "reached": float(np.isfinite(a).mean()),
        }
    regret = ours[:, 2]
    row["regret"] = {"mean": float(regret.mean()), "interval": interval(regret[draws].mean(axis=1))}
    row["regret_difference"] = interval((regret - theirs[:, 2])[draws].mean(axis=1))
    row["all_heads"] = float(ours[:, 3].mean() / theirs[:, 3].mean())
    return row


def early_taus(assumptions: Assumptions, curves_drawn: int = 20) -> dict[str, float]:
    """Kendall's tau between the probe observed at 1/9, 1/3 and all of the budget and the expected probe at all of it."""
    taus: dict[str, list[float]] = {}
    for seed in range(curves_drawn):
        curves = learning_curves(seed, assumptions)
        heads = range(len(curves))
        truth = [curves.expected_probe(head) for head in heads]
        for epoch in HALVING[0]:
            seen = [curves.observed(head, epoch, seed)[1] for head in heads]
            taus.setdefault(str(epoch), []).append(float(kendalltau(seen, truth).statistic))
    return {epoch: float(np.mean(values)) for epoch, values in taus.items()}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _show(value: float | None, digits: int = 0) -> str:
    return "never" if value is None else f"{value:.{digits}f}"


def _line(name: str, row: dict[str, Any]) -> str:
    cells = [f"{name:44}"]
    for key in ("until_best", "until_good"):
        cell = row[key]
        low, high = cell["ratio_interval"]
        cells.append(
            f"{_show(cell['median']):>6} [{_show(cell['interval'][0])}, {_show(cell['interval'][1])}]".ljust(
                21
            )
            + f"{_show(cell['ratio'], 2)} [{_show(low, 2)}, {_show(high, 2)}]".ljust(22)
            + f"{cell['reached']:4.0%}  "
        )
    low, high = row["regret_difference"]
    cells.append(f"{row['regret']['mean']:5.2f}  [{low:+.2f}, {high:+.2f}]  {row['all_heads']:.2f}")
    return "".join(cells)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument(
        "--quick", action="store_true", help="20 repeats: shows that it runs, not what is true"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    repeats = 20 if arguments.quick else arguments.repeats
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

    usual = Assumptions(budget=BUDGET)
    none = compare(usual, shuffled, NEVER, repeats)
    tpe_unstopped = compare(usual, tpe, NEVER, repeats)
    tpe_halving = compare(usual, tpe, HALVING, repeats)
    methods = {
        "random search": summary(none, none),
        "random search + halving": summary(compare(usual, shuffled, HALVING, repeats), none),
        "Optuna TPE": summary(tpe_unstopped, none),
        "Optuna TPE + halving": summary(tpe_halving, none),
        "Optuna TPE + halving, against Optuna TPE": summary(tpe_halving, tpe_unstopped),
    }
    policies = {
        f"rungs {'/'.join(map(str, rungs))}, reduction {reduction}": summary(
            compare(usual, shuffled, (rungs, reduction), repeats), none
        )
        for rungs, reduction in POLICIES
    }
    curves = {}
    for agreement, noise in CURVES:
        assumptions = Assumptions(budget=BUDGET, agreement=agreement, noise=noise)
        row = summary(
            compare(assumptions, shuffled, HALVING, repeats), compare(assumptions, shuffled, NEVER, repeats)
        )
        row["tau"] = early_taus(assumptions)
        taus = "/".join(f"{tau:.2f}" for tau in row["tau"].values())
        curves[f"agreement {agreement}, noise {noise}, tau {taus}"] = row

    if arguments.json:
        result = {"repeats": repeats, "methods": methods, "policies": policies, "curves": curves}
        print(json.dumps(result, indent=2, allow_nan=False))
        return
    print(
        f"{repeats} repeats, {WORKERS} workers, full budget {BUDGET} epochs; halving: rungs 3/9/27, reduction 3"
    )
    print(
        f"{'':44}{'epochs until the front holds the best head':49}"
        f"{f'... a head within {TOLERANCE:g} point':49}{'regret, difference':22}epochs"
    )
    print(
        f"{'':44}{'median':21}{'ratio':22}{'reached':6}{'median':21}{'ratio':22}{'reached':6}{'after all heads'}"
    )
    for title, rows in (
        ("Methods, against random search", methods),
        ("Policies, random search, against no stopping", policies),
        ("Curves, random search + halving, against no stopping", curves),
    ):
        print(title)
        for name, row in rows.items():
            print(_line(f"  {name}", row))
    print("tau: Kendall's, of the probe observed at epochs 3/9/27 with the expected probe at the end")


if __name__ == "__main__":
    main()
