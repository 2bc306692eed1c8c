import pickle
from pathlib import Path

import pytest

from headsearch.errors import DataError, HeadError, InfeasibleHead, RunError
from headsearch.heads import Candidate, HeadConfig, Stage
from headsearch.search.executors import Failed, Stopped, attempt, failure
from headsearch.testing.toy import ToyEvaluator
from headsearch.training.trial import RungScores, Training, TrainingResult, Trial

MIXER = Candidate.of(HeadConfig((Stage("mixer", {"depth": 2}),)))


def training(folder: Path) -> Training:
    return Training((Trial(0, MIXER),), seed=3, workdir=folder)


def silent(*_: object) -> None:
    pass


def test_a_training_that_runs_through_gives_its_result_and_reports_every_rung(tmp_path: Path) -> None:
    reported: list[RungScores] = []
    outcome = attempt(
        ToyEvaluator(),
        training(tmp_path),
        lambda _, place, scores: reported.append(scores) or True,
        silent,
        silent,
    )
    assert isinstance(outcome, TrainingResult)
    (result,) = outcome.trials
    assert list(result.rungs) == reported
    assert [scores.epoch for scores in reported] == [1, 3, 9]


def test_a_trial_ends_at_the_rung_where_the_search_wants_no_more_of_it(tmp_path: Path) -> None:
    outcome = attempt(
        ToyEvaluator(), training(tmp_path), lambda _, place, scores: scores.epoch < 3, silent, silent
    )
    assert outcome == Stopped()
    assert (tmp_path / "epochs.txt").read_text().split() == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (InfeasibleHead("collapsed"), "infeasible", "collapsed"),
        (HeadError("num_heads must divide the width"), "infeasible", "num_heads must divide the width"),
        (MemoryError(), "infeasible", "out of memory: MemoryError"),
        (
            RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried"),
            "infeasible",
            "out of memory",
        ),
        (DataError("images: gone"), "halt", "images: gone"),
        (OSError(28, "No space left on device", "x.pt"), "halt", "no space left on the device (x.pt)"),
        (KeyError("key"), "failed", "KeyError: 'key'"),
        (ValueError("two\nlines"), "failed", "ValueError: two lines"),
    ],
)
def test_an_exception_says_whose_fault_it_is_in_one_line(error: Exception, kind: str, reason: str) -> None:
    outcome = failure(error)
    assert outcome.kind == kind
    assert outcome.reason.startswith(reason)
    assert "\n" not in outcome.reason


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "HIP out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_running_out_of_a_device_s_memory_is_the_head_s_fault(message: str) -> None:
    outcome = failure(RuntimeError(message))
    assert (outcome.kind, outcome.reason) == ("infeasible", f"out of memory: {message}")


def test_neighbours_that_do_not_leave_a_device_are_not_the_head_s_fault() -> None:
    assert failure(TimeoutError("the GPU was full")).kind == "failed"


def test_a_study_that_cannot_be_written_is_no_outcome_of_the_trial(tmp_path: Path) -> None:
    def report(_: Training, place: int, scores: RungScores) -> bool:
        raise RunError("the study cannot be written")

    with pytest.raises(RunError, match="the study cannot be written"):
        attempt(ToyEvaluator(), training(tmp_path), report, silent, silent)


def test_ctrl_c_passes_through(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(ToyEvaluator(), training(tmp_path), lambda *_: True, interrupt, silent)


def test_trainings_and_outcomes_travel_between_processes(tmp_path: Path) -> None:
    done = attempt(ToyEvaluator(), training(tmp_path), lambda *_: True, silent, silent)
    for thing in (training(tmp_path), done, Stopped(), Failed("why", "failed", "trace"), ToyEvaluator()):
        assert pickle.loads(pickle.dumps(thing)) == thing
