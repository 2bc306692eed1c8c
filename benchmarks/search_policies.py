"""Search policies on real training curves: a HeadBench as a search sees it, and what each policy returns after how much cost.

Every search is drawn by a seed: the order of heads, which of the seeds of a training it sees, and what is random in a sampler. It
is a list of `Step`: from that cost on, this head is what it would return.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pandas as pd
from headbench.simulation import InOrder, Sampler, SimulatedTrial, simulate
from headbench.table import need_parts, read_headbench
from optuna_search import OptunaSearch, Params

from headsearch.search.stopping import Objectives, SuccessiveHalving

SCREENED, BY_CHANCE, FINALISTS = 6, 2, 2
"""Of the funnel, as `headsearch run digits` has them: trainings of the best of the screen and of some by chance; and those trained again."""


class Step(NamedTuple):
    """A search returns another head."""

    epochs: float
    """Spent so far, those of a screen counted by its time in epochs of a mean proxy."""
    hours: float
    head: int


class Training(NamedTuple):
    """One training that a search has paid for."""

    epochs: float
    hours: float


NOTHING = Training(0.0, 0.0)


@dataclass(frozen=True)
class Schedule:
    """What H heads measured with R seeds at E epochs."""

    rungs: tuple[int, ...]
    curves: np.ndarray
    """(H, R, E, 2): discrepancy and accuracy."""

    @property
    def epochs(self) -> int:
        """Of a whole training."""
        return self.rungs[-1]

    @property
    def probes(self) -> np.ndarray:
        """(H, R): accuracies in the end."""
        return self.curves[:, :, -1, 1]

    @property
    def halving(self) -> tuple[int, ...]:
        """The rungs nearest to a quarter and a half, and the last."""
        return tuple(
            sorted(
                {
                    min(self.rungs, key=lambda rung, at=share: abs(rung - at * self.epochs))
                    for share in (1 / 4, 1 / 2, 1)
                }
            )
        )


@dataclass(frozen=True)
class Bench:
    """Curves of H heads with R seeds, from a table."""

    heads: list[str]
    params: list[dict[str, Any]]
    """What tells heads apart, for samplers that learn."""
    short: Schedule
    long: Schedule
    screened: np.ndarray
    """(H, R): the label-free score in a joint run of all heads."""
    hours: np.ndarray
    """(H,): of an epoch."""
    screen: Training

    @property
    def truth(self) -> np.ndarray:
        """(H,): accuracy after the long schedule in percent, the mean over seeds."""
        means: np.ndarray = self.long.probes.mean(axis=1)
        return means

    @property
    def noise(self) -> float:
        """Standard deviation between seeds of the accuracy after the long schedule, pooled over heads."""
        return float(np.sqrt(self.long.probes.var(axis=1, ddof=1).mean()))

    @property
    def everything(self) -> Training:
        """Every head once on the long schedule."""
        return Training(len(self.heads) * self.long.epochs, float(self.hours.sum()) * self.long.epochs)


def load(path: Path) -> Bench:
    """The heads that a search may choose from; controls are left out."""
    whole = read_headbench(path)
    need_parts(path, whole, "screen", "proxies", "long")
    table = whole[whole["control"].isna()]
    final = table[table["part"] == "long"]
    final = final[final["epoch"] == final["epoch"].max()]
    final = final.pivot(index="head_id", columns="replicate", values="knn").dropna()
    heads, seeds = sorted(final.index), list(final.columns)

    def grid(rows: pd.DataFrame, column: str) -> np.ndarray:
        wide = rows.pivot(index="head_id", columns="replicate", values=column)
        return wide.loc[heads, seeds].to_numpy(float)

    def schedule(part: str) -> Schedule:
        rows = table[(table["part"] == part) & table["head_id"].isin(heads)]
        rungs = tuple(sorted(int(epoch) for epoch in rows["epoch"].unique()))
        at_rungs = [rows[rows["epoch"] == epoch] for epoch in rungs]
        columns = ("cka.embedding.output", "knn")
        return Schedule(
            rungs,
            np.stack(
                [np.stack([grid(rung, column) for column in columns], axis=-1) for rung in at_rungs], axis=2
            ),
        )

    short = schedule("proxies")
    screens = table[table["part"] == "screen"]
    screens = screens[screens["epoch"] == screens["epoch"].max()]
    trained = whole[(whole["part"] == "proxies") & (whole["epoch"] == short.epochs)]
    last = trained[trained["head_id"].isin(heads)]
    plain = float(trained.loc[trained["control"] == "none", "seconds"].median()) / short.epochs / 3600
    # By overheads, whose two sides are measured in turns, and not by the seconds of trainings, which other work on the machine stretches.
    hours = plain * (1.0 + np.median(grid(last, "overhead"), axis=1))
    screen_hours = plain * int(screens["epoch"].max()) * (1.0 + float(screens["overhead"].median()))
    configs = last.drop_duplicates("head_id").set_index("head_id").loc[heads, "config"]
    return Bench(
        heads=heads,
        params=[described(json.loads(config)) for config in configs],
        short=short,
        long=schedule("long"),
        screened=grid(screens, "score"),
        hours=hours,
        screen=Training(screen_hours / float(hours.mean()), screen_hours),
    )


def described(config: Any) -> dict[str, Any]:
    """A head as a sampler may know it: kind, depth, first shortcut."""
    stages = config if isinstance(config, list) else [config]
    kinds, depth = [], 0
    for stage in stages:
        ((family, params),) = stage.items()
        kinds.append(family + str(params.get("token_mixer", "")))
        depth += params["depth"]
    return {
        "kind": "+".join(kinds),
        "depth": depth,
        "first_shortcut": next(iter(stages[0].values()))["first_shortcut"],
    }


class Draw:
    """Which seed of every training a repeat sees."""

    def __init__(self, bench: Bench, schedule: Schedule, seed: int) -> None:
        self.random = random.Random(seed)
        self._bench, self._schedule = bench, schedule
        replicates = schedule.curves.shape[1]
        self._order = [self.random.sample(range(replicates), replicates) for _ in bench.heads]
        self.screen = self.random.randrange(replicates)

    def observed(self, head: int, epoch: int, seed: int) -> Objectives:
        """Discrepancy and probe of the first training."""
        rung = self._schedule.rungs.index(epoch)
        discrepancy, probe = self._schedule.curves[head, self._order[head][0], rung]
        return float(discrepancy), float(probe)

    def seconds_per_epoch(self, head: int) -> float:
        """Simulated time."""
        return 3600 * float(self._bench.hours[head])

    def second_probe(self, head: int) -> float:
        """In the end of another training."""
        return float(self._schedule.probes[head, self._order[head][1]])


class Probes:
    """Curves of the probe alone."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self.seconds_per_epoch = draw.seconds_per_epoch

    def observed(self, head: int, epoch: int, seed: int) -> Objectives:
        """The probe."""
        return self._draw.observed(head, epoch, seed)[1:]


