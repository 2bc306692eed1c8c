"""Runs a reproduction: first the screen, before any label is read, then the proxies. Each is a run directory like any other.

reproduce.yaml            the plan
screen/                   one joint training of all heads, without labels
heads/                    every head and control by proxies, with all seeds
claims.json, README.md    the report
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from headsearch.document import to_yaml
from headsearch.errors import DataError, LabelsMissing
from headsearch.experiment import Experiment
from headsearch.files import write_result
from headsearch.reproduction.claims import claims
from headsearch.reproduction.plan import HEADS, PLAN_FILE, SCREEN, Plan
from headsearch.reproduction.text import Report
from headsearch.results.text import duration
from headsearch.runs.directory import RunDirectory
from headsearch.runs.run import read_run
from headsearch.search.checks import check_experiment, check_grids
from headsearch.search.materials import Materials
from headsearch.search.observer import Observer
from headsearch.search.session import conduct
from headsearch.search.session import gather as gather_materials

Tell = Callable[[str], None]


def reproduce(
    plan: Plan,
    out: Path,
    *,
    resume: bool = False,
    display: Callable[[], AbstractContextManager[Observer]],
    tell: Tell = lambda _: None,
    gather: Callable[[Experiment], Materials] = gather_materials,
) -> Report:
    """Train what is not trained yet, and write the report.

    Args:
        plan: what to do.
        out: the folder to write; it must not exist, unless `resume`.
        resume: go on with what is there, also with more seeds.
        display: makes the observer of one search.
        tell: is told, in one line, what begins and about how long it takes.
        gather: finds base and images; tests pass the toy objective's.

    Raises:
        UserError: bad input, found before anything is trained; `out` cannot be used.
        KeyboardInterrupt: passed on. What is finished is safe.
    """
    if resume:
        plan.check_resume(out)
    else:
        RunDirectory.refuse_existing(out)
    check_experiment(plan.experiment)
    check_grids(plan.experiment, plan.space)
    number, family = _looked_at(plan, gather, tell)
    write_result(out / PLAN_FILE, to_yaml(plan.to_dict()))
    for name, experiment in ((SCREEN, plan.screen(number)), (HEADS, plan.heads(number))):
        folder = out / name
        tell(f"{folder}: {_what(name, number, plan.seeds)}")
        # Gathered anew: images are held once at a time.
        materials = gather(experiment)
        with display() as observer:
            begun = (folder / "run.json").is_file()
            conduct(experiment, materials, folder, resume=begun, observer=observer)
    report = read_report(plan, out, family)
    write_result(out / "claims.json", report.to_json() + "\n")
    write_result(out / "README.md", report.to_markdown())
    return report


def read_report(plan: Plan, out: Path, family: str) -> Report:
    """The report of what the two run directories in `out` hold. `family` is the base's own kind.

    Raises:
        RunError: one of them is missing or cannot be read.
    """
    order = read_run(out / SCREEN).screen_order
    return Report(plan.described(), family, claims(read_run(out / HEADS).records, order, family=family))


def _looked_at(plan: Plan, gather: Callable[[Experiment], Materials], tell: Tell) -> tuple[int, str]:
    """How many heads the base can carry, and its own kind. Tells how long the reproduction will take."""
    described = plan.space.count()
    assert described is not None
    try:
        materials = gather(plan.heads(described))
    except LabelsMissing as error:
        raise DataError(f"{error.problem}; the claims are about a probe, which needs labels") from None
    number = len(materials.distinct(described, seed=plan.experiment.seed))
    trainings = plan.seeds * (number + len(materials.controls))
    assert materials.seconds_per_proxy is not None
    seconds = materials.seconds_per_proxy()
    tell(
        f"{trainings} proxies of about {duration(seconds)} each, {duration(trainings * seconds)} one after the other, and a screen; "
        "fewer --epochs or --seeds make it shorter"
    )
    return number, materials.base.family


def _what(name: str, number: int, seeds: int) -> str:
    if name == SCREEN:
        return f"{number} heads on one base, without labels"
    return (
        f"{number} heads and the controls, each on a base of its own, {seeds} seed{'s' if seeds > 1 else ''}"
    )
