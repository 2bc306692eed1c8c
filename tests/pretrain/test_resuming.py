"""Interrupted pretrainings end as the undisturbed one does, bit for bit, and bad checkpoints are told apart from good ones."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import files_of_at_most
from processes import Started
from safetensors.torch import load_file

from headsearch.errors import RunError
from headsearch.pretrain import PretrainObserver, PretrainResult, PretrainSpec, pretrain
from headsearch.pretrain.result import PretrainInterrupted
from headsearch.testing.pretraining import small_spec

EPOCHS = 16
LASTS = 0.4
"""Seconds, fewer than half of the epochs take on any machine."""


class Signalling(PretrainObserver):
    """Sends its own process a signal in the middle of its training."""

    def __init__(self, number: int) -> None:
        self.number = number

    def epoch_ended(self, record: Mapping[str, Any]) -> None:
        if record["epoch"] == 3:
            os.kill(os.getpid(), self.number)


class Doomed(PretrainObserver):
    """Its process is killed so many seconds after its training has begun, or has ended an epoch. Its own timer does it: as SIGKILL, and never too late."""

    def __init__(self, seconds: float, *, at_once: bool) -> None:
        self.seconds, self.at_once = seconds, at_once

    def started(self, *, epochs: int, epoch: float, steps: int) -> None:
        if self.at_once:
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def epoch_ended(self, record: Mapping[str, Any]) -> None:
        if not self.at_once:
            signal.setitimer(signal.ITIMER_REAL, self.seconds)
            self.at_once = True


class Filling(PretrainObserver):
    """Fills the disk in the middle of the training."""

    def __init__(self, full: ExitStack) -> None:
        self.full = full

    def epoch_ended(self, record: Mapping[str, Any]) -> None:
        if record["epoch"] == 3:
            self.full.enter_context(files_of_at_most(10_000))


class Listening(PretrainObserver):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def spec(images: Path) -> PretrainSpec:
    """48 steps, with dropped paths, and a checkpoint after every one."""
    kwargs = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "drop_path_rate": 0.2}
    return small_spec(images, f"recipe.epochs={EPOCHS}", "recipe.checkpoint_minutes=0", kwargs=kwargs)


@pytest.fixture(scope="module")
def undisturbed(spec: PretrainSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    pretrain(spec, out)
    return out


def newest(out: Path) -> int:
    """Steps that the newest checkpoint holds, 0 without one."""
    return max((step_of(path) for path in (out / "checkpoints").glob("*.pt")), default=0)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.partition("-")[0])


def is_the_same(out: Path, expected: Path) -> None:
    for name in ("base.safetensors", "head.safetensors"):
        weights, others = load_file(out / name), load_file(expected / name)
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[key], others[key]) for key in weights)
    assert log(out) == log(expected)
    optimizers = [
        torch.load(max((folder / "checkpoints").iterdir()), weights_only=True)["trainer"]["optimizer"]
        for folder in (out, expected)
    ]
    for number, moments in optimizers[0]["state"].items():
        assert all(torch.equal(value, optimizers[1]["state"][number][key]) for key, value in moments.items())


def log(out: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        del record["images_per_second"]
    return records


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_training_that_is_killed_again_and_again_ends_with_the_same_weights(
    spec: PretrainSpec, undisturbed: Path, tmp_path: Path, kills: int
) -> None:
    out = tmp_path / "out"
    draw = random.Random(kills)
    for kill in range(kills):
        doomed = Doomed(draw.uniform(0.001, LASTS / kills), at_once=kill % 2 == 1)
        started = Started(pretrain_in, spec, out, (out / "pretrain.yaml").exists(), doomed)
        with pytest.raises(RuntimeError, match=f"ended with code -{signal.SIGALRM}$"):
            started.result()
    assert 0 < newest(out) < EPOCHS * 3
    pretrain(spec, out, resume=(out / "pretrain.yaml").exists())
    is_the_same(out, undisturbed)


def pretrain_in(spec: PretrainSpec, out: Path, resume: bool, observer: PretrainObserver) -> PretrainResult:
    return pretrain(spec, out, resume=resume, observer=observer)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_training_after_its_step_with_a_checkpoint(
    spec: PretrainSpec, undisturbed: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    # Nothing is written by the clock: what is there afterwards, the signal had written.
    rarely = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"checkpoint_minutes": 60.0})})
    interrupted = Started(pretrain_in, rarely, out, False, Signalling(number)).result()
    assert isinstance(interrupted, PretrainInterrupted)
    assert interrupted.signal == number
    assert newest(out) == round(interrupted.epoch * 3) >= 3 * 3
    pretrain(rarely, out, resume=True)
    is_the_same(out, undisturbed)


def test_a_full_disk_ends_a_training_in_one_line_and_it_resumes(
    spec: PretrainSpec, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with (
        ExitStack() as full,
        pytest.raises(RunError, match=r"File too large; fix that and continue with --resume$"),
    ):
        pretrain(spec, out, observer=Filling(full))
    assert newest(out) > 0
    pretrain(spec, out, resume=True)
    is_the_same(out, undisturbed)


def test_a_finished_training_can_be_resumed_to_write_its_files_again(
    spec: PretrainSpec, undisturbed: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    (out / "base.safetensors").unlink()
    pretrain(spec, out, resume=True)
    is_the_same(out, undisturbed)


@pytest.mark.parametrize("damage", ["truncated", "emptied", "a byte flipped"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_is_told(
    spec: PretrainSpec, undisturbed: Path, tmp_path: Path, damage: str
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    before, last = sorted((out / "checkpoints").iterdir())
    content = bytearray(last.read_bytes())
    if damage == "a byte flipped":
        content[len(content) // 2] ^= 1
    else:
        del content[0 if damage == "emptied" else len(content) // 2 :]
    last.write_bytes(content)
    observer = Listening()
    pretrain(spec, out, resume=True, observer=observer)
    assert [str(last) in note for note in observer.notes] == [True]
    assert step_of(before) == step_of(last) - 1
    is_the_same(out, undisturbed)


def rewrite(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a checkpoint holds, with the right checksum."""
    state = torch.load(checkpoint, weights_only=True)
    change(state)
    torch.save(state, checkpoint)
    checksum = zlib.crc32(checkpoint.read_bytes())
    checkpoint.rename(checkpoint.with_name(f"{step_of(checkpoint):09}-{checksum:08x}.pt"))