@dataclass(frozen=True)
class Plan:
    """On which schedule heads are trained, and whether weak ones are stopped."""

    long: bool
    stopped: bool = False

    def schedule(self, bench: Bench) -> Schedule:
        """Of a bench."""
        return bench.long if self.long else bench.short

    def stopping(self, schedule: Schedule) -> SuccessiveHalving:
        """Of the software, with its usual reduction."""
        return (
            SuccessiveHalving(schedule.halving, 3)
            if self.stopped
            else SuccessiveHalving([schedule.epochs], 1)
        )


def best_so_far(trials: Sequence[SimulatedTrial], spent: Training = NOTHING) -> list[Step]:
    """Steps of a search that returns the best probe of those trained to the end."""
    steps, best = [], (-math.inf, -1)
    epochs, hours = spent
    for trial in trials:
        epochs += trial.epochs
        hours += (trial.end - trial.start) / 3600
        if trial.objectives is not None:
            best = max(best, (trial.objectives[-1], trial.head))
        steps.append(Step(epochs, hours, best[1]))
    return [step for step in steps if step.head >= 0]


Policy = Callable[[Bench, int], list[Step]]


def everything(bench: Bench, seed: int) -> list[Step]:
    """All heads on the long schedule, and the best of them."""
    return search(shuffled, Plan(long=True))(bench, seed)[-1:]


