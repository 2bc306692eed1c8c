"""The functions of `import headsearch`. Each does the same as the command of its name, and raises a `HeadsearchError` where the command would end with a line."""

from __future__ import annotations

from collections.abc import Sequence
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from headsearch.api.run import Run
    from headsearch.comparison.outcome import Comparison
    from headsearch.evaluation.result import Evaluation
    from headsearch.experiment import Experiment
    from headsearch.export import HeadSource
    from headsearch.pretrain.result import PretrainResult

    Data = str | PathLike[str] | Mapping[str, Any]
    Base = str | Mapping[str, Any]


def load_experiment(
    experiment: str | PathLike[str] | None = None,
    *,
    base: Base | None = None,
    data: Data | None = None,
    space: str | PathLike[str] | None = None,
    budget: int | str | None = None,
    **sections: Any,
) -> Experiment:
    """The experiment that `search` would run, complete and checked, without running it.

    Args:
        experiment: an experiment file or a shipped name (`digits`). Default: `digits`, or, with other `data`, only the defaults.
        base: a timm model's name, or the keys of `base`.
        data: a data set's name, an `.npz` file, a folder of images, or the keys of `data`.
        space: a shipped space's name or a file.
        budget: budget of a funnel, in proxies (`24`) or as a time (`"2 h"`).
        sections: further keys of the experiment by section: `proxy={"epochs": 4}`, `method="dino"`, `search={"trials": 8}`, `seed=1`.

    Raises:
        ExperimentError: one line that names the key and what was expected.

    >>> load_experiment("digits", proxy={"epochs": 4}).proxy.epochs
    4
    """
    from headsearch.api.settings import as_arguments, data_section, settings
    from headsearch.experiment import load_experiment, unless_named
    from headsearch.plugins import load_plugins, located

    named = [located(name) for name in sections.pop("plugins", None) or ()]
    # They may bring the data source that `data` names.
    load_plugins(named)
    images = data_section(data) or {}
    source = unless_named(images.get("dataset")) if experiment is None else experiment
    path = None if source is None else str(source)
    chosen = {"base": base, "data": images, **sections}
    search = {"space": space, "budget": budget}
    with as_arguments():
        return load_experiment(
            path,
            settings(chosen) + settings({"search": {k: v for k, v in search.items() if v is not None}}),
            plugins=named,
        )


def search(
    experiment: Experiment | str | PathLike[str] | None = None,
    *,
    base: Base | None = None,
    data: Data | None = None,
    space: str | PathLike[str] | None = None,
    budget: int | str | None = None,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    quiet: bool = False,
    **sections: Any,
) -> Run:
    """Search for heads as `headsearch run` does: train the base with each head on a short schedule, and rank the heads.

    After an interruption (Ctrl-C or the kernel's stop button) everything finished is safe. The same call with `resume=True` continues.

    Args:
        experiment: as for `load_experiment`, or its result.
        base: as for `load_experiment`.
        data: as for `load_experiment`.
        space: as for `load_experiment`.
        budget: as for `load_experiment`.
        out: the run directory. Default: `runs/<name of the experiment>`.
        resume: continue the run in `out`, or extend a finished one.
        quiet: show no progress.
        sections: as for `load_experiment`.

    Raises:
        UserError: bad input, in one line; nothing is left behind.

    >>> run = headsearch.search("digits", out="runs/digits")                          # doctest: +SKIP
    >>> run = headsearch.search(base="resnet18", data="images/", budget="2 h")        # doctest: +SKIP
    """
    from headsearch.commands.progress import progress_display
    from headsearch.errors import ExperimentError
    from headsearch.experiment import Experiment
    from headsearch.search.session import run_search

    changes = {"base": base, "data": data, "space": space, "budget": budget, **sections}
    if isinstance(experiment, Experiment):
        given = [name for name, value in changes.items() if value is not None]
        if given:
            raise ExperimentError(
                f"search: {', '.join(given)} given beside an Experiment, which is complete; give {given[0]} to load_experiment"
            )
        spec = experiment
    else:
        spec = load_experiment(experiment, **changes)
    where = Path("runs") / spec.name if out is None else Path(out)
    with progress_display(quiet=quiet) as display:
        run_search(spec, where, resume=resume, observer=display)
    return open(where)


def open(path: str | PathLike[str]) -> Run:
    """Open a run directory as it is now. If a search is still writing it, open it again to see more.

    Raises:
        RunError: there is no run, or its study cannot be read.

    >>> headsearch.open("runs/digits").table()        # doctest: +SKIP
    """
    from headsearch.api.run import Run

    return Run.at(path)