def test_a_checkpoint_of_a_former_version_is_gone_on_with(
    spec: PretrainSpec, undisturbed: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    before, last = sorted((out / "checkpoints").iterdir())
    last.unlink()
    rewrite(before, lambda state: state.update(loss_sum=state["run"].pop("loss_sum")))
    pretrain(spec, out, resume=True)
    is_the_same(out, undisturbed)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("trainer"),
        lambda state: state.update(run=[1]),
        lambda state: state["run"].update(colour="red"),
        lambda state: state["trainer"]["hssl"].popitem(),
        lambda state: state["trainer"].update(optimizer={}),
    ],
    ids=["no weights", "no state", "an unknown state", "a weight missing", "no optimiser"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(
    spec: PretrainSpec, undisturbed: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    rewrite(max((out / "checkpoints").iterdir()), change)
    with pytest.raises(RunError, match="does not fit this training") as caught:
        pretrain(spec, out, resume=True)
    assert "\n" not in str(caught.value)


def test_where_every_checkpoint_is_damaged_nothing_is_trained(
    spec: PretrainSpec, undisturbed: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    for path in (out / "checkpoints").iterdir():
        path.write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="damaged, and no other checkpoint is left"):
        pretrain(spec, out, resume=True)


def test_another_training_is_not_gone_on_with(
    images: Path, undisturbed: Path, spec: PretrainSpec, tmp_path: Path
) -> None:
    other = spec.model_copy(update={"seed": 4})
    with pytest.raises(RunError, match="cannot resume with another seed: 4, it has 3"):
        pretrain(other, undisturbed, resume=True)
    pretrain(other, tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "checkpoints")
    shutil.copytree(undisturbed / "checkpoints", tmp_path / "other" / "checkpoints")
    with pytest.raises(RunError, match="belongs to another training"):
        pretrain(other, tmp_path / "other", resume=True)


def test_what_touches_no_weight_may_change_on_the_way(
    spec: PretrainSpec, undisturbed: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    recipe = spec.recipe.model_copy(update={"keep_checkpoints": 1, "export": "teacher"})
    pretrain(spec.model_copy(update={"recipe": recipe}), out, resume=True)
    student, teacher = load_file(undisturbed / "base.safetensors"), load_file(out / "base.safetensors")
    assert not all(torch.equal(student[name], teacher[name]) for name in student)
