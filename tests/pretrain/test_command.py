"""The command as a person or a scheduler meets it: exit codes, one line for a mistake, torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
import yaml
from typer.testing import CliRunner

from headsearch.pretrain import PretrainSpec
from headsearch.testing.pretraining import small_export

SMALL = [
    part
    for override in (
        "recipe.epochs=2",
        "recipe.batch_size=32",
        "recipe.device=cpu",
        "recipe.probe_every=0",
        "data.labels=none",
    )
    for part in ("--set", override)
]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("head") / "head.yaml"
    path.write_text(small_export().to_yaml())
    return path


def in_process(*arguments: str) -> Any:
    """Run the command in this process; what typer's runner gives back."""
    from headsearch.cli import app

    return CliRunner().invoke(app, ["pretrain", *arguments])


def command(*arguments: str, launcher: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *launcher, "-m", "headsearch", "pretrain", *arguments]


def test_the_command_pretrains_and_says_where_the_weights_are(
    head: Path, images: Path, tmp_path: Path
) -> None:
    result = in_process(str(head), "--data", str(images), "--out", str(tmp_path / "out"), *SMALL, "--no-head")
    assert result.exit_code == 0
    assert PretrainSpec.read(tmp_path / "out" / "pretrain.yaml").head is None
    assert str(tmp_path / "out" / "base.safetensors") in result.stderr
    assert "epoch 2: loss" in result.stderr


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data.update(colour="red"), "unknown key 'colour'"),
        (lambda data: data["config"]["convnext"].update(kernel_size=5), "head_id says"),
        (lambda data: data["base"].update(model="vit_small_patch16_224"), "was head.yaml edited"),
        (lambda data: data["base"]["info"].update(width=32), "width is 32"),
        (lambda data: data["base"].update(weights="nowhere.safetensors"), "no file 'nowhere.safetensors'"),
        (lambda data: data["method"].update(kwargs={"temprature": 1}), "did you mean 'temperature'"),
    ],
    ids=["a field", "the config", "the base", "the width", "the weights", "an option"],
)
def test_a_head_file_edited_by_hand_is_refused_before_training(
    edit: Callable[[dict[str, Any]], None], message: str, head: Path, images: Path, tmp_path: Path
) -> None:
    data = yaml.safe_load(head.read_text())
    edit(data)
    edited = tmp_path / "edited.yaml"
    edited.write_text(yaml.safe_dump(data))
    result = in_process(str(edited), "--data", str(images), "--out", str(tmp_path / "out"), *SMALL)
    assert result.exception is not None
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_mistake_is_one_line_and_exit_code_2(head: Path, images: Path, tmp_path: Path) -> None:
    arguments = command(
        str(head), "--data", str(images), "--out", str(tmp_path), *SMALL, "--set", "recipe.epocs=3"
    )
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "recipe.epocs" in done.stderr


def test_sigterm_exits_with_143_and_tells_how_to_go_on(head: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    begun = forked.begun(
        "pretrain", head, "--data", images, "--out", out, *SMALL, "--set", "recipe.epochs=2000"
    )
    try:
        deadline = time.monotonic() + 240
        while not list((out / "checkpoints").glob("*.pt")):
            assert begun.process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        begun.process.terminate()
        code, _, told = begun.result()
    finally:
        begun.process.kill()
    assert code == 143
    assert f"Resume with:  headsearch pretrain {head} --out {out}" in told.splitlines()[-1]
    assert told.splitlines()[-1].endswith("--resume")


@pytest.mark.slow
def test_torchrun_trains_on_two_processes(head: Path, images: Path, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    arguments = command(
        str(head), "--data", str(images), "--out", str(tmp_path / "out"), *SMALL, launcher=launcher
    )
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 2: loss") == 1, "one rank talks"
    assert (tmp_path / "out" / "base.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_where_a_rank_is_killed_the_others_tell_how_to_go_on(
    lost: int, head: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    arguments = command(
        str(head),
        "--data",
        str(images),
        "--out",
        str(out),
        *SMALL,
        "--set",
        "recipe.epochs=2000",
        launcher=launcher,
    )
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 240
            while not list((out / "checkpoints").glob("*.pt")):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(sorted(map(int, children))[lost], signal.SIGKILL)
            _, told = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 1
    own = [line for line in told.splitlines() if line.startswith("headsearch:")]
    assert len(own) == 1
    assert (
        f"another rank is gone; it may have been killed or run out of memory. Resume with:  headsearch pretrain {head}"
        in own[0]
    )
    assert own[0].endswith("--resume")
    assert not any(line.startswith("[rank") for line in told.splitlines()), "no traceback of ours"


def test_without_a_compiler_training_goes_on_uncompiled_and_says_so_once(
    head: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    outs = [tmp_path / "plain", tmp_path / "compiled"]
    common = (str(head), "--data", str(images), *SMALL, "--no-head")
    assert in_process(*common, "--out", str(outs[0])).exit_code == 0
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with config.patch("cpp.cxx", (None, str(tmp_path / "no compiler"))):
        result = in_process(*common, "--out", str(outs[1]), "--set", "recipe.compile=true")
    assert result.exit_code == 0
    assert result.stderr.count("compile: torch cannot compile here, and training goes on without: ") == 1
    assert (outs[1] / "base.safetensors").read_bytes() == (outs[0] / "base.safetensors").read_bytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("method", ["mocov3", "dino", "dinov2", "ibot", "simmim", "mae", "ijepa"])
def test_a_gpu_trains_in_bfloat16_and_compiled(method: str, head: Path, images: Path, tmp_path: Path) -> None:
    extra = ["--set", "recipe.device=cuda", "--set", "recipe.compile=true", "--set", f"method.name={method}"]
    result = in_process(str(head), "--data", str(images), "--out", str(tmp_path / "out"), *SMALL, *extra)
    assert result.exit_code == 0
    assert (tmp_path / "out" / "base.safetensors").is_file()
