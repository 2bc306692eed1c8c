"""Whole proxies of tiny models: scores, determinism, resuming, and the ways a trial can end early."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from headsearch.errors import DataError, InfeasibleHead, RunError, TrialStopped
from headsearch.experiment import Experiment
from headsearch.heads import Candidate
from headsearch.heads.config import HeadConfig
from headsearch.heads.registry import parse_head
from headsearch.scoring.between_bases import compare_bases
from headsearch.scoring.discrepancy import MEASURES
from headsearch.scoring.quality import QUALITIES
from headsearch.search.zero_cost import ZeroCostScorer
from headsearch.testing.tiny import Context, tiny_experiment, training
from headsearch.training.candidates import CandidatesRun
from headsearch.training.checkpoint import Checkpoints
from headsearch.training.evaluator import Evaluator
from headsearch.training.trainer import Trainer
from headsearch.training.trial import CHECKPOINTS, EMBEDDINGS, TrialResult

CONVNEXT = parse_head({"convnext": {"depth": 1, "kernel_size": 3, "drop_path": 0.2}})
NONE = HeadConfig()


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def train(
    evaluator: Evaluator,
    config: HeadConfig,
    workdir: Path,
    seed: int = 0,
    context: Context | None = None,
) -> TrialResult:
    (result,) = evaluator(training(workdir, config, seed=seed), context or Context()).trials
    return result


def evaluate(experiment: Experiment, config: HeadConfig, workdir: Path, seed: int = 0) -> TrialResult:
    return train(Evaluator(experiment), config, workdir, seed)


def test_a_trial_with_a_head_has_every_score(images: Path, tmp_path: Path) -> None:
    context = Context()
    outcome = Evaluator(tiny_experiment(images))(training(tmp_path, CONVNEXT), context)
    (result,) = outcome.trials
    assert (result.state, result.reason, context.places) == ("complete", None, [0, 0])
    assert [scores.epoch for scores in result.rungs] == [2, 4]
    assert context.reported == list(result.rungs)
    final = result.rungs[-1]
    assert set(final.measures) == set(MEASURES)
    assert set(final.quality) == set(QUALITIES)
    assert final.discrepancy == final.measures["cka.embedding.output"]
    assert final.knn is not None
    assert 0 <= final.knn <= 100
    assert final.linear is not None
    assert final.linear > 80
    assert result.rungs[0].linear is None
    assert None not in (final.rankme_base, final.rankme_head, final.std_base, final.std_head)
    assert result.cost.params > 0
    assert result.cost.overhead is not None
    assert result.cost.overhead > 0
    assert result.cost.overhead_spread is not None
    assert outcome.images_per_second is not None
    assert outcome.images_per_second > 0
    assert sorted(name.partition(".")[0] for name in files_in(tmp_path)) == ["checkpoint", "metrics"]


def test_a_control_has_no_scores_of_a_head(images: Path, tmp_path: Path) -> None:
    result = evaluate(tiny_experiment(images), NONE, tmp_path)
    final = result.rungs[-1]
    assert final.measures == {}
    assert (final.discrepancy, final.rankme_head, final.std_head) == (None, None, None)
    assert (result.cost.params, result.cost.flops, result.cost.overhead) == (0, 0, 0.0)


def test_a_control_keeps_what_its_base_makes_of_the_same_images_whatever_the_seed(
    images: Path, tmp_path: Path
) -> None:
    files = {}
    for seed in (0, 1):
        evaluate(tiny_experiment(images), NONE, tmp_path / str(seed), seed)
        files[seed] = tmp_path / str(seed) / EMBEDDINGS
    kept = load_file(files[0])["base_embedding"]
    assert kept.shape == (40, 16)
    assert kept.dtype == torch.float32
    shuffled = {measure: (value, other) for _, measure, value, other in compare_bases(files, seed=0)}
    assert 0 < shuffled["cka"][0] < shuffled["cka"][1]


def test_without_labels_none_is_read(images: Path, tmp_path: Path) -> None:
    arrays = np.load(images)
    unlabelled = tmp_path / "unlabelled.npz"
    np.savez(unlabelled, train_images=arrays["train_images"], test_images=arrays["test_images"])
    experiment = tiny_experiment(
        unlabelled, data={"dataset": "npz", "root": str(unlabelled), "image_size": 16, "labels": "none"}
    )
    final = evaluate(experiment, CONVNEXT, tmp_path / "trial").rungs[-1]
    assert (final.knn, final.linear) == (None, None)
    assert final.discrepancy is not None
    with_labels = evaluate(tiny_experiment(images), CONVNEXT, tmp_path / "labelled").rungs[-1]
    assert final.measures == with_labels.measures


def test_the_same_seed_gives_the_same_scores_and_another_seed_others(images: Path, tmp_path: Path) -> None:
    experiment = tiny_experiment(images)
    evaluator = Evaluator(experiment)
    torch.manual_seed(5)
    first = train(evaluator, CONVNEXT, tmp_path / "a", 1)
    torch.manual_seed(6)
    train(evaluator, NONE, tmp_path / "b", 1)
    again = train(evaluator, CONVNEXT, tmp_path / "c", 1)
    elsewhere = train(pickle.loads(pickle.dumps(evaluator)), CONVNEXT, tmp_path / "d", 1)
    other = train(evaluator, CONVNEXT, tmp_path / "e", 2)
    assert first.rungs == again.rungs == elsewhere.rungs
    assert first.rungs != other.rungs


def test_the_global_random_state_is_left_as_it_was(images: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    evaluate(tiny_experiment(images), CONVNEXT, tmp_path)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_the_device_s_random_state_is_left_as_it_was_too(images: Path, tmp_path: Path) -> None:
    experiment = tiny_experiment(images, proxy={"epochs": 1, "batch_size": 32, "device": "cuda"})
    evaluator = Evaluator(experiment)
    expected = torch.cuda.get_rng_state()
    for use in (
        evaluator.prepare,
        evaluator.seconds_per_proxy,
        lambda: evaluator.overhead([Candidate.of(CONVNEXT)]),
        lambda: train(evaluator, CONVNEXT, tmp_path),
        lambda: ZeroCostScorer(experiment, seeds=2).score(Candidate.of(CONVNEXT)),
    ):
        use()
        assert torch.equal(torch.cuda.get_rng_state(), expected)


def test_how_long_a_proxy_takes_is_told_from_a_few_steps(images: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    short, long = (
        Evaluator(tiny_experiment(images, proxy={"epochs": epochs, "batch_size": 32})).seconds_per_proxy()
        for epochs in (1, 100)
    )
    assert 0 < short < long
    assert torch.equal(torch.get_rng_state(), state)


class Killed(BaseException):
    """What a crash looks like from inside."""


def final_weights(workdir: Path) -> dict[str, torch.Tensor]:
    (checkpoint,) = workdir.glob(CHECKPOINTS)
    state = torch.load(checkpoint, weights_only=True)["trainer"]
    flat = {f"hssl.{name}": value for name, value in state["hssl"].items()}
    for number, moments in state["optimizer"]["state"].items():
        flat |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
    return flat


@pytest.mark.parametrize("killed_at_step", [6, 7, 10], ids=["after a rung", "within an epoch", "later"])
def test_a_killed_trial_resumes_bit_for_bit(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at_step: int
) -> None:
    experiment = tiny_experiment(images)
    whole, resumed = Context(), Context()
    evaluator = Evaluator(experiment, checkpoint_seconds=0.0)
    expected = train(evaluator, CONVNEXT, tmp_path / "whole", context=whole)

    unpatched = Trainer.step

    def step_until_killed(trainer: Trainer, views: Any, step: int, masks: None) -> torch.Tensor:
        if step == killed_at_step:
            raise Killed
        return unpatched(trainer, views, step, masks)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step_until_killed)
        with pytest.raises(Killed):
            train(evaluator, CONVNEXT, tmp_path / "resumed")
    result = train(evaluator, CONVNEXT, tmp_path / "resumed", context=resumed)

    assert result.rungs == expected.rungs
    assert resumed.reported == whole.reported
    weights, resumed_weights = final_weights(tmp_path / "whole"), final_weights(tmp_path / "resumed")
    assert weights.keys() == resumed_weights.keys()
    assert all(torch.equal(weights[name], resumed_weights[name]) for name in weights)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "resumed")
    ]
    for log in logs:
        for record in log:
            record.pop("images_per_second", None)
    assert logs[0] == logs[1]


def test_checkpoints_that_take_long_are_written_rarely(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    saved: list[int] = []
    unpatched_step, unpatched_save = Trainer.step, Checkpoints.save

    def step_of_a_second(trainer: Trainer, views: Any, step: int, masks: None = None) -> torch.Tensor:
        nonlocal clock
        clock += 1.0
        return unpatched_step(trainer, views, step, masks)

    def save_of_a_fifth(checkpoints: Checkpoints, step: int, state: dict[str, Any]) -> None:
        nonlocal clock
        clock += 0.21
        saved.append(step)
        unpatched_save(checkpoints, step, state)

    monkeypatch.setattr("headsearch.training.loop.time", SimpleNamespace(perf_counter=lambda: clock))
    monkeypatch.setattr(Trainer, "step", step_of_a_second)
    monkeypatch.setattr(Checkpoints, "save", save_of_a_fifth)
    experiment = tiny_experiment(images, proxy={"epochs": 4, "rungs": [4]})
    train(Evaluator(experiment, checkpoint_seconds=1.5), CONVNEXT, tmp_path)
    # After 1.5 s, then whenever 20 times 0.21 s have passed, and at the rung.
    assert saved == [2, 7, 12, 12]


def test_a_checkpoint_of_another_trial_is_refused(images: Path, tmp_path: Path) -> None:
    evaluator = Evaluator(tiny_experiment(images))
    train(evaluator, CONVNEXT, tmp_path, 1)
    with pytest.raises(RunError, match="belongs to another training"):
        train(evaluator, CONVNEXT, tmp_path, 2)
    with pytest.raises(RunError, match="belongs to another training"):
        train(evaluator, NONE, tmp_path, 1)


def test_an_interrupted_trial_of_a_former_version_is_known_again(tmp_path: Path) -> None:
    proxy = {"epochs": 4, "rungs": [2, 4], "clip_gradient": None}
    evaluator = Evaluator(tiny_experiment(Path("images.npz"), proxy=proxy))
    head = parse_head({"convnext": {"depth": 1, "kernel_size": 3}})
    known = evaluator._identity(training(tmp_path, head, seed=1))
    assert known == "50323932536c155d035906fe114ea0252523141e21ba15e5af2762bf800c079d"


def test_the_state_of_a_former_version_is_taken_over(images: Path, tmp_path: Path) -> None:
    evaluator = Evaluator(tiny_experiment(images))
    expected = train(evaluator, CONVNEXT, tmp_path / "whole")
    run = evaluator.start(training(tmp_path / "cut", CONVNEXT), Context())
    for _ in range(3):
        run._epoch_ended(run.train_epoch())
    run._save()
    (checkpoint,) = (tmp_path / "cut").glob(CHECKPOINTS)
    content = torch.load(checkpoint, weights_only=True)
    state = content["run"]
    (state["rungs"],), (state["collapsed"],) = state.pop("scored"), state.pop("looked_collapsed")
    for name in ("left", "reasons", "loss_sums", "turns", "queue", "rounds"):
        del state[name]
    checkpoint.unlink()
    run.checkpoints.save(9, content)
    assert train(evaluator, CONVNEXT, tmp_path / "cut").rungs == expected.rungs


def test_a_stopped_trial_ends_at_its_rung(images: Path, tmp_path: Path) -> None:
    context = Context(stop_at=2)
    with pytest.raises(TrialStopped):
        train(Evaluator(tiny_experiment(images)), CONVNEXT, tmp_path, context=context)
    assert [scores.epoch for scores in context.reported] == [2]


def test_a_trial_whose_end_nobody_wrote_down_is_not_trained_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = Evaluator(tiny_experiment(images))
    first, second = Context(), Context()
    expected = train(evaluator, CONVNEXT, tmp_path / "a", context=first)
    with pytest.raises(TrialStopped):
        train(evaluator, CONVNEXT, tmp_path / "b", context=Context(stop_at=2))

    def no_epoch(_: CandidatesRun) -> float:
        raise AssertionError("it was trained to its end before")

    monkeypatch.setattr(CandidatesRun, "train_epoch", no_epoch)
    assert train(evaluator, CONVNEXT, tmp_path / "a", context=second).rungs == expected.rungs
    assert second.reported == first.reported
    with pytest.raises(TrialStopped):
        train(evaluator, CONVNEXT, tmp_path / "b", context=Context(stop_at=2))


def test_a_trial_that_blows_up_is_infeasible(images: Path, tmp_path: Path) -> None:
    experiment = tiny_experiment(
        images, proxy={"epochs": 4, "batch_size": 32, "learning_rate": 1e30, "clip_gradient": None}
    )
    with pytest.raises(InfeasibleHead, match="not finite"):
        evaluate(experiment, CONVNEXT, tmp_path)


def test_a_trial_that_collapses_is_infeasible(images: Path, tmp_path: Path) -> None:
    # So much decay leaves nothing but biases: all images look the same.
    experiment = tiny_experiment(
        images, proxy={"epochs": 4, "rungs": [1, 2, 3, 4], "batch_size": 32, "weight_decay": 900.0}
    )
    context = Context()
    with pytest.raises(InfeasibleHead, match="collapsed"):
        train(Evaluator(experiment), CONVNEXT, tmp_path, context=context)
    assert len(context.reported) >= 1


def test_progress_tells_how_far_training_is(images: Path, tmp_path: Path) -> None:
    context = Context()
    experiment = tiny_experiment(images, proxy={"epochs": 30, "batch_size": 32})
    train(Evaluator(experiment), NONE, tmp_path, context=context)
    assert context.told
    epochs = [epoch for epoch, *_ in context.told]
    assert epochs == sorted(epochs)
    assert 0 < epochs[0] <= epochs[-1] <= 30
    assert all(total == 30 and np.isfinite(loss) and speed > 0 for _, total, loss, speed in context.told)


def test_fewer_images_than_a_batch_are_a_mistake(images: Path) -> None:
    experiment = tiny_experiment(images, proxy={"epochs": 1, "batch_size": 128})
    with pytest.raises(DataError, match="96 images"):
        Evaluator(experiment).prepare()


def test_given_weights_are_where_every_trial_starts(images: Path, tmp_path: Path) -> None:
    experiment = tiny_experiment(images)
    torch.manual_seed(3)
    evaluator = Evaluator(experiment)
    weights = evaluator.inputs.base().model.state_dict()
    torch.save(weights, tmp_path / "base.pth")
    given = tiny_experiment(
        images, base={**experiment.base.model_dump(), "weights": str(tmp_path / "base.pth")}
    )
    evaluator = Evaluator(given)
    for seed in (0, 1):
        started = evaluator.start(training(tmp_path / str(seed), CONVNEXT, seed=seed), Context()).trainer.hssl
        for network in (started.student, started.teacher):
            state = network.base.model.state_dict()
            assert all(torch.equal(state[name], weights[name]) for name in weights)
