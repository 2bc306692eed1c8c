"""Feeds mutated files to their readers, in a process of its own with a limit on time and memory.

    python tests/fuzz/worker.py TARGET COUNT SEED

prints a JSON object: how many inputs were refused with our own error, how many accepted, and what else happened. Anything but our own errors, 10
seconds for one input, or 2 GB more than at the start is a failure.
"""

import contextlib
import functools
import importlib
import io
import json
import random
import re
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from images import archives, image, npz, pictures
from mutations import SCALARS, VALUES, mutated_bytes, mutated_data, mutated_values

from headsearch.document import parse, plain, to_yaml
from headsearch.errors import HeadsearchError

SECONDS = 10
"""Of the processor, for one input."""
PATIENCE = 60
"""Seconds on the clock: a machine may be busy."""
MEMORY = 2 * 10**9
ROOT = Path(__file__).parents[2]
HEAD = Path(__file__).parents[1] / "fixtures" / "scores" / "head.yaml"

Target = Callable[[random.Random, Path], Callable[[], None]]
"""Makes an input from a random generator, in a folder, and gives what reads it."""


class Hangs(BaseException):
    """No `Exception`: nobody may swallow it."""


def mutated_file(sources: list[Path], rng: random.Random, folder: Path) -> Path:
    """A mutated copy of one of the files."""
    text = rng.choice(sources).read_bytes()
    way = rng.random()
    if way < 0.3:
        content = mutated_bytes(text, rng)
    elif way < 0.6:
        content = mutated_values(text.decode(), rng).encode()
    else:
        data = mutated_data(plain(parse(text.decode(), "source")), rng)
        content = (json.dumps(data) if rng.random() < 0.3 else to_yaml(data)).encode("utf-8", "surrogatepass")
    file = folder / "input.yaml"
    file.write_bytes(content)
    return file


def space(rng: random.Random, folder: Path) -> Callable[[], None]:
    from headsearch.space import load_space
    from headsearch.space.show import space_tree

    file = mutated_file(sorted((ROOT / "search_spaces").glob("*.yaml")), rng, folder)

    def read() -> None:
        from rich.console import Console

        loaded = load_space(file)
        Console(file=io.StringIO()).print(space_tree(loaded))
        assert loaded.hash
        loaded.default()
        for _ in range(3):
            loaded.sample(random.Random(0))
        loaded.count_distinct(limit=500)
        loaded.validate(limit=500, samples=100)

    return read


def experiment(rng: random.Random, folder: Path) -> Callable[[], None]:
    file = mutated_file(EXPERIMENTS, rng, folder)
    return lambda: _load_and_check(str(file), [])


def override(rng: random.Random, folder: Path) -> Callable[[], None]:
    from headsearch.evaluation.spec import evaluation_spec
    from headsearch.export import read_head
    from headsearch.pretrain import PretrainSpec

    chosen = [_override(rng) for _ in range(rng.choice((1, 1, 2, 3)))]

    def read() -> None:
        _refused_or_right(lambda: evaluation_spec({"base": {"model": "resnet18"}}, chosen))
        _refused_or_right(lambda: PretrainSpec.from_head(read_head(HEAD), data="digits", overrides=chosen))
        _load_and_check("digits", chosen)

    return read


def head(rng: random.Random, folder: Path) -> Callable[[], None]:
    from headsearch.comparison.plan import make_plan
    from headsearch.export import read_head
    from headsearch.pretrain import PretrainSpec

    file = mutated_file([HEAD], rng, folder)

    def read() -> None:
        exported = read_head(file)
        assert exported.to_yaml()
        PretrainSpec.from_head(exported, data="digits")
        make_plan([file], data="digits", budget=rng.choice(("epochs", "time")))

    return read


def pretraining(rng: random.Random, folder: Path) -> Callable[[], None]:
    from headsearch.export import read_head
    from headsearch.pretrain import PretrainSpec

    source = folder / "source.yaml"
    source.write_text(PretrainSpec.from_head(read_head(HEAD), data="digits").to_yaml(), encoding="utf-8")
    file = mutated_file([source], rng, folder)

    def read() -> None:
        spec = PretrainSpec.read(file)
        file.write_text(spec.to_yaml(), encoding="utf-8")
        assert PretrainSpec.read(file) == spec

    return read


def plan(rng: random.Random, folder: Path) -> Callable[[], None]:
    from headsearch.comparison.plan import make_plan
    from headsearch.reproduction.plan import make_plan as make_reproduction

    asked: Any = make_plan([HEAD], data="digits") if rng.random() < 0.5 else make_reproduction()
    compared = hasattr(asked, "arms")
    source = folder / ("compare.yaml" if compared else "reproduce.yaml")
    source.write_text(to_yaml(asked.to_dict()), encoding="utf-8")
    mutated_file([source], rng, folder).replace(source)
    return lambda: (asked.resumed if compared else asked.check_resume)(folder)


