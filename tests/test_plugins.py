"""Plug-ins: loaded from a file or an installed package, known to spaces, experiments, workers and resumed runs, and not needed to look at a run."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from forked import headsearch, script

from headsearch.errors import ExperimentError, HeadError, PluginError, RunError, SpaceError
from headsearch.experiment import ProcessSpec, load_experiment, parse_experiment
from headsearch.export import export_head, load_head, read_head
from headsearch.heads import FAMILIES, head_id, parse_head
from headsearch.methods import METHODS
from headsearch.plugins import digests, load_plugins, located
from headsearch.pretrain import PretrainSpec
from headsearch.runs.run import read_run
from headsearch.search.session import run_search
from headsearch.space import parse_space
from headsearch.space.schema import json_schema
from headsearch.testing.tiny import Context, tiny_experiment, training, write_two_colours
from headsearch.training.evaluator import Evaluator

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin" / "gated_heads.py"
SPACE = "space: headsearch/space@1\nhead: {gated: {depth: {int: [1, 2]}}}"


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[Path]:
    """The example as a file of a test's own, which it may change or remove."""
    name = f"gated_{tmp_path.name.replace('-', '_')}"
    yield Path(shutil.copy(EXAMPLE, tmp_path / f"{name}.py"))
    sys.modules.pop(name, None)