def pretrain(
    head: HeadSource | None = None,
    *,
    out: str | PathLike[str],
    base: Base | None = None,
    data: Data | None = None,
    plugins: Sequence[str | PathLike[str]] = (),
    with_head: bool = True,
    resume: bool = False,
    quiet: bool = False,
    **sections: Any,
) -> PretrainResult:
    """Pretrain the base with a head on the full schedule, as `headsearch pretrain` does, and write weights that timm can load.

    Args:
        head: the result of `Run.head`, or a `head.yaml`; or a description, which needs a `base`: `{"convnext": {"depth": 3}}`, `"paper"`.
        out: the folder to write.
        base: a timm model's name, a factory, or the keys of `base`. Default: the base that the head was chosen for.
        data: a data set's name, an `.npz` file, a folder of images, or the keys of `data`. Default: the search's.
        plugins: files or names of plug-ins that head, method or data need.
        with_head: False trains the control: the same without a head.
        resume: continue from the newest checkpoint in `out`.
        quiet: show no progress.
        sections: keys of the pretraining by section: `recipe={"epochs": 100}`, `seed=1`.

    Raises:
        UserError: bad input, in one line, before the first step.
        PretrainInterrupted: Ctrl-C or the kernel's stop button. A checkpoint has been written, and `resume=True` continues.
        TrainingFailed: the loss is not finite.

    >>> trained = headsearch.pretrain(run.head(), out="improved", recipe={"epochs": 100})        # doctest: +SKIP
    >>> headsearch.pretrain({"convnext": {"depth": 3}}, base="resnet50", data="images/", out="improved")        # doctest: +SKIP
    """
    from headsearch.api.settings import as_arguments, on_base
    from headsearch.pretrain import pretrain as run_pretraining
    from headsearch.pretrain.chosen import pretraining_of
    from headsearch.pretrain.display import pretrain_display

    with as_arguments():
        spec = pretraining_of(head, **on_base(base, data, plugins, sections), without_head=not with_head)
    with pretrain_display(quiet=quiet) as display:
        return run_pretraining(spec, Path(out), resume=resume, observer=display)


def evaluate(
    *weights: str | PathLike[str] | PretrainResult,
    base: Base | None = None,
    data: Data | None = None,
    image_size: int | None = None,
    probes: str | Sequence[str] | None = None,
    seeds: int | None = None,
    plugins: Sequence[str | PathLike[str]] = (),
    quiet: bool = False,
    **sections: Any,
) -> Evaluation:
    """Probe weights of a base side by side, with intervals, as `headsearch evaluate` does; the others are compared with the first.

    Args:
        weights: each a file, a pretraining's folder or result, `random` or `pretrained`.
        base: a timm model's name, or `{"model": ..., "kwargs": ...}`. Default: the pretraining's.
        data: labelled images. Default: the pretraining's.
        image_size: side of the images in pixels. Default: the pretraining's, or else the model's own.
        probes: any of `knn`, `linear`, `few-shot`, `finetune`, `retrieval`, `segmentation`, `detection`, and `label-free`, which needs no labels.
        seeds: number of seeds for everything random.
        plugins: files or names of plug-ins that bring the images.
        quiet: show no progress.
        sections: further keys of the evaluation: `knn={"neighbours": [10, 20]}`, `device="cuda"`.

    Raises:
        UserError: bad input, in one line, before the first probe.

    >>> headsearch.evaluate(trained, "random", probes=["knn", "linear"]).table()        # doctest: +SKIP
    """
    from headsearch.api.settings import as_arguments, data_section, settings
    from headsearch.errors import ExperimentError
    from headsearch.evaluation.spec import evaluation_spec
    from headsearch.plugins import load_plugins, located
    from headsearch.pretrain.result import PretrainResult

    load_plugins([located(name) for name in plugins])
    if not weights:
        raise ExperimentError(
            "evaluate: no weights; expected a file, a pretraining's folder, random or pretrained"
        )
    images = {**(data_section(data) or {}), **({} if image_size is None else {"image_size": image_size})}
    chosen = {"base": base, "data": images, "probes": probes, "seeds": seeds}
    with as_arguments():
        spec = evaluation_spec({}, settings({**chosen, **sections}))
    from headsearch.commands.common import teller
    from headsearch.evaluation.evaluate import evaluate as run

    names = [fspath(each.folder if isinstance(each, PretrainResult) else each) for each in weights]
    return run(spec, names, tell=teller(quiet))


def compare(
    *heads: HeadSource,
    out: str | PathLike[str],
    base: Base | None = None,
    data: Data | None = None,
    seeds: int = 3,
    budget: Literal["epochs", "time"] = "epochs",
    probes: str | Sequence[str] | None = None,
    plugins: Sequence[str | PathLike[str]] = (),
    resume: bool = False,
    quiet: bool = False,
    **sections: Any,
) -> Comparison:
    """Pretrain with and without the heads, with several seeds each, and evaluate all, as `headsearch compare` does: is a head worth it?

    Args:
        heads: each as for `pretrain`. Described heads use the base of the first head that was chosen by a search.
        out: the folder to write.
        base: as for `pretrain`, for all heads.
        data: as for `pretrain`, for all heads.
        seeds: number of seeds of every arm.
        budget: what all arms have in common. With `time`, arms with a head train for fewer epochs.
        probes: as for `evaluate`. The first decides the verdict.
        plugins: as for `pretrain`.
        resume: continue the comparison in `out`.
        quiet: show no progress.
        sections: as for `pretrain`, and keys of the evaluation: `evaluate={"knn": {...}}`.

    Raises:
        UserError: bad input, in one line, before the first training.
        PretrainInterrupted: as for `pretrain`.

    >>> headsearch.compare("head.yaml", out="compared", recipe={"epochs": 100}).verdict        # doctest: +SKIP
    """
    from headsearch.api.settings import as_arguments, on_base
    from headsearch.comparison.plan import make_plan

    with as_arguments():
        plan = make_plan(
            heads, seeds=seeds, budget=budget, probes=probes, **on_base(base, data, plugins, sections)
        )
    from headsearch.commands.common import teller
    from headsearch.comparison.compare import compare as run
    from headsearch.pretrain.display import pretrain_display

    return run(
        plan, Path(out), resume=resume, display=lambda: pretrain_display(quiet=quiet), tell=teller(quiet)
    )