def search(make: Callable[[Bench, int], Sampler], plan: Plan, *, both: bool = False) -> Policy:
    """Trainings of the heads that a sampler chooses, told the probe, or with `both` discrepancy and probe."""

    def steps(bench: Bench, seed: int) -> list[Step]:
        schedule = plan.schedule(bench)
        draw = Draw(bench, schedule, seed)
        curves = draw if both else Probes(draw)
        return best_so_far(simulate(curves, make(bench, seed), plan.stopping(schedule), seed=seed))

    return steps


def funnel(plan: Plan) -> Policy:
    """A joint screen of all heads, trainings of its best and of some by chance, and a second seed for the finalists."""

    def steps(bench: Bench, seed: int) -> list[Step]:
        schedule = plan.schedule(bench)
        draw = Draw(bench, schedule, seed)
        order = sorted(range(len(bench.heads)), key=lambda head: -bench.screened[head, draw.screen])
        chosen = order[:SCREENED] + draw.random.sample(order[SCREENED:], BY_CHANCE)
        trials = simulate(Probes(draw), InOrder(chosen), plan.stopping(schedule), seed=seed)
        found = [Step(*bench.screen, order[0]), *best_so_far(trials, bench.screen)]
        probes = {trial.head: trial.objectives[0] for trial in trials if trial.objectives is not None}
        finalists = sorted(probes, key=lambda head: -probes[head])[:FINALISTS]
        epochs = found[-1].epochs + len(finalists) * schedule.epochs
        hours = found[-1].hours + schedule.epochs * sum(float(bench.hours[head]) for head in finalists)
        best = max(finalists, key=lambda head: probes[head] + draw.second_probe(head))
        return [*found, Step(epochs, hours, best)]

    return steps


def learnt(bench: Bench, sampler: optuna.samplers.BaseSampler, directions: int, seed: int) -> Sampler:
    """A sampler of Optuna's over the parameters of the heads."""
    choices = {name: sorted({params[name] for params in bench.params}) for name in bench.params[0]}

    def suggest(trial: optuna.Trial) -> Params:
        return {name: trial.suggest_categorical(name, values) for name, values in choices.items()}

    return OptunaSearch(sampler, bench.params, suggest, directions=directions, seed=seed)


def shuffled(bench: Bench, seed: int) -> Sampler:
    """Random search."""
    order = list(range(len(bench.heads)))
    random.Random(seed).shuffle(order)
    return InOrder(order)


def tpe(bench: Bench, seed: int) -> Sampler:
    """Optuna's default."""
    return learnt(bench, optuna.samplers.TPESampler(seed=seed), 1, seed)


def nsga2(bench: Bench, seed: int) -> Sampler:
    """Optuna's genetic algorithm, with generations that fit two dozen heads."""
    return learnt(bench, optuna.samplers.NSGAIISampler(population_size=6, seed=seed), 2, seed)


SHORT, LONG, STOPPED = Plan(long=False), Plan(long=True), Plan(long=True, stopped=True)
POLICIES: dict[str, Policy] = {
    "everything": everything,
    "random": search(shuffled, LONG),
    "random, stopped early": search(shuffled, STOPPED),
    "random, short": search(shuffled, SHORT),
    "tpe": search(tpe, LONG),
    "tpe, stopped early": search(tpe, STOPPED),
    "tpe, short": search(tpe, SHORT),
    "nsga2": search(nsga2, LONG, both=True),
    "nsga2, short": search(nsga2, SHORT, both=True),
    "funnel": funnel(LONG),
    "funnel, stopped early": funnel(STOPPED),
    "funnel, short": funnel(SHORT),
}
"""All that are compared; of the long schedule unless they are `short`."""