def write(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(text)
    return str(file)


def family(extra: str = "", **fields: str) -> str:
    """The source of a plug-in with one family."""
    given = {
        "name": "'own'",
        "doc": "'Own.'",
        "parameters": "COMMON_PARAMETERS",
        "layout": "'BCHW'",
        "block": "lambda spec: None",
    } | fields
    arguments = ", ".join(f"{name}={value}" for name, value in given.items())
    head = "from headsearch.heads import COMMON_PARAMETERS, Family, Parameter\n"
    return f"{head}{extra}\nPLUGINS = [Family({arguments})]\n"


def test_a_plugin_is_known_to_spaces_their_schema_constraints_and_errors(gated: Path) -> None:
    load_plugins([str(gated)])
    text = f"{SPACE}\nconstraints: [family == 'gated', kernel_size >= 3]"
    assert parse_space(text, "s.yaml").count() == 2
    jsonschema.validate({"space": "headsearch/space@1", "head": {"gated": {"depth": 2}}}, json_schema())
    with pytest.raises(SpaceError, match=r"gated.kernel_size is 4: expected one of 3, 5, 7"):
        parse_space(SPACE.replace("depth: {int: [1, 2]}", "kernel_size: 4"), "s.yaml")
    with pytest.raises(SpaceError, match="unknown family 'gatd'; did you mean 'gated'"):
        parse_space(SPACE.replace("gated", "gatd"), "s.yaml")
    with pytest.raises(ExperimentError, match="unknown method 'cosin'; did you mean 'cosine'"):
        load_experiment(None, ["method.name=cosin"])


def test_an_experiment_names_its_plugins_from_where_it_lies(
    gated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = gated.with_name("e.yaml")
    file.write_text(f"plugins: [{gated.name}]\nmethod: {{name: cosine, kwargs: {{size: 8}}}}\n")
    monkeypatch.chdir("/")
    experiment = load_experiment(file)
    assert experiment.plugins == [str(gated)]
    assert experiment.proxy.clip_gradient == METHODS["cosine"].recipe.clip_gradient
    assert experiment.code() == digests([str(gated)])
    assert parse_experiment(experiment.model_dump(mode="json")) == experiment
    assert "plugins" not in load_experiment(None).to_yaml()


def test_an_installed_package_is_named_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "gated_heads-0.1.0.dist-info"
    metadata.mkdir()
    write(metadata, "METADATA", "Metadata-Version: 2.1\nName: gated-heads\nVersion: 0.1.0\n")
    write(
        metadata, "entry_points.txt", "[headsearch.plugins]\ninstalled-gates = gates_package.inside:ENTRIES\n"
    )
    package = tmp_path / "gates_package"
    package.mkdir()
    write(package, "__init__.py", "")
    write(package, "inside.py", EXAMPLE.read_text().replace("PLUGINS =", "ENTRIES ="))
    monkeypatch.syspath_prepend(str(tmp_path))
    experiment = parse_experiment({"plugins": ["installed-gates"], "method": {"name": "cosine"}})
    assert list(experiment.code()) == ["installed-gates"]
    with pytest.raises(PluginError, match=r"installed-gate: no module .* did you mean 'installed-gates'"):
        load_plugins(["installed-gate"])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import nothing_of_this_name", "line 1 raises ModuleNotFoundError when imported: No module named"),
        ("x = 1\nx / 0", "line 2 raises ZeroDivisionError when imported: division by zero"),
        ("def f(:", "line 1 raises SyntaxError when imported"),
        ("raise SystemExit(3)", "raises SystemExit when imported: 3"),
        ("x = 1", "expected a list PLUGINS of families, methods, data sources, …, got none"),
        ("PLUGINS = ['gated']", "str 'gated' in PLUGINS; expected a family, a method, a data source, …"),
        (family(name="'Own'"), "expected a name of small letters, digits and '_'"),
        (family(name="'mlp'"), "family 'mlp': headsearch has one of that name; choose another"),
        (family(name="'stack'"), "family 'stack': a word of the language of spaces"),
        (family(layout="'CHW'"), "layout is 'CHW'; expected BCHW, BHWC or BNC"),
        (family(parameters="()"), "no parameter depth of kind int; expected parameters to begin with"),
        (
            family(parameters="(*COMMON_PARAMETERS, Parameter('k', 'int', 3, 'doc'))"),
            "family 'own': parameter k has no bounds; expected low and high, or choices",
        ),
        (
            family(parameters="(*COMMON_PARAMETERS, Parameter('k', 'int', 9, 'doc', low=1, high=4))"),
            "parameter k has the default 9, which it does not allow",
        ),
    ],
)
def test_what_is_wrong_with_a_plugin_is_one_line_that_names_the_file(
    tmp_path: Path, source: str, expected: str
) -> None:
    file = write(tmp_path, "wrong_plugin.py", source)
    try:
        with pytest.raises(PluginError) as raised:
            load_plugins([file])
    finally:
        sys.modules.pop("wrong_plugin", None)
    assert str(raised.value).startswith("wrong_plugin.py: ")
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong_plugin.py"]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("lambda spec: torch.nn.Conv2d(spec.width, 2 * spec.width, 1)", "from a map of shape (2, 16, 4, 4) a block makes (2, 32, 4, 4); expected the same shape"),
        ("lambda spec: torch.nn.Conv2d(7, 7, 1)", "a block for maps of 16 channels on 4x4 positions raises RuntimeError"),
        ("lambda spec: spec['kernel']", "on 4x4 positions raises KeyError: 'kernel'"),
    ],
)  # fmt: skip
def test_a_family_that_does_not_keep_the_maps_shape_is_refused_before_anything_is_written(
    block: str, expected: str, tmp_path: Path
) -> None:
    file = write(tmp_path, f"wide_{tmp_path.name.replace('-', '_')}.py", family("import torch", block=block))
    load_plugins([file])
    images = write_two_colours(tmp_path / "images.npz")
    search = {"space": write(tmp_path, "s.yaml", SPACE.replace("gated", "own")), "strategy": "proxies", "trials": 1, "finalists": 0}  # fmt: skip
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(PluginError) as raised:
        run_search(tiny_experiment(images, search=search), tmp_path / "run")
    assert str(raised.value).startswith("family 'own': ")
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_two_plugins_of_one_experiment_may_not_bring_the_same_name(gated: Path) -> None:
    other = shutil.copy(gated, gated.with_name("other_gates.py"))
    with pytest.raises(PluginError, match=f"other_gates.py: family 'gated' is in {gated.name} too"):
        load_plugins([str(gated), str(other)])


def test_a_file_may_not_hide_a_module(tmp_path: Path) -> None:
    file = write(tmp_path, "statistics.py", family())
    with pytest.raises(PluginError, match="there is a module 'statistics' already; rename the file"):
        load_plugins([file])


def test_a_changed_file_is_loaded_anew_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = write(tmp_path, "edited_plugin.py", family(doc="'First.'"))
    load_plugins([file])
    assert FAMILIES["own"].doc == "First."
    write(tmp_path, "edited_plugin.py", family(doc="'Then.'"))
    load_plugins([file])
    assert FAMILIES["own"].doc == "Then."
    assert [path.name for path in tmp_path.iterdir()] == ["edited_plugin.py"]


