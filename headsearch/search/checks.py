"""What can be wrong with an experiment and is known at once: said before the seconds that torch, a base and images take."""

from __future__ import annotations

from pathlib import Path

from headsearch.data.names import check_data
from headsearch.errors import ExperimentError, SpaceError, did_you_mean
from headsearch.experiment import Experiment
from headsearch.experiment.sections import TRUNK_EXPECTED
from headsearch.files import check_weights
from headsearch.heads import FAMILIES
from headsearch.plugins import load_plugins
from headsearch.scoring.discrepancy import measure_names
from headsearch.search.callbacks import check_callbacks
from headsearch.search.executors.opening import check_executor
from headsearch.search.materials import Materials
from headsearch.space import Space
from headsearch.training.augmentation import build_augmentation


def check_experiment(experiment: Experiment) -> None:
    """Check names, options and paths. Needs no torch; the base and what lies in the data are checked when they are loaded.

    Raises:
        UserError: one line that names the key, what it holds and what was expected.
    """
    measure = experiment.search.discrepancy
    # Another experiment of this process may have had others of the same names.
    load_plugins(experiment.plugins)
    known = measure_names()
    if measure not in known:
        raise ExperimentError(
            f"search.discrepancy: unknown measure '{measure}'{did_you_mean(measure, known)}"
        )
    check_executor(experiment.search.executor, experiment.proxy.device)
    check_callbacks(experiment.search.callbacks)
    check_data(experiment.data.dataset, experiment.data.root)
    if experiment.base.weights not in (None, "pretrained"):
        check_weights(str(experiment.base.weights))
    trunk = experiment.proxy.trunk
    if trunk is not None and trunk.file is not None and not Path(trunk.file).is_file():
        raise ExperimentError(f"proxy.trunk: no file '{trunk.file}' ({TRUNK_EXPECTED})")
    build_augmentation(experiment.data)


def check_sets(experiment: Experiment, space: Space) -> None:
    """Refuse sets of heads where heads are screened: a screen is a set itself, and scores its members one by one.

    Raises:
        SpaceError: says which strategy takes sets.
    """
    if experiment.search.strategy != "proxies":
        space.expect_single_heads(f"a {experiment.search.strategy}")


def check_grids(experiment: Experiment, space: Space) -> None:
    """Refuse heads that are tied to one grid where the views have several: local crops give smaller feature maps.

    Raises:
        SpaceError: names the families.
    """
    if build_augmentation(experiment.data).local_crops == 0:
        return
    bound = sorted(name for name in space.families if FAMILIES[name].grid_bound)
    if bound:
        raise SpaceError(
            f"{space.where}: {', '.join(bound)} heads are tied to one grid, and local crops have another; "
            f"expected a space without them, or data.augmentation.local_crops of 0"
        )


def check_candidates(experiment: Experiment, materials: Materials) -> None:
    """Refuse a funnel or screen whose space has fewer heads than a stage was asked to take. Sizes that nobody asked for shrink instead.

    Raises:
        ExperimentError: names the key, and how many there are.
    """
    search = experiment.search
    if search.strategy == "proxies" or search.budget is not None:
        return
    asked = {
        "search.screen.heads": search.screen.heads if "heads" in search.screen.model_fields_set else 0,
        "search.trials": search.trials
        if search.strategy == "funnel" and "trials" in search.model_fields_set
        else 0,
    }
    found = len(materials.distinct(max(asked.values()), seed=experiment.seed)) if any(asked.values()) else 0
    for key, number in asked.items():
        if number > found:
            raise ExperimentError(
                f"{key}: {number} heads are asked for, and {materials.space.name} allows {found}; expected at most {found}"
            )