def weights(rng: random.Random, folder: Path) -> Callable[[], None]:
    import torch
    from safetensors.torch import save_file

    from headsearch.base.weights import load_weights

    model = _model()
    state: dict[str, Any] = dict(model.state_dict())
    file = folder / "weights"
    if rng.random() < 0.5:
        save_file(state, file)
    else:
        for _ in range(rng.choice((0, 1, 2))):
            odd = rng.choice(
                (
                    None,
                    3,
                    "x",
                    [1],
                    {},
                    torch.zeros(3),
                    torch.zeros(0),
                    torch.zeros(2, 2).to_sparse(),
                    torch.tensor(float("nan")),
                )
            )
            state[rng.choice([*state, "new", "head.weight", "module.x"])] = odd
        torch.save(
            rng.choice((state, {"model": state}, {"state_dict": state, "epoch": 3}, list(state.values()))),
            file,
        )
    if rng.random() < 0.8:
        file.write_bytes(mutated_bytes(file.read_bytes(), rng, words=False))
    return lambda: load_weights(model, "tiny", str(file))


@functools.cache
def _model() -> Any:
    from headsearch.base.timm_models import create

    options = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return create("vit_tiny_patch16_224", options, {}, pretrained=False)


def _load_and_check(source: str | None, overrides: list[str]) -> None:
    from headsearch.experiment import load_experiment
    from headsearch.search.checks import check_experiment

    loaded = load_experiment(source, overrides)
    assert "\n" not in loaded.name
    if loaded.search.executor.kind != "ray":
        check_experiment(loaded)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(loaded.to_yaml())
        file.flush()
        assert load_experiment(file.name) == loaded


def _refused_or_right(read: Callable[[], object]) -> None:
    with contextlib.suppress(HeadsearchError):
        read()


def _override(rng: random.Random) -> str:
    key = rng.choice(KEYS)
    if rng.random() < 0.2:
        key = rng.choice(
            (f"{key}.x", f"{key}.", f".{key}", key.rpartition(".")[0], key.upper(), " ", "", f"{key}..a")
        )
    value = rng.choice(VALUES)
    text = rng.choice((json.dumps(value), str(value), to_yaml(value), rng.choice(SCALARS)))
    if rng.random() < 0.3:
        text = mutated_bytes(text.encode("utf-8", "surrogateescape"), rng).decode("utf-8", "surrogateescape")
    return f"{key}={text}" if rng.random() < 0.95 else f"{key}{text}"


EXPERIMENTS = [
    *sorted((ROOT / "experiments").glob("*.yaml")),
    ROOT / "headsearch" / "templates" / "experiment.yaml",
]


def _keys(data: Any, prefix: str = "") -> Iterator[str]:
    for name, value in data.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")


def _all_keys() -> list[str]:
    from headsearch.evaluation.spec import EvaluationSpec
    from headsearch.experiment import Experiment
    from headsearch.pretrain import PretrainSpec

    asked = [Experiment().model_dump(mode="json"), EvaluationSpec().model_dump(mode="json")]
    recipe = PretrainSpec.model_validate({"recipe": {}}).model_dump(mode="json")
    return sorted(
        {key for data in (*asked, recipe) for key in _keys(data)}
        | {"search.budget", "search.callbacks", "search.storage"}
    )


KEYS = _all_keys()
TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (space, experiment, override, head, pretraining, plan, weights, image, npz)
}


def _rest() -> None:
    """No alarm any more."""
    signal.alarm(0)
    signal.setitimer(signal.ITIMER_PROF, 0)


def fuzz(name: str, count: int, seed: int) -> dict[str, Any]:
    """Try `count` inputs."""
    counts: dict[str, Any] = {"refused": 0, "accepted": 0, "failures": []}

    def alarm(*_: object) -> None:
        # One is enough.
        _rest()
        raise Hangs

    signal.signal(signal.SIGALRM, alarm)
    signal.signal(signal.SIGPROF, alarm)
    for number in range(seed, seed + count):
        with tempfile.TemporaryDirectory() as folder:
            read = TARGETS[name](random.Random(f"{name} {number}"), Path(folder))
            signal.alarm(PATIENCE)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                read()
                counts["accepted"] += 1
            except HeadsearchError as error:
                counts["refused"] += 1
                if not str(error).strip():
                    counts["failures"].append(f"{name} {number}: nothing is said")
            except (Exception, Hangs):  # noqa: BLE001, anything at all is what is looked for
                counts["failures"].append(f"{name} {number}: {traceback.format_exc(limit=-4)}")
            finally:
                _rest()
        if len(counts["failures"]) > 20:
            break
    return counts


def limit_memory() -> None:
    """From now on this process gets `MEMORY` more than it has."""
    # Not the peak of getrusage, which is that of the process that started this one, where that was larger.
    status = Path("/proc/self/status").read_text()
    used = 1024 * int(re.findall(r"VmData:\s*(\d+) kB", status)[0])
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, used + MEMORY))


if __name__ == "__main__":
    _, target, wanted, first = sys.argv
    if target == "weights":
        _model()
    if target in ("image", "npz"):
        # What is imported for it is no part of what an input may take.
        importlib.import_module("headsearch.data.npz")
        pictures(), archives()
    limit_memory()
    print(json.dumps(fuzz(target, int(wanted), int(first))))
