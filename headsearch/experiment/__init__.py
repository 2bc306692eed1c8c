"""The experiment: one YAML file that says which base, which images, which method, how long, and how to search.

Comes in: a path or a shipped name, and `--set key=value` overrides. Goes out: an `Experiment`, complete and checked, that can
be written back so that a run tells exactly what it did. Nothing here builds a model or opens an image.
"""

from headsearch.experiment.loading import load_experiment, parse_experiment, shorthand, unless_named
from headsearch.experiment.schema import Experiment
from headsearch.experiment.search import (
    HalvingSpec,
    InlineSpec,
    ProcessSpec,
    RaySpec,
    SearchSpec,
    SlurmSpec,
    WorkersSpec,
)
from headsearch.experiment.sections import DataSpec, MethodSpec, ProxySpec, ScheduleSpec

__all__ = [
    "DataSpec",
    "Experiment",
    "HalvingSpec",
    "InlineSpec",
    "MethodSpec",
    "ProcessSpec",
    "ProxySpec",
    "RaySpec",
    "ScheduleSpec",
    "SearchSpec",
    "SlurmSpec",
    "WorkersSpec",
    "load_experiment",
    "parse_experiment",
    "shorthand",
    "unless_named",
]
