"""From Python: the commands as functions. They do what the commands do, refuse what those refuse, and work in any plain script."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forked import script

import headsearch
from headsearch.experiment import load_experiment

TINY: dict[str, Any] = {
    "base": {"kwargs": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}},
    "data": {"subset": 320},
    "proxy": {"epochs": 1, "rungs": [1]},
    "search": {"trials": 1, "finalists": 0, "replicates": 1, "controls": ["none"]},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> headsearch.Run:
    return headsearch.search(
        "digits_proxies", out=tmp_path_factory.mktemp("api") / "run", quiet=True, seed=3, **TINY
    )


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, headsearch; print({'torch', 'pandas', 'pydantic', 'optuna', 'typer'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_functions_stay_functions_where_the_packages_of_their_names_are_imported(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(
        "import headsearch, headsearch.search.session, headsearch.pretrain.run; from headsearch.search import seeds\n"
        "assert callable(headsearch.search) and callable(headsearch.pretrain); print(headsearch.search.__module__)"
    )
    found = script(file, cwd=tmp_path)
    assert found.stdout == "headsearch.api.functions\n", found.stderr


def test_every_name_it_offers_is_there_and_documented() -> None:
    for name in headsearch.__all__:
        assert name == "__version__" or inspect.getdoc(getattr(headsearch, name))


def test_a_search_is_that_of_the_command_line(run: headsearch.Run) -> None:
    kwargs = "base.kwargs={patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}"
    settings = [kwargs, "proxy.epochs=1", "proxy.rungs=[1]", "search.trials=1", "search.finalists=0"]
    settings += ["search.replicates=1", "search.controls=[none]", "data.subset=320", "seed=3"]
    assert run.experiment == load_experiment("digits_proxies", settings)
    assert [record.state for record in run.records] == ["complete", "complete"]


@pytest.mark.parametrize(
    ("keywords", "settings"),
    [
        ({}, []),
        ({"base": "resnet18"}, ["base.model=resnet18"]),
        ({"base": {"model": "resnet18", "kwargs": {"stem": 1}}}, ["base.model=resnet18", "base.kwargs={stem: 1}"]),
        ({"method": "dino", "proxy": {"epochs": 7}}, ["method.name=dino", "proxy.epochs=7"]),
        ({"space": "paper", "budget": "2 h"}, ["search.space=paper", "search.budget='2 h'"]),
        ({"budget": 24}, ["search.budget=24"]),
        ({"search": {"executor": {"kind": "process"}}}, ["search.executor={kind: process}"]),
        ({"data": {"labels": "none"}}, ["data.labels=none"]),
        ({"proxy": {"learning_rate": 1e-5}, "seed": None}, ["proxy.learning_rate=1.0e-5"]),
    ],
)  # fmt: skip
def test_keywords_are_settings(keywords: dict[str, Any], settings: list[str]) -> None:
    assert headsearch.load_experiment(**keywords) == load_experiment("digits", settings)


def test_data_alone_need_no_experiment_file(tmp_path: Path) -> None:
    assert headsearch.load_experiment(data="digits") == headsearch.load_experiment("digits")
    found = headsearch.load_experiment(data=tmp_path)
    assert (found.name, found.data.dataset, found.data.root) == ("headsearch", "folder", str(tmp_path))


def test_a_head_goes_on_to_pretraining_evaluation_and_comparison(run: headsearch.Run, tmp_path: Path) -> None:
    head = run.head()
    recipe = {"epochs": 1, "batch_size": 256, "warmup_epochs": 0}
    trained = headsearch.pretrain(head, out=tmp_path / "improved", quiet=True, recipe=recipe)
    assert trained.knn is not None
    evaluated = headsearch.evaluate(trained, "random", probes="knn", seeds=1, quiet=True)
    table = evaluated.table()
    assert list(table["probe"]) == ["20-NN", "20-NN"]
    assert table["difference"].isna().to_list() == [True, False]
    assert "20-NN" in evaluated._repr_html_()
    assert repr(evaluated).startswith(
        f"<headsearch.Evaluation: {trained.folder} 20-NN {table['score'][0]:.1f}, random 20"
    )
    compared = headsearch.compare(
        head, out=tmp_path / "compared", seeds=2, probes=["knn"], quiet=True, recipe=recipe
    )
    arms = compared.table().set_index("arm")
    assert list(arms.index) == ["none", head.head_id]
    assert arms.loc[head.head_id, "gain"] == pytest.approx(arms["mean"].iloc[1] - arms["mean"].iloc[0])
    assert compared.verdict in compared._repr_html_()
    assert repr(compared) == f"<headsearch.Comparison: {compared.verdict}>"
    run.export(tmp_path / "head.yaml")
    again = headsearch.compare(
        tmp_path / "head.yaml", out=tmp_path / "compared", seeds=2, probes=["knn"], resume=True, quiet=True, recipe=recipe
    )  # fmt: skip
    assert again == compared


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda out: headsearch.search(base="resnet81", out=out), "timm has no model 'resnet81'"),
        (lambda out: headsearch.search(proxi={"epochs": 1}, out=out), "unknown key 'proxi'; did you mean 'proxy'?"),
        (lambda out: headsearch.search(proxy={"epochs": 0}, out=out), "proxy.epochs=0: proxy.epochs: expected"),
        (lambda out: headsearch.search(proxy=3, out=out), "proxy=3"),
        (lambda out: headsearch.search(search={"trials": object()}, out=out), "search.trials: expected plain data, got object"),
        (lambda out: headsearch.search(data=out / "none", out=out), "data.root: no folder of images"),
        (lambda out: headsearch.search("digts", out=out), "digts: no such experiment"),
        (lambda out: headsearch.search(load_experiment("digits"), seed=2, out=out), "search: seed given beside an Experiment"),
        (lambda out: headsearch.open(out), "no such run directory"),
        (lambda out: headsearch.pretrain(out, out=out), "No such file"),
        (lambda out: headsearch.evaluate(), "evaluate: no weights"),
        (lambda out: headsearch.evaluate("random", probes=["k-nn"]), "did you mean 'knn'?"),
        (lambda out: headsearch.compare(out=out), "compare: no head"),
        (lambda out: headsearch.compare("paper", base="resnet18", seeds=0, out=out), "seeds: expected at least 1, got 0"),
        (lambda out: headsearch.compare("paper", base="resnet18", budget="2 h", out=out), "budget: '2 h' is not known; expected one of: epochs, time"),
        (lambda out: headsearch.pretrain(3, base="resnet18", out=out), "head: expected a head.yaml, run.head(), or a description such as {convnext: {depth: 3}}, got 3"),
        (lambda out: headsearch.search("x" * 300, out=out), "no such experiment"),
        (lambda out: headsearch.search(epochs=3, out=out), "unknown key 'epochs'; did you mean 'proxy.epochs'?"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_of_one_class_and_leaves_nothing(call: Any, line: str, tmp_path: Path) -> None:
    with pytest.raises(headsearch.UserError) as caught:
        call(tmp_path / "out")
    assert issubclass(headsearch.UserError, headsearch.HeadsearchError)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "--set" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_plain_script_needs_no_guard(tmp_path: Path) -> None:
    """The toy search, whose workers import no torch: what is tried is how they start."""
    file = tmp_path / "script.py"
    file.write_text(
        "from pathlib import Path\n"
        "from headsearch.testing.toy_search import run_toy, toy_experiment\n"
        "print('once')\n"
        "executor = {'kind': 'process', 'workers': 1}\n"
        "experiment = toy_experiment(trials=1, finalists=0, replicates=1, controls=['none'], executor=executor)\n"
        "print([record.state for record in run_toy(Path('run'), experiment)])\n"
    )
    root = str(Path(headsearch.__file__).parent.parent)
    found = subprocess.run(
        [sys.executable, file], cwd=tmp_path, capture_output=True, text=True, timeout=500,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (0, "once\n['complete', 'complete']\n"), found.stderr
