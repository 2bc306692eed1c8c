"""From the section of an experiment to its executor: what can be known to be wrong with it at once, and the executor itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from headsearch.cores import cores
from headsearch.errors import PluginError, require
from headsearch.experiment import InlineSpec, ProcessSpec, RaySpec, SlurmSpec
from headsearch.experiment.guests import EXECUTORS, GuestExecutor
from headsearch.experiment.search import ExecutorSpec
from headsearch.plugins import run_by_a_guest
from headsearch.search.executors import Executor, InlineExecutor
from headsearch.search.executors.placement import check_device, divide, place_workers
from headsearch.search.executors.process import ProcessExecutor
from headsearch.search.executors.ray_cluster import connected, reach
from headsearch.search.executors.slurm import SlurmExecutor
from headsearch.search.executors.slurm_jobs import check_options, check_programs


def check_executor(spec: ExecutorSpec, device: str) -> None:
    """Check what can be known without torch and without a cluster, for trials on `proxy.device`.

    Raises:
        UserError: a package or program is missing, nothing listens at an address, or this machine is too small.
    """
    if isinstance(spec, ProcessSpec):
        divide(spec, cores(), None)
    elif isinstance(spec, RaySpec):
        require("ray", extra="ray", where="search.executor")
        check_device(spec, device)
        if spec.address not in (None, "auto"):
            reach(str(spec.address))
    elif isinstance(spec, SlurmSpec):
        check_programs()
        check_device(spec, device)


@contextlib.contextmanager
def open_executor(spec: ExecutorSpec, device: str, out: Path) -> Iterator[Executor]:
    """The executor that `spec` describes, for trials on `proxy.device` of a search that writes the run directory `out`.

    Raises:
        ExperimentError: there is no such cluster, or this machine or the cluster is too small.
    """
    if isinstance(spec, GuestExecutor):
        with run_by_a_guest(f"search.executor: {spec.kind}"):
            opened = EXECUTORS[spec.kind].open(spec.options, out, device)
        with opened as executor:
            if not callable(getattr(executor, "run", None)):
                raise PluginError(
                    f"search.executor: {spec.kind} makes a {type(executor).__name__}; expected an Executor, with a method run"
                )
            yield executor
    elif isinstance(spec, InlineSpec):
        yield InlineExecutor()
    elif isinstance(spec, ProcessSpec):
        placements = place_workers(spec, device)
        yield ProcessExecutor(placements, max_retries=spec.max_retries, timeout=spec.timeout)
    elif isinstance(spec, SlurmSpec):
        check_device(spec, device)
        check_options(spec)
        yield SlurmExecutor(spec, out)
    else:
        check_device(spec, device)
        with connected(spec):
            from headsearch.search.executors.ray import RayExecutor

            yield RayExecutor(spec, out)
