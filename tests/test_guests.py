"""Data sources, executors and callbacks of plug-ins: through a whole search, into weights, and wrong in every way."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headsearch
from headsearch.data.load import load_data
from headsearch.data.names import check_data, data_named
from headsearch.errors import DataError, ExperimentError, PluginError, RunError, UserError
from headsearch.experiment import load_experiment
from headsearch.plugins import digests, load_plugins
from headsearch.testing.sources import check_source
from headsearch.testing.toy_search import run_toy, toy_experiment

EXAMPLES = Path(__file__).parents[1] / "examples" / "plugin"
FILES = ("rings_data", "polite_executor", "diary_callback")


@pytest.fixture
def guests(tmp_path: Path) -> Iterator[list[str]]:
    """The examples as files of a test's own, which it may change or remove."""
    own = {name: f"{name}_{tmp_path.name.replace('-', '_')}" for name in FILES}
    yield [str(shutil.copy(EXAMPLES / f"{name}.py", tmp_path / f"{copy}.py")) for name, copy in own.items()]
    for copy in own.values():
        sys.modules.pop(copy, None)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_search_with_all_of_them_goes_on_to_weights(
    workers: int, guests: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data source on two executors; the images of a worker are read there."""
    monkeypatch.chdir(tmp_path)
    executor: dict[str, Any] = {"kind": "process", "workers": workers}
    if not workers:
        executor = {"kind": "polite", "kwargs": {"load": 1e9}}
    tiny = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    run = headsearch.search(
        base={"model": "vit_tiny_patch16_224", "kwargs": tiny},
        data={"dataset": "rings", "image_size": 32},
        plugins=guests,
        proxy={"epochs": 1, "batch_size": 128, "device": "cpu"},
        search={
            "space": "tiny", "strategy": "proxies", "trials": 1, "finalists": 0, "controls": ["none"],
            "executor": executor, "callbacks": [{"kind": "diary"}],
        },
        out="run",
        quiet=True,
    )  # fmt: skip
    assert {record.state for record in run.records} == {"complete"}
    assert len((tmp_path / "run" / "diary.txt").read_text().splitlines()) == 2
    assert run.facts is not None
    assert dict(run.facts.code) == digests(guests)
    if workers:
        return
    recipe = {"epochs": 1, "batch_size": 128, "device": "cpu"}
    trained = headsearch.pretrain(run.head(), out="improved", quiet=True, recipe=recipe)
    found = headsearch.evaluate(trained, probes=["knn"], seeds=1, quiet=True)
    assert found.table()["score"].iloc[0] > 50, "chance, of thin and thick"
    named = headsearch.evaluate(
        trained, data="rings", image_size=32, plugins=guests[:1], probes=["knn"], quiet=True
    )
    assert named.table()["score"].iloc[0] == found.table()["score"].iloc[0]
    for guest in guests:
        Path(guest).rename(f"{guest}.away")
    looked = headsearch.open("run")
    assert looked.verdict == run.verdict
    assert looked.problems == ()
    Path(f"{guests[1]}.away").rename(guests[1])
    Path(guests[1]).write_text(Path(guests[1]).read_text() + "# Another.\n")
    for guest in (guests[0], guests[2]):
        Path(f"{guest}.away").rename(guest)
    with pytest.raises(RunError, match="cannot resume with another polite_executor"):
        headsearch.search(looked.experiment, out="run", resume=True, quiet=True)


def test_data_of_a_plugin_are_named_on_the_command_line(guests: list[str]) -> None:
    load_plugins(guests)
    assert headsearch.load_experiment(data="rings", plugins=guests).data.dataset == "rings"
    with pytest.raises(DataError, match="no folder of images at 'ring'; did you mean 'rings'"):
        check_data("folder", data_named("ring")["root"])
    with pytest.raises(DataError, match="unknown data set 'ring'; did you mean 'rings'"):
        load_data("ring", root=None, image_size=32, labels="none", seed=0)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"executor": {"kind": "polit"}}, "search.executor.kind: 'polit' is not known; did you mean 'polite'?"),
        ({"executor": {"kind": "procss"}}, "search.executor.kind: 'procss' is not known; did you mean 'process'?"),
        ({"executor": {"kind": "polite", "kwargs": {"lod": 1.0}}}, "search.executor: kwargs: polite has no option 'lod'; did you mean 'load'?"),
        ({"executor": {"kind": "polite", "kwargs": {"load": -1.0}}}, "search.executor: kwargs.load: expected greater than 0, got -1.0"),
        ({"executor": {"kind": "polite", "load": 1.0}}, "unknown key 'search.executor.load'; expected one of: kind, kwargs"),
        ({"executor": {"kind": "process", "wrkers": 1}}, "unknown key 'search.executor.wrkers'; did you mean 'workers'?"),
        ({"executor": "polite"}, "search.executor: expected {kind: inline} or {kind: process} or {kind: ray} or {kind: slurm}, got 'polite'"),
        ({"callbacks": [{"kind": "diry"}]}, ".kind: 'diry' is not known; did you mean 'diary'?"),
        ({"callbacks": [{"kind": "diary", "kwargs": {"fle": "x"}}]}, "kwargs: diary has no option 'fle'; did you mean 'file'?"),
        ({"callbacks": [{"kind": "diary"}, {"kind": "diary"}]}, "callbacks must not repeat"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_experiment_is_one_line(
    settings: dict[str, Any], line: str, guests: list[str]
) -> None:
    overrides = [f"search.{key}={json.dumps(value)}" for key, value in settings.items()]
    with pytest.raises(ExperimentError) as raised:
        load_experiment(None, overrides, plugins=guests)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


IMPORTS = (
    "import numpy as np\nfrom contextlib import nullcontext\nfrom headsearch.data.collection import Collection\n"
    "from headsearch.data.names import DataSource\nfrom headsearch.experiment.guests import CallbackEntry, ExecutorEntry\n"
    "from headsearch.options import Options\n"
    "from headsearch.search.callbacks.broadcast import Callback\n"
    "images = [np.full((8, 8, 3), n, np.uint8) for n in range(20)]\n"
)


def plugin(folder: Path, body: str) -> str:
    """A plug-in with `open` and an entry of it."""
    file = folder / f"wrong_{folder.name.replace('-', '_')}.py"
    file.write_text(IMPORTS + body)
    return str(file)


@pytest.mark.parametrize(
    ("result", "line"),
    [
        ("1 / 0", "data.dataset: 'wrong' raises ZeroDivisionError: division by zero"),
        ("images", "data.dataset: 'wrong' gives list; expected a Collection"),
        ("Collection(r.part(images, None, 'a'), None, None)", "data.labels: 'wrong' gives no labels and classes"),
        ("Collection(r.part(images, [0, 1], 'a'), None, ['x', 'y'])", "data.dataset: 'wrong' gives 2 labels for 20 images"),
        ("Collection(r.part(images, [0, 2] * 10, 'a'), None, ['x', 'y'])", "gives the label 2; expected 0 to 1"),
        ("Collection(r.part([None] * 20, [0, 1] * 10, 'a'), None, ['x', 'y'])", "a NoneType; expected an image, an array [H, W] or [H, W, C], or a file"),
        ("Collection(r.part([x / 255 for x in images], [0, 1] * 10, 'a'), None, ['x', 'y'])", "20 of 20 files of 'wrong' cannot be read"),
    ],
)  # fmt: skip
def test_a_wrong_data_source_is_one_line(result: str, line: str, tmp_path: Path) -> None:
    load_plugins([plugin(tmp_path, f"PLUGINS = [DataSource('wrong', lambda r: {result})]\n")])
    with pytest.raises(DataError) as raised:
        load_data("wrong", root=None, image_size=8, labels="probe", seed=0)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_labels_of_a_source_go_nowhere_where_none_may_be_read(tmp_path: Path) -> None:
    body = "PLUGINS = [DataSource('telling', lambda r: Collection(r.part(images, [0, 1] * 10, 'a'), None, ['x', 'y']), root='folder')]\n"
    load_plugins([plugin(tmp_path, body)])
    found = load_data("telling", root=str(tmp_path), image_size=8, labels="none", seed=0)
    assert (found.train.labels, found.held_out.labels, found.classes) == (None, None, None)
    values = np.sort(np.concatenate([batch[:, 0, 0, 0].numpy() for batch, _ in found.train.batches(4)]))
    assert len(values) == len(found.train) == 16, "a fifth is held out where there is no split"
    with pytest.raises(DataError, match="dataset 'telling' needs the path of a folder"):
        load_data("telling", root=None, image_size=8, labels="none", seed=0)


def test_the_suite_finds_a_source_that_draws_anew(tmp_path: Path) -> None:
    body = (
        "class Drawn(list):\n    def __getitem__(self, i):\n        return np.random.randint(0, 255, (8, 8, 3), np.uint8)\n"
        "PLUGINS = [DataSource('drawn', lambda r: Collection(r.part(Drawn(images), None, 'a'), None, None))]\n"
    )
    load_plugins([plugin(tmp_path, body)])
    with pytest.raises(AssertionError, match="drawn: other images when it is opened again"):
        check_source("drawn", image_size=8, labelled=False)


@pytest.mark.parametrize(
    ("entry", "search", "line"),
    [
        ("ExecutorEntry('wrong', Options, lambda *a: 1 / 0)", {"executor": {"kind": "wrong"}}, "search.executor: wrong raises ZeroDivisionError"),
        ("ExecutorEntry('wrong', Options, lambda *a: nullcontext(3))", {"executor": {"kind": "wrong"}}, "search.executor: wrong makes a int; expected an Executor, with a method run"),
        ("CallbackEntry('wrong', Options, lambda *a: 1 / 0)", {"callbacks": [{"kind": "wrong"}]}, "search.callbacks: wrong raises ZeroDivisionError"),
        ("CallbackEntry('wrong', Options, lambda *a: 3)", {"callbacks": [{"kind": "wrong"}]}, "search.callbacks: wrong makes a int; expected a Callback"),
    ],
)  # fmt: skip
def test_a_wrong_executor_or_callback_leaves_no_run(
    entry: str, search: dict[str, Any], line: str, tmp_path: Path
) -> None:
    load_plugins([plugin(tmp_path, f"PLUGINS = [{entry}]\n")])
    with pytest.raises(UserError) as raised:
        run_toy(tmp_path / "run", toy_experiment(trials=1, finalists=0, replicates=1, **search))
    assert isinstance(raised.value, PluginError)
    assert line in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ("DataSource('npz', None)", "data source 'npz': headsearch has one of that name"),
        ("ExecutorEntry('ray', Options, None)", "executor 'ray': headsearch has one of that name"),
        ("CallbackEntry('wandb', Options, None)", "callback 'wandb': headsearch has one of that name"),
    ],
)
def test_names_of_ours_are_taken(entry: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=line):
        load_plugins([plugin(tmp_path, f"PLUGINS = [{entry}]\n")])
