"""Which part of the machine each worker process gets: cores of the processor, and a GPU. No torch where no GPU is asked about."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from headsearch.cores import cores, take_share
from headsearch.errors import ExperimentError
from headsearch.experiment import ProcessSpec, RaySpec, SlurmSpec

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Placement:
    """What one worker may use."""

    cores: int
    """For its threads, of which an environment that limits them leaves fewer, and for the processes that decode its images."""
    gpu: str | None = None
    """The only GPU it sees, as `CUDA_VISIBLE_DEVICES` names it; None: those that the coordinator sees."""

    def apply(self) -> None:
        """Confine this process. To be called before torch is imported, and again after: either alone may come too late or be ignored."""
        take_share(self.cores)
        limit = os.environ.get(_THREADS[0], "")
        threads = min(self.cores, int(limit)) if limit.isdecimal() and int(limit) > 0 else self.cores
        os.environ.update(dict.fromkeys(_THREADS, str(threads)))
        if self.gpu is not None:
            os.environ[_DEVICES] = self.gpu
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(threads)


def place_workers(spec: ProcessSpec, device: str) -> list[Placement]:
    """A place for every worker on this machine, when trials run on `proxy.device`.

    Raises:
        ExperimentError: more workers than cores, or more GPUs wanted than there are.
    """
    gpus: list[str] | None = None
    if device != "cpu":
        import torch

        # A device with a number is shared by all; without one, every worker gets one of those that are visible here.
        visible = visible_gpus(torch.cuda.device_count(), os.environ)
        gpus = visible if ":" not in device else visible[:1]
        if device == "auto" and not gpus:
            gpus = None
    placements = divide(spec, cores(), gpus)
    return [replace(place, gpu=None) for place in placements] if ":" in device else placements


def divide(spec: ProcessSpec, cores: int, gpus: list[str] | None) -> list[Placement]:
    """Divide cores and GPUs among the workers: cores evenly, GPUs in turn. `gpus` is None where trials run on the processor.

    Raises:
        ExperimentError: as `place_workers`.
    """
    if spec.workers > cores:
        raise ExperimentError(
            f"search.executor.workers: {spec.workers} workers, but this machine has {cores} core(s); expected at most {cores}"
        )
    if gpus is not None and spec.workers > len(gpus) * spec.workers_per_gpu:
        needed = -(-spec.workers // spec.workers_per_gpu)
        raise ExperimentError(
            f"search.executor.workers: {spec.workers} workers, {spec.workers_per_gpu} per GPU, need {needed} GPU(s), and there are "
            f"{len(gpus)}; expected at most {len(gpus) * spec.workers_per_gpu} workers, or a larger workers_per_gpu"
        )
    share = cores // spec.workers
    return [Placement(share, gpus[worker % len(gpus)] if gpus else None) for worker in range(spec.workers)]


def check_device(spec: RaySpec | SlurmSpec, device: str) -> None:
    """Check that trials on `proxy.device` get what they ask for.

    Raises:
        ExperimentError: a GPU is asked for and none given to trials, or one by its number, which the cluster alone can choose.
    """
    if device.startswith("cuda:"):
        raise ExperimentError(
            f"proxy.device: {device!r} with the {spec.kind} executor, which chooses the GPU; expected cuda or auto"
        )
    if device == "cuda" and spec.gpus_per_trial == 0:
        raise ExperimentError(
            "search.executor.gpus_per_trial: 0, but proxy.device is cuda; expected more than 0, e.g. 1"
        )


def visible_gpus(count: int, environment: Mapping[str, str]) -> list[str]:
    """The names of the `count` GPUs that this process sees, in their order."""
    named = [name.strip() for name in environment.get(_DEVICES, "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]
