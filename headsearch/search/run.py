"""From an experiment to a finished run directory: reads and checks everything first, then searches."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from headsearch.base_info import BaseInfo
from headsearch.callbacks import build_callbacks
from headsearch.callbacks.broadcast import Broadcast
from headsearch.callbacks.tracker import Subject
from headsearch.errors import ExperimentError, RunError
from headsearch.experiment import Experiment
from headsearch.experiment.budget import SIZES, hours
from headsearch.heads.config import HeadConfig
from headsearch.results.trials import TrialRecord
from headsearch.run_directory import RunDirectory, RunFacts
from headsearch.scoring.zero_cost_scores import FILE_NAME, ZeroCostScores
from headsearch.search.checks import check_experiment, check_grids, check_sets
from headsearch.search.coordinator import Coordinator, SearchPlan
from headsearch.search.executors import Executor
from headsearch.search.executors.inline import InlineExecutor
from headsearch.search.executors.placement import place_workers
from headsearch.search.executors.process import ProcessExecutor
from headsearch.search.ledger import Ledger
from headsearch.search.observer import Observer, SilentObserver
from headsearch.search.patience import Patience
from headsearch.search.proposer import CostFunction, Proposer
from headsearch.search.selection import best_and_spread
from headsearch.search.storage import close_storage, open_storage, sqlite_url, without_password
from headsearch.shipped import shipped_folder
from headsearch.space import Space, load_space, shipped_spaces
from headsearch.space.drawing import distinct_heads
from headsearch.trial import Evaluate, Stage

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


ScoreCandidates = Callable[[int, Path, Callable[[int, int], None]], Sequence[ZeroCostScores]]
"""Scores so many heads of the space before any training, and keeps the scores in a file; told of its progress (done, in all)."""


@dataclass(frozen=True)
class Materials:
    """What a search needs beside its experiment, all of it found good."""

    space: Space
    space_text: str
    base: BaseInfo
    controls: Mapping[str, HeadConfig]
    """Every control by name, canonical for the base."""
    evaluate: Evaluate
    cost_function: CostFunction | None = None
    """Needed where the space has constraints over cost."""
    anchors: Mapping[str, HeadConfig] = field(default_factory=dict)
    """Heads that tie several joint runs of a screen together, by the name of their control."""
    score_candidates: ScoreCandidates | None = None
    """The first stage of a funnel; needed for one."""
    seconds_per_proxy: Callable[[], float] | None = None
    """Measures how long a proxy takes here; needed for a budget in hours."""


@dataclass(frozen=True)
class RunSummary:
    """What a search came to."""

    directory: Path
    records: tuple[TrialRecord, ...]
    """Every trial of the run, those of former sessions too."""


def run_search(
    experiment: Experiment, out: Path, *, resume: bool = False, observer: Observer | None = None
) -> RunSummary:
    """Search as `experiment` says and write the run directory `out`.

    Everything that can be wrong with the input is found before the directory is made; nothing is left behind then.

    Args:
        experiment: what to search, on which base and images.
        out: the run directory; it must not exist, or with `resume`, must be an earlier run of the same experiment. A run may be
            extended: with `resume`, `search` may ask for more trials, finalists or replicates.
        resume: go on where an earlier session ended, however it ended.
        observer: told of all that happens.

    Raises:
        UserError: bad input; a run directory that exists, is at work, or is of another experiment; a disk that is full.
        KeyboardInterrupt: passed on. What is finished is safe, what was running is resumed from its checkpoint.
    """
    check_experiment(experiment)
    space, _ = read_space(experiment.search.space)
    check_sets(experiment, space)
    check_grids(experiment, space)
    _check_target(experiment, space, out, resume=resume)
    if experiment.search.storage is not None:
        # Before the seconds that base and images take.
        close_storage(open_storage(experiment.search.storage))
    materials = gather(experiment)
    if isinstance(experiment.search.budget, str):
        experiment = _sized(experiment, materials, out if resume else None, observer)
    return conduct(experiment, materials, out, resume=resume, observer=observer)


def gather(experiment: Experiment) -> Materials:
    """Read the space, the base and the images, and check that they go together. Imports torch.

    Raises:
        UserError: one line that says what is wrong.
    """
    space, space_text = read_space(experiment.search.space)

    from headsearch.base import load_base
    from headsearch.heads.controls import anchor_heads, mlp_head, same_head
    from headsearch.scoring.cost import head_cost
    from headsearch.search.zero_cost import ZeroCostScorer, score_space
    from headsearch.training.proxy import ProxyEvaluator

    base = load_base(
        experiment.base.model,
        image_size=experiment.data.image_size,
        kwargs=experiment.base.kwargs,
        weights=experiment.base.weights,
    ).info
    space.validate(base, head_cost)
    evaluate = ProxyEvaluator(experiment)
    evaluate.prepare()
    search = experiment.search
    anchors = dict(zip(("same", "mlp"), anchor_heads(base), strict=True))
    if search.strategy != "proxies":
        batch = min(search.screen.batch, search.screen.heads)
        evaluate.check_screen(distinct_heads(space, batch, seed=0, base=base, cost_function=head_cost))

    def score_candidates(
        number: int, path: Path, told: Callable[[int, int], None]
    ) -> Sequence[ZeroCostScores]:
        scorer = ZeroCostScorer(experiment)
        return score_space(space, scorer, number=number, seed=experiment.seed, path=path, progress=told)

    seconds_per_proxy = evaluate.seconds_per_proxy
    if experiment.search.executor.kind != "inline":
        # Workers read images of their own: what was read here, to see that it is good, is let go.
        evaluate = ProxyEvaluator(experiment)
    makers = {"none": lambda info: HeadConfig(), "same": same_head, "mlp": mlp_head}
    controls: dict[str, HeadConfig] = {name: makers[name](base) for name in experiment.search.controls}
    return Materials(
        space=space,
        space_text=space_text,
        base=base,
        controls=controls,
        evaluate=evaluate,
        cost_function=head_cost,
        anchors=anchors,
        score_candidates=score_candidates,
        seconds_per_proxy=seconds_per_proxy,
    )


def _sized(
    experiment: Experiment, materials: Materials, resumed: Path | None, observer: Observer | None
) -> Experiment:
    """The experiment with a budget in hours turned into sizes: by how fast this machine is, or as a resumed run has them."""
    search = experiment.search
    assert isinstance(search.budget, str)
    if (
        resumed is not None
        and (former := RunDirectory.open(resumed).experiment().search).budget == search.budget
    ):
        sizes = {name: getattr(former, name) for name in SIZES if name not in search.model_fields_set}
        return experiment.model_copy(update={"search": search.model_copy(update=sizes)})
    assert materials.seconds_per_proxy is not None
    seconds = materials.seconds_per_proxy()
    proxies = 3600.0 * hours(search.budget) / seconds
    try:
        sized = search.sized(proxies)
    except ValueError as error:
        raise ExperimentError(
            f"search.budget: {search.budget}, at {seconds:.0f} s a proxy: {error}"
        ) from None
    if observer is not None:
        observer.note(
            f"{search.budget} are about {proxies:.0f} proxies of {seconds:.0f} s: {sized.screen.heads} heads screened, {sized.trials} "
            f"with a proxy of their own, {sized.finalists} finalists with {sized.replicates} seeds"
        )
    return experiment.model_copy(update={"search": sized})


def conduct(
    experiment: Experiment,
    materials: Materials,
    out: Path,
    *,
    resume: bool = False,
    observer: Observer | None = None,
    executor: Executor | None = None,
) -> RunSummary:
    """`run_search` with its materials at hand: also how the search is tested on the toy objective.

    `executor` runs the trials in place of the one that the experiment names.

    Raises:
        UserError: as `run_search`, apart from what `gather` finds.
    """
    _check_target(experiment, materials.space, out, resume=resume)
    if not resume:
        check_candidates(experiment, materials)
    watcher = observer if observer is not None else SilentObserver()
    proposer = Proposer(
        materials.space,
        materials.base,
        sampler=experiment.search.sampler,
        seed=experiment.seed,
        objectives=2 if experiment.probes else 1,
        cost_function=materials.cost_function,
    )
    url = experiment.search.storage
    shared = None if url is None else open_storage(url)
    with contextlib.ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(open_executor(experiment, out))
        directory = RunDirectory(out) if resume else _create(experiment, materials, out)
        stack.enter_context(directory.lock())
        watcher = stack.enter_context(_told_too(experiment, directory, watcher, new=not resume))
        ledger = stack.enter_context(_study(experiment, directory, shared, new=not resume, note=watcher.note))
        if resume:
            directory.extend(experiment)
        screened = _heads_to_screen(experiment, materials, directory, watcher)
        plan = _plan(experiment, materials, screened)
        coordinator = Coordinator(plan, ledger, proposer, directory.trial_folder, watcher)
        watcher.search_started(coordinator.status(), resumed=resume)
        executor.run(coordinator, materials.evaluate)
        watcher.search_ended(coordinator.status())
        return RunSummary(directory.path, tuple(ledger.records))


def check_candidates(experiment: Experiment, materials: Materials) -> None:
    """Refuse a funnel or screen whose space has fewer heads than a stage was asked to take. Sizes that nobody asked for shrink instead.

    Raises:
        ExperimentError: names the key, and how many there are.
    """
    search = experiment.search
    if search.strategy == "proxies":
        return
    some = _distinct(materials, 50, experiment.seed)
    if any(head.members for head in some):
        raise ExperimentError(
            f"search.strategy: {search.strategy} screens single heads, and {materials.space.name} has sets of heads; expected proxies"
        )
    if search.budget is not None:
        return
    asked = {
        "search.screen.heads": search.screen.heads if "heads" in search.screen.model_fields_set else 0,
        "search.trials": search.trials
        if search.strategy == "funnel" and "trials" in search.model_fields_set
        else 0,
    }
    found = len(_distinct(materials, max(asked.values()), experiment.seed)) if any(asked.values()) else 0
    for key, number in asked.items():
        if number > found:
            raise ExperimentError(
                f"{key}: {number} heads are asked for, and {materials.space.name} allows {found}; expected at most {found}"
            )


def _heads_to_screen(
    experiment: Experiment, materials: Materials, directory: RunDirectory, watcher: Observer
) -> list[HeadConfig]:
    """Which heads a screen takes; the first stage of a funnel."""
    search = experiment.search
    if search.strategy == "proxies":
        return []
    if search.strategy == "screen":
        return _distinct(materials, search.screen.heads, experiment.seed)
    assert materials.score_candidates is not None, "a funnel has a first stage"
    rows = materials.score_candidates(
        search.candidates, directory.path / FILE_NAME, watcher.candidates_scored
    )
    fit = [row for row in rows if row.score is not None]
    chosen = best_and_spread(
        fit, search.screen.heads, score=lambda row: row.score or 0.0, family=lambda row: row.config.family
    )
    if not chosen:
        raise RunError(f"none of {len(rows)} heads can be searched on this base, the last: {rows[-1].reason}")
    return [row.config for row in chosen]


def _distinct(materials: Materials, number: int, seed: int) -> list[HeadConfig]:
    return distinct_heads(
        materials.space, number, seed=seed, base=materials.base, cost_function=materials.cost_function
    )


def _plan(experiment: Experiment, materials: Materials, screened: Sequence[HeadConfig]) -> SearchPlan:
    search = experiment.search
    return SearchPlan(
        seed=experiment.seed,
        strategy=search.strategy,
        trials=search.trials,
        finalists=search.finalists,
        replicates=search.replicates,
        controls=materials.controls,
        labels=experiment.probes,
        rungs=tuple(experiment.proxy.rungs),
        reduction=search.stopping.reduction if search.stopping.kind == "asha" else None,
        screened=screened,
        anchors=materials.anchors,
        batch=search.screen.batch,
        audit=search.audit,
        keep_checkpoints=experiment.proxy.keep_checkpoints,
    )


@contextlib.contextmanager
def open_executor(experiment: Experiment, out: Path) -> Iterator[Executor]:
    """The executor that the experiment names, for a search that writes the run directory `out`.

    Raises:
        ExperimentError: there is no such cluster, or this machine or the cluster is too small.
    """
    spec, device = experiment.search.executor, experiment.proxy.device
    if spec.kind == "inline":
        yield InlineExecutor()
    elif spec.kind == "process":
        placements = place_workers(spec, device)
        yield ProcessExecutor(placements, max_retries=spec.max_retries, timeout=spec.timeout)
    else:
        from headsearch.search.executors.ray_cluster import check_device, connected

        check_device(spec, device)
        with connected(spec):
            from headsearch.search.executors.ray import RayExecutor

            yield RayExecutor(spec, out)


def read_space(source: str) -> tuple[Space, str]:
    """A space and its text, from a shipped name or a path. Raises `SpaceError`."""
    space = load_space(source)
    file = shipped_folder("search_spaces") / f"{source}.yaml" if source in shipped_spaces() else Path(source)
    return space, file.read_text(encoding="utf-8")


def _check_target(experiment: Experiment, space: Space, out: Path, *, resume: bool) -> None:
    if resume:
        RunDirectory.open(out).check_resume(experiment, space.hash)
    else:
        RunDirectory.refuse_existing(out)


def _create(experiment: Experiment, materials: Materials, out: Path) -> RunDirectory:
    # A storage that others use too holds many studies; a file of our own holds one.
    study = (
        experiment.name if experiment.search.storage is None else f"{experiment.name}-{secrets.token_hex(4)}"
    )
    facts = RunFacts(study=study, space_hash=materials.space.hash, base=materials.base)
    return RunDirectory.create(out, experiment, materials.space_text, facts)


@contextlib.contextmanager
def _removed_on_failure(directory: RunDirectory, *, new: bool) -> Iterator[None]:
    """Remove a new run that cannot begin."""
    try:
        yield
    except BaseException:
        if new:
            directory.remove()
        raise


def _told_too(experiment: Experiment, directory: RunDirectory, watcher: Observer, *, new: bool) -> Broadcast:
    """The watcher together with the callbacks of the experiment."""
    subject = Subject(
        name=experiment.name,
        key=f"{experiment.name}-{directory.facts().key}",
        folder=directory.path,
        experiment=without_password(experiment.to_yaml()),
    )
    with _removed_on_failure(directory, new=new):
        return Broadcast(watcher, build_callbacks(experiment.search.callbacks, subject))


@contextlib.contextmanager
def _study(
    experiment: Experiment,
    directory: RunDirectory,
    shared: BaseStorage | None,
    *,
    new: bool,
    note: Callable[[str], None],
) -> Iterator[Ledger]:
    """The ledger of a run, in the storage `shared` or a file of the run's own. A new run that cannot have one is removed."""
    with _removed_on_failure(directory, new=new):
        storage = shared or open_storage(sqlite_url(directory.study_path))
        patience = Patience(experiment.search.storage_patience, note)
        ledger = _open_ledger(experiment, directory, storage, patience)
    try:
        yield ledger
    finally:
        close_storage(storage)


def _open_ledger(
    experiment: Experiment, directory: RunDirectory, storage: BaseStorage, patience: Patience
) -> Ledger:
    labels = experiment.probes
    valued: Stage = "screen" if experiment.search.strategy == "screen" else "proxy"
    facts = directory.facts()
    if Ledger.exists(storage, facts.study):
        return Ledger(storage, facts.study, labels=labels, valued=valued, patience=patience)
    if directory.begun:
        raise RunError(
            f"{directory.path}: its study '{facts.study}' is not in the storage; copy it there, or go on with the former storage"
        )
    return Ledger.create(
        storage, facts.study, labels=labels, facts=facts.to_dict(), valued=valued, patience=patience
    )
