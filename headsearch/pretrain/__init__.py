"""Full pretraining with a chosen head: the code of the proxy on a full schedule, on one device or many.

`PretrainSpec` says what is trained, `pretrain` trains it. `recipe` holds the schema, `run` what pretraining adds to the training loop,
`outcome` the files that are left at the end. Importing this package needs no torch.
"""

from __future__ import annotations

from pathlib import Path

from headsearch.pretrain.observer import PretrainObserver
from headsearch.pretrain.recipe import PretrainSpec
from headsearch.pretrain.result import PretrainResult

__all__ = [
    "PretrainObserver",
    "PretrainResult",
    "PretrainSpec",
    "pretrain",
]


def pretrain(
    spec: PretrainSpec, out: Path, *, resume: bool = False, observer: PretrainObserver | None = None
) -> PretrainResult:
    """Train base and head to the end of the schedule and write the base's weights, the head's, and a model card.

    In a process that torchrun started, this is one rank of several, and all of them return the result; only the first writes to `out`
    and tells `observer`. Everything random follows from the spec's seed: on a CPU an interrupted and resumed training ends with
    the weights of the undisturbed one. The global random state is left as it was.

    Args:
        spec: what to train.
        out: the folder to write; it must not exist, unless `resume`.
        resume: go on from the newest readable checkpoint in `out`, or from the start where there is none yet.
        observer: is told how training goes.

    Raises:
        UserError: anything that is wrong with spec, data, base, head, world size, folder or checkpoints, before the first step.
        PretrainInterrupted: SIGTERM or SIGINT came; a checkpoint was written.
        TrainingFailed: the loss is not finite.
        RunError: later, a file that cannot be written; `resume` continues from the last checkpoint.
        RankLost: another rank is gone; its work since the last checkpoint is lost.
    """
    spec.check_paths()

    from headsearch.pretrain.run import run_pretraining

    return run_pretraining(spec, out, resume=resume, observer=observer or PretrainObserver())