def test_workers_find_a_plugin_and_refuse_one_that_has_changed(gated: Path, tmp_path: Path) -> None:
    """As a worker of any executor does: in another process, from the pickled evaluator."""
    load_plugins([str(gated)])
    images = write_two_colours(tmp_path / "images.npz")
    whole = tiny_experiment(
        images, method={"name": "cosine"}, search={"discrepancy": "distances.embedding.output"}
    )
    experiment = whole.model_copy(update={"plugins": [str(gated)]})
    packed = tmp_path / "packed"
    packed.write_bytes(
        pickle.dumps((Evaluator(experiment), training(tmp_path / "w", parse_head({"gated": {"depth": 1}}))))
    )
    worker = Path(
        write(
            tmp_path,
            "worker.py",
            "import pickle\n"
            "from headsearch.testing.tiny import Context\n"
            f"evaluate, training = pickle.loads(open({str(packed)!r}, 'rb').read())\n"
            "found = evaluate(training, Context())\n"
            "print(found.trials[0].rungs[-1].discrepancy)\n",
        )
    )
    done = script(worker, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    here = Evaluator(experiment)(training(tmp_path / "here", parse_head({"gated": {"depth": 1}})), Context())
    assert float(done.stdout) == here.trials[0].rungs[-1].discrepancy
    gated.write_text(gated.read_text() + "\n# Another.\n")
    refused = script(worker, cwd=tmp_path)
    assert f"PluginError: the search cannot go on with another {gated.name}" in refused.stderr


def test_a_run_is_searched_looked_at_without_the_plugin_resumed_and_exported(
    gated: Path, tmp_path: Path
) -> None:
    images = write_two_colours(tmp_path / "images.npz")
    space = write(tmp_path, "s.yaml", SPACE)
    load_plugins([str(gated)])
    search = {
        "space": space,
        "strategy": "proxies",
        "trials": 1,
        "finalists": 0,
        "controls": ["none"],
        "discrepancy": "distances.embedding.output",
    }
    whole = tiny_experiment(images, method={"name": "cosine"}, search=search)
    experiment = whole.model_copy(update={"plugins": [str(gated)]})
    out = tmp_path / "run"
    run_search(experiment, out)
    hidden = gated.rename(gated.with_suffix(".away"))
    for command in (["rank", "--format", "json"], ["audit"], ["status"], ["report", "--format", "md"]):
        seen = headsearch(command[0], out, *command[1:])
        assert (seen.returncode, seen.stderr.count("not shown")) == (0, 0), seen.stderr
        if command[0] == "rank":
            assert {row["family"] for row in json.loads(seen.stdout)} == {"none", "gated"}
    with pytest.raises(PluginError, match="cannot be read"):
        run_search(experiment, out, resume=True)
    hidden.rename(gated)
    in_a_worker = {"trials": 2, "executor": ProcessSpec(workers=1)}
    more = experiment.model_copy(update={"search": experiment.search.model_copy(update=in_a_worker)})
    run_search(more, out, resume=True)
    rows = read_run(out).rows
    assert len([row for row in rows if row.family == "gated"]) == 2

    exported = export_head(out, tmp_path / "head.yaml")
    assert (exported.plugins, exported.code) == ([str(gated)], digests([str(gated)]))
    assert load_head(tmp_path / "head.yaml").config.family == "gated"
    spec = PretrainSpec.from_head(read_head(tmp_path / "head.yaml"))
    assert (spec.plugins, spec.method.name) == ([str(gated)], "cosine")

    original = gated.read_text()
    gated.write_text(original + "\n# Another.\n")
    with pytest.raises(RunError, match=rf"cannot resume with another {gated.name} \(SHA-256 \w+…, it was"):
        run_search(more, out, resume=True)
    with pytest.raises(PluginError, match=f"head.yaml: {gated.name} has changed since the search"):
        read_head(tmp_path / "head.yaml")
    gated.write_text(original)


def test_an_unknown_family_is_taken_only_where_it_is_recorded() -> None:
    head = {"gone": {"depth": 2, "first_shortcut": True, "drop_path": 0.0}}
    assert parse_head(head, recorded=True).to_dict() == head
    with pytest.raises(HeadError, match="unknown family of heads 'gone'"):
        parse_head(head)
    with pytest.raises(HeadError):
        parse_head({"gone": {"depth": [1]}}, recorded=True)
    with pytest.raises(HeadError):
        parse_head({"convnext": {"kernel": 3}}, recorded=True)
    assert head_id(parse_head(None, recorded=True)) == "none"


def test_paths_are_told_from_names() -> None:
    assert located("my.py", Path("/nowhere")) == str(Path.cwd() / "my.py")
    assert located("package.module") == "package.module"
    assert located("/a/b.py:build") == "/a/b.py:build"
    assert located("package.module:build") == "package.module:build"
