"""Files of weights: what fits is loaded, whoever saved it; what does not is refused by name, before anything is trained."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from headsearch.base.model import load_base
from headsearch.errors import BaseModelError

TINY: dict[str, Any] = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 1, "num_heads": 2}
State = dict[str, Any]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(1)
    made: torch.nn.Module = timm.create_model("vit_tiny_patch16_224", num_classes=0, **TINY)
    return made.state_dict()


def load(path: Path | str) -> State:
    base = load_base("vit_tiny_patch16_224", image_size=16, kwargs=TINY, weights=str(path))
    return base.model.state_dict()


def refusal(path: Path | str) -> str:
    with pytest.raises(BaseModelError) as raised:
        load(path)
    message = str(raised.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


WRAPPED: dict[str, Callable[[State], State]] = {
    "as it is": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": state, "optimizer": {"state": {}}, "args": None},
    "averaged first": lambda state: {"model": {"x": torch.ones(1)}, "model_ema": state},
    "parallel": lambda state: prefixed(state, "module."),
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "teacher": lambda state: {
        "teacher": {**prefixed(state, "module.backbone."), "module.head.mlp.0.weight": torch.ones(3)},
        "student": {},
    },
    "nested twice": lambda state: {"module": {"state_dict": prefixed(state, "backbone.")}, "epoch": 1},
    "half": lambda state: {name: value.half() for name, value in state.items()},
    "double": lambda state: {name: value.double() for name, value in state.items()},
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_are_found_however_a_trainer_saved_them(
    kind: str, legacy: bool, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    torch.save(WRAPPED[kind](state), path, _use_new_zipfile_serialization=not legacy)
    expected = {name: value.half().float() for name, value in state.items()} if kind == "half" else state
    found = load(path)
    assert all(torch.equal(found[name], expected[name]) for name in state)


def test_safetensors_are_known_by_their_content_and_wrappers_in_their_names(
    state: State, tmp_path: Path
) -> None:
    save_file(prefixed(state, "module."), tmp_path / "w.bin")
    assert torch.equal(load(tmp_path / "w.bin")["pos_embed"], state["pos_embed"])


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_counted_and_named(
    suffix: str, value: float, state: State, tmp_path: Path
) -> None:
    broken = {name: tensor.clone() for name, tensor in state.items()}
    broken["cls_token"][0, 0, :3] = value
    broken["norm.bias"][0] = value
    path = tmp_path / f"broken.{suffix}"
    if suffix == "pth":
        torch.save(broken, path)
    else:
        save_file(broken, path)
    assert refusal(path).endswith(
        "holds values that are not finite: 3 of 32 in cls_token (and in 1 more tensors)"
    )


def test_a_value_too_large_for_the_model_is_not_finite(state: State, tmp_path: Path) -> None:
    large = {**state, "norm.bias": torch.full((32,), 1e300, dtype=torch.float64)}
    torch.save(large, tmp_path / "w.pth")
    assert "32 of 32 in norm.bias" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.bias": "text"}, "norm.bias is no tensor but str"),
        ({"norm.bias": [1.0, 2.0]}, "norm.bias is no tensor but list"),
        ({"norm.bias": None}, "norm.bias is no tensor but NoneType"),
        ({"epoch": 3}, "epoch is no tensor but int"),
        ({3: torch.ones(2)}, "which has no 3"),
        ({"norm.bias": torch.ones(32, dtype=torch.int8)}, "norm.bias is torch.int8, expected torch.float32"),
        ({"norm.bias": torch.ones(32, dtype=torch.complex64)}, "norm.bias is torch.complex64"),
        ({"norm.bias": torch.ones(32, dtype=torch.bool)}, "norm.bias is torch.bool"),
        ({"norm.bias": torch.ones(33)}, r"norm.bias has shape (33,), expected (32,)"),
        ({"norm.bias": torch.tensor(1.0)}, r"norm.bias has shape (), expected (32,)"),
        ({"norm.bias": torch.ones(1).expand(10**12)}, "norm.bias has shape (1000000000000,)"),
        ({"norm.bias": torch.ones(32).to_sparse()}, "norm.bias is sparse"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[Any, Any], message: str, state: State, tmp_path: Path
) -> None:
    torch.save({**state, **change}, tmp_path / "w.pth")
    assert message in refusal(tmp_path / "w.pth")


class _Runs:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(how: str, state: State, tmp_path: Path) -> None:
    content = {**state, "norm.bias": _Runs(tmp_path / "ran")}
    path = tmp_path / "w.pth"
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"norm.bias": _Runs(tmp_path / "ran")}))
    assert ("holds Python objects, which might run code" in refusal(path)) == (how == "torch")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for content, held in (
        ([torch.ones(3)], "list"),
        (torch.ones(3), "Tensor"),
        (3, "int"),
        ({}, "nothing"),
        ({"epoch": 3, "optimizer": {"x": torch.ones(1)}}, "epoch, optimizer"),
        ({"model": {"model": {}}}, "nothing"),
    ):
        torch.save(content, path)
        assert f"holds {held}; expected a dictionary of tensors" in refusal(path)


def test_damaged_files_are_refused(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        content = (tmp_path / name).read_bytes()
        for size in (0, 1, 8, 9, 100, len(content) // 2, len(content) - 1):
            (tmp_path / "cut").write_bytes(content[:size])
            assert refusal(tmp_path / "cut")
    (tmp_path / "header").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    assert refusal(tmp_path / "header")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "is a directory" in refusal(tmp_path)
    assert "is a pipe or a device" in refusal(tmp_path / "pipe")
    assert "is a pipe or a device" in refusal("/dev/zero")
    assert "symbolic links" in refusal(tmp_path / "loop")
    assert "too long" in refusal(tmp_path / ("x" * 300))
    assert "null byte" in refusal("a\0b")


@pytest.mark.slow
def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    """Eight gigabytes of another model, of which nothing lies on the disk, within three of address space beyond torch's own."""
    size = 2 * 10**9
    header = json.dumps({"x": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}).encode()
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * size)
    program = (
        "from headsearch.base.model import load_base\n"
        f"try: load_base('resnet18', image_size=32, weights={str(path)!r})\n"
        "except ValueError as error: print(error)\n"
        # Of this program alone: ru_maxrss begins with what its parent had.
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(int(status['VmHWM'].split()[0]) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    message, megabytes = done.stdout.splitlines()
    assert "does not fit resnet18" in message
    assert int(megabytes) < 2_000
