"""The sizes of a search that its experiment leaves open: those that a budget in hours buys on this machine, and those that a run has had so far."""

from __future__ import annotations

from pathlib import Path

from headsearch.errors import ExperimentError
from headsearch.experiment import Experiment
from headsearch.experiment.budget import SIZES, hours, subset_share
from headsearch.runs.directory import RunDirectory
from headsearch.search.materials import Materials
from headsearch.search.observer import Observer


def as_begun(experiment: Experiment, out: Path) -> Experiment:
    """The experiment, with as many seeds of the control `none` as the run `out` began with, unless it asks for another number."""
    if "replicates_of_none" in experiment.search.model_fields_set:
        return experiment
    former = RunDirectory.open(out).experiment().search.replicates_of_none
    search = experiment.search.model_copy(update={"replicates_of_none": former})
    return experiment.model_copy(update={"search": search})


def sized_by_time(
    experiment: Experiment, materials: Materials, resumed: Path | None, observer: Observer
) -> Experiment:
    """The experiment with a budget in hours turned into sizes, and into a subset of the images where that is to be decided on: by how fast
    this machine is, or as the run `resumed` has them.

    Raises:
        ExperimentError: so few hours that a funnel cannot be made of them.
    """
    search, data = experiment.search, experiment.data
    budget = search.budget
    assert isinstance(budget, str)
    if resumed is not None:
        former = RunDirectory.open(resumed).experiment()
        if former.search.budget == budget:
            names = [name for name in SIZES if name not in search.model_fields_set]
            sizes = {name: getattr(former.search, name) for name in names}
            if "screen" not in sizes and "heads" not in search.screen.model_fields_set:
                sizes["screen"] = search.screen.model_copy(update={"heads": former.search.screen.heads})
            search = search.model_copy(update=sizes)
            if data.subset == "auto":
                data = data.model_copy(update={"subset": former.data.subset})
            return experiment.model_copy(update={"search": search, "data": data})
    assert materials.seconds_per_proxy is not None
    seconds = materials.seconds_per_proxy()
    proxies = 3600.0 * hours(budget) / seconds
    if data.subset == "auto":
        share = subset_share(proxies)
        data = data.model_copy(update={"subset": share})
        seconds, proxies = seconds * (share or 1.0), proxies / (share or 1.0)
    try:
        sized = search.sized(proxies, trunk=experiment.trunk_cost)
    except ValueError as error:
        raise ExperimentError(f"search.budget: {budget}, at {seconds:.0f} s a proxy: {error}") from None
    observer.note(
        f"{budget} are about {proxies:.0f} proxies of {seconds:.0f} s: {sized.screen.heads} heads screened, {sized.trials} "
        f"with a proxy of their own, {sized.finalists} finalists with {sized.replicates} seeds"
    )
    return experiment.model_copy(update={"search": sized, "data": data})
