"""Makes HeadBench: real training curves of the same heads before training, in joint screens, in proxies and on a long schedule.

    python benchmarks/make_headbench.py [digits] [--out runs/headbench] [--parts untrained screen ...] [--workers 2] [--collect]

`digits` is the name of an experiment in `benchmarks/headbench/`. A part is a run of the software itself, `runs/headbench/digits/proxies` and so on: it can
be looked at with every command, and the same call takes up what was interrupted. Workers have one thread each. Afterwards whatever is there is
written to `digits.csv.gz` beside it; `--collect` does that alone. The README.md there says what it holds.

Parts:

- `untrained`: scores at random initialisation;
- `screen`: all heads on one base, a sixth of them in each step; `screen-all`: all in each step; `screen-long`: a sixth, for six times as long, so that
  each head takes part in as many steps as in a proxy;
- `proxies`: each head on a base of its own;
- `long`: the same for five times as long, with other seeds and another split of the images, so that what agrees is not luck that both share.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from headbench.making import OVERHEAD, collect, write_headbench
from headbench.table import PARTS

from headsearch.commands.progress import progress_display
from headsearch.experiment import Experiment, load_experiment
from headsearch.scoring.zero_cost_scores import FILE_NAME
from headsearch.search.materials import read_space
from headsearch.search.session import gather, run_search
from headsearch.search.zero_cost import ZeroCostScorer, score_space
from headsearch.training.evaluator import Evaluator

HERE = Path(__file__).parent / "headbench"
LONG = 5
"""Times a proxy's epochs."""
OTHER_SEED = 1000
"""Of the long schedule."""


def part_experiment(name: str, part: str, *, workers: int, overrides: list[str]) -> Experiment:
    """The experiment of one part, from the file that describes the bench."""
    source = str(HERE / f"{name}.yaml")
    described = load_experiment(source, overrides)
    proxy = described.proxy
    path = HERE / described.search.space
    space, _ = read_space(str(path))
    heads = space.count_distinct()
    changes = [
        f"search.space={path}",
        f"search.executor={{kind: process, workers: {workers}, timeout: 14400}}",
    ]
    if part.startswith("screen"):
        each = {"screen": -(-heads // 6), "screen-all": heads, "screen-long": -(-heads // 6)}[part]
        times = 6 if part == "screen-long" else 1
        rungs = [times * rung for rung in proxy.rungs]
        changes += [
            "search.strategy=screen",
            f"search.screen={{heads: {heads}, batch: {heads}, reduction: 1, heads_per_step: {each}, epochs: {rungs[-1]}, rungs: {rungs}}}",
        ]
    else:
        changes += [
            "search.strategy=proxies",
            "search.sampler=grid",
            f"search.trials={heads}",
            f"search.finalists={heads}",
            "search.certainty=1",
        ]
    if part == "long":
        changes += [
            f"proxy.epochs={LONG * proxy.epochs}",
            f"proxy.rungs={[LONG * rung for rung in proxy.rungs]}",
            f"seed={OTHER_SEED}",
        ]
    return load_experiment(source, [*changes, *overrides])


def make(part: str, experiment: Experiment, folder: Path) -> None:
    """One part, or what is left of it."""
    if part == "untrained":
        space, _ = read_space(experiment.search.space)
        folder.mkdir(parents=True, exist_ok=True)
        score_space(
            space,
            ZeroCostScorer(experiment, seeds=experiment.search.replicates, baselines=True),
            number=experiment.search.trials,
            path=folder / FILE_NAME,
        )
        return
    with progress_display(quiet=False) as display:
        run_search(experiment, folder, resume=folder.exists(), observer=display)
    if experiment.search.strategy == "screen" and not (folder / OVERHEAD).exists():
        (folder / OVERHEAD).write_text(json.dumps(joint_overhead(experiment)), encoding="utf-8")


def joint_overhead(experiment: Experiment) -> float:
    """What a step of a joint run takes beyond one without heads: the mean over as many sets as have every head in one."""
    torch.set_num_threads(1)
    heads = gather(experiment).distinct(experiment.search.screen.heads, seed=experiment.seed)
    each = experiment.search.screen.in_each_step(len(heads))
    evaluate = Evaluator(experiment)
    sets = -(-len(heads) // each)
    return statistics.fmean(evaluate.overhead(heads[start::sets]) for start in range(sets))


def main() -> None:
    """Train what has not been, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", default="digits", help="of an experiment beside this file")
    parser.add_argument("--out", type=Path, default=Path("runs/headbench"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="as of headsearch run, e.g. data.root=...",
    )
    parser.add_argument("--collect", action="store_true", help="train nothing, only write the table")
    options = parser.parse_args()
    folder = options.out / options.name
    for part in [] if options.collect else options.parts:
        experiment = part_experiment(options.name, part, workers=options.workers, overrides=options.overrides)
        make(part, experiment, folder / part)
    path = HERE / f"{options.name}.csv.gz"
    table = collect(folder)
    write_headbench(path, table)
    print(f"{path}: {len(table)} rows")


if __name__ == "__main__":
    main()
