"""The experiment schema: defaults, overrides, and errors on one line that say where and what."""

import re
from pathlib import Path

import pytest

import headsearch
from headsearch.errors import ExperimentError
from headsearch.experiment import Experiment, HalvingSpec, load_experiment
from headsearch.methods import METHODS
from headsearch.shipped import shipped_names

TEMPLATE = Path(headsearch.__file__).parent / "templates" / "experiment.yaml"


def write(folder: Path, text: str) -> Path:
    file = folder / "my.yaml"
    file.write_text(text)
    return file


def test_every_key_has_a_default() -> None:
    experiment = load_experiment(None)
    assert experiment.method.name == "mocov3"
    assert experiment.search.controls == ["none", "same", "mlp"]
    assert experiment.proxy.rungs[-1] == experiment.proxy.epochs


def test_the_template_names_every_choice() -> None:
    (method,) = re.findall(r"name: mocov3 +# (.*)", TEMPLATE.read_text())
    assert set(method.split(" | ")) == set(METHODS)
    (spaces,) = re.findall(r"a shipped space: (.*)", TEMPLATE.read_text())
    assert set(spaces.split(" | ")) == set(shipped_names("search_spaces"))


@pytest.mark.parametrize("name", shipped_names("experiments"))
def test_shipped_experiments_are_good_and_survive_being_written(name: str, tmp_path: Path) -> None:
    experiment = load_experiment(name)
    assert load_experiment(write(tmp_path, experiment.to_yaml())) == experiment


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["search.finalists=0"],
        ["proxy.epochs=1"],
        ["proxy.epochs=2"],
        ["data.labels=none"],
        ["proxy.clip_gradient=null"],
    ],
    ids=str,
)
def test_what_is_written_reads_back_the_same(overrides: list[str], tmp_path: Path) -> None:
    experiment = load_experiment(None, overrides)
    assert load_experiment(write(tmp_path, experiment.to_yaml())) == experiment


def test_overrides_change_any_key_and_keep_the_rest(tmp_path: Path) -> None:
    file = write(tmp_path, "name: x\nproxy: {epochs: 8, learning_rate: 1e-3}\nseed: 5\n")
    experiment = load_experiment(file, ["proxy.learning_rate=2e-3", "search.controls=[none]", "seed=7"])
    assert experiment.proxy.learning_rate == pytest.approx(0.002)
    assert experiment.proxy.epochs == 8
    assert experiment.search.controls == ["none"]
    assert experiment.seed == 7


def test_rungs_belong_to_a_budget_and_are_derived_anew_with_another_one(tmp_path: Path) -> None:
    file = write(tmp_path, "proxy: {epochs: 40, rungs: [10, 20, 40], warmup_epochs: 5}")
    assert load_experiment(file).proxy.rungs == [10, 20, 40]
    shorter = load_experiment(file, ["proxy.epochs=4"]).proxy
    assert shorter.rungs[-1] == 4
    assert shorter.warmup_epochs == pytest.approx(0.4)
    assert load_experiment(file, ["proxy.rungs=[3, 6]", "proxy.epochs=6"]).proxy.rungs == [3, 6]


def test_rungs_suit_the_stopping_unless_they_are_given(tmp_path: Path) -> None:
    assert load_experiment(write(tmp_path, "proxy: {epochs: 27}")).proxy.rungs == [3, 9, 27]
    file = write(tmp_path, "proxy: {epochs: 40}\nsearch: {stopping: {kind: none}}")
    assert load_experiment(file).proxy.rungs == [10, 20, 40]
    assert load_experiment(file, ["search.stopping.kind=asha"]).proxy.rungs == [4, 13, 40]
    given = write(tmp_path, "proxy: {epochs: 40, rungs: [5, 40]}")
    assert load_experiment(given).proxy.rungs == [5, 40]
    assert load_experiment(None, ["proxy.epochs=1"]).proxy.rungs == [1]


def test_another_kind_lets_go_of_what_belonged_to_the_former(tmp_path: Path) -> None:
    file = write(tmp_path, "search: {stopping: {kind: asha, reduction: 4}}")
    assert load_experiment(file, ["search.stopping.kind=none"]).search.stopping.kind == "none"
    assert load_experiment(file, ["search.stopping.kind=asha"]).search.stopping == HalvingSpec(reduction=4)


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_experiments_with_published_tables_stop_nothing(name: str) -> None:
    assert load_experiment(name).search.stopping.kind == "none"


def test_another_base_or_data_set_lets_go_of_what_belonged_to_the_former(tmp_path: Path) -> None:
    file = write(tmp_path, "base: {model: a, kwargs: {depth: 4}}\ndata: {dataset: digits, image_size: 16}")
    assert load_experiment(file, ["base.model=b"]).base.kwargs == {}
    assert load_experiment(file, ["base.model=a"]).base.kwargs == {"depth": 4}
    assert load_experiment(file, ["base.kwargs={width: 2}", "base.model=b"]).base.kwargs == {"width": 2}

    file = write(tmp_path, "data: {dataset: npz, root: a.npz, labels: none, image_size: 16}")
    other = load_experiment(file, ["data.dataset=folder"]).data
    assert (other.root, other.labels, other.image_size) == (None, "none", 16), (
        "the file's base is made for 16 pixels"
    )
    other = load_experiment(file, ["data.dataset=folder", "base.model=b"]).data
    assert (other.labels, other.image_size) == ("none", Experiment().data.image_size)


def test_another_budget_lets_go_of_the_sizes_that_a_budget_sets(tmp_path: Path) -> None:
    sizes = (
        "candidates: 66, screen: {heads: 24, epochs: 20}, trials: 9, audit: 1, finalists: 5, replicates: 2"
    )
    derived = load_experiment(write(tmp_path, "search: {budget: 30}")).search
    file = write(tmp_path, f"proxy: {{epochs: 40}}\nsearch: {{certainty: 1, {sizes}}}")
    search = load_experiment(file, ["search.trials=4", "search.budget=30"]).search
    assert (search.trials, search.certainty, search.screen.epochs) == (4, 1, 20), (
        "not a size, or given as well"
    )
    assert search.screen.heads == derived.screen.heads
    for size in ("candidates", "audit", "finalists", "replicates"):
        assert getattr(search, size) == getattr(derived, size)
    assert load_experiment(file, ["search.budget=null"]).search.trials == 9


def test_a_space_beside_the_experiment_is_found_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("")
    file = write(tmp_path, "search: {space: space.yaml}")
    assert load_experiment(file).search.space == str(tmp_path / "space.yaml")
    assert load_experiment(write(tmp_path, "search: {space: tiny}")).search.space == "tiny"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "my.yaml:1:1: the file is empty"),
        ("- a", "my.yaml:1:1: a list; expected keys and values"),
        ("a: [1", "my.yaml:1:6: not valid YAML"),
        ("name: x\nproxi: 3", "my.yaml:2:1: unknown key 'proxi'; did you mean 'proxy'?"),
        ("proxy:\n  epoch: 3", "my.yaml:2:3: unknown key 'proxy.epoch'; did you mean 'epochs'?"),
        ("proxy:\n  epochs: yes", "my.yaml:2:3: proxy.epochs: expected a valid integer, got True"),
        (
            "proxy: {epochs: 0}",
            "my.yaml:1:9: proxy.epochs: expected greater than or equal to 1, got 0",
        ),
        ("proxy: {learning_rate: .nan}", "my.yaml:1:24: '.nan' is not a finite number"),
        (
            "search: {stopping: {kind: ahsa}}",
            "1:10: search.stopping.kind: 'ahsa' is not known; did you mean 'asha'?",
        ),
        (
            "search: {stopping: none}",
            "1:10: search.stopping: expected {kind: asha} or {kind: none}, got 'none'",
        ),
        ("search: {stopping: {reduction: 2}}", "expected {kind: asha} or {kind: none}, got {'reduction': 2}"),
        (
            "search: {stopping: {kind: asha, redction: 2}}",
            "unknown key 'search.stopping.redction'; did you mean 'reduction'?",
        ),
        (
            "search: {stopping: {kind: asha, reduction: 1}}",
            "search.stopping.reduction: expected greater than or equal to 2, got 1",
        ),
        ("proxy: {epochs: 4, rungs: [1, 2]}", "rungs must rise and end at epochs (4), got [1, 2]"),
        ("proxy: {epochs: 4, rungs: [4, 2, 4]}", "rungs must rise and end at epochs (4)"),
        ("search: {sampler: tpee}", "search.sampler: 'tpee' is not known; did you mean 'tpe'?"),
        ("data: {labels: no}", "data.labels: 'no' is not known; expected one of: none, probe"),
        ("search: {controls: [nne]}", "did you mean 'none'?"),
        ("search: {controls: [none, none]}", "controls must not repeat"),
        ("search: {finalists: 0, replicates: 2}", "needs finalists"),
        (
            "name: ../up",
            "name: expected letters, digits, '.', '_' and '-', a letter or digit first, got '../up'",
        ),
        ("seed: -1", "seed"),
        ("experiment: headsearch/experiment@9", "headsearch/experiment@1"),
    ],
)
def test_a_mistake_is_one_line_that_says_where_and_what(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(write(tmp_path, text))
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message
    assert "my.yaml" in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("proxy", "expected key=value"),
        ("=3", "expected key=value"),
        ("proxy.epochs.more=1", "proxy.epochs is not a section"),
        ("proxy.epochs=[1", "not valid YAML"),
        ("poxy.epochs=1", "did you mean 'proxy'"),
        ("proxy..epochs=1", "expected key=value"),
        (
            "method.name=[a]",
            r"--set method.name=\[a\]: method.name: expected a valid string, got \['a'\]",
        ),
        ("method=3", "--set method=3: method: "),
        (
            "method.kwargs=1",
            "--set method.kwargs=1: method.kwargs: expected keys and values, got 1",
        ),
        ("proxy.epochs=", "--set proxy.epochs=: proxy.epochs: expected a valid integer, got None"),
        (
            "proxy={epochs: 1, epochs: 2}",
            r"1:13: the key 'epochs' is given twice \(first at line 1, column 2\)",
        ),
        ("seed=" + "9" * 5000, "a whole number of 5000 digits"),
        ("seed=!!int ''", "cannot be read as int"),
        ("seed=*a", "YAML alias"),
        ("base.kwargs=" + "{a: " * 70, "nested more than 60"),
        (
            "search.callbacks=[{kind: wand}]",
            "search.callbacks.0.kind: 'wand' is not known; did you mean 'wandb'",
        ),
        (
            "search.budget=2:30",
            "budget: expected a number of proxies, or a time like '2 h 30 min', got '2:30'",
        ),
    ],
)
def test_a_wrong_override_is_named(override: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=expected.replace("'", ".")):
        load_experiment(write(tmp_path, "proxy: {epochs: 3}"), [override])


def test_a_section_that_is_none_is_refused_before_its_keys_are_set(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"--set proxy\.epochs=2: proxy is not a section, it holds 3"):
        load_experiment(write(tmp_path, "proxy: 3"), ["proxy.epochs=2"])


def test_where_a_text_is_wanted_the_word_that_was_written_counts(tmp_path: Path) -> None:
    experiment = load_experiment(
        write(tmp_path, "name: 1e5\ndata: {root: 2026}\nsearch: {space: on}"),
        ["base.model=1_0", "base.weights='007'"],
    )
    assert (experiment.name, experiment.data.root, experiment.search.space) == ("1e5", "2026", "on")
    assert (experiment.base.model, experiment.base.weights) == ("1_0", "007")
    assert load_experiment(write(tmp_path, experiment.to_yaml())) == experiment


def test_a_tilde_is_the_home_directory_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    file = write(tmp_path, "base: {weights: ~/w.pt}\ndata: {root: ~/x}\nsearch: {space: ~/s.yaml}")
    experiment = load_experiment(file)
    assert experiment.base.weights == "/home/me/w.pt"
    assert experiment.data.root == "/home/me/x"
    assert experiment.search.space == "/home/me/s.yaml"
    assert load_experiment(None, ["data.root=~/x"]).data.root == "/home/me/x"
    assert load_experiment(None, ["data.root=~"]).data.root is None


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="neither a file nor a shipped one; did you mean 'digits'"):
        load_experiment("digit")
    with pytest.raises(ExperimentError, match="not a file"):
        load_experiment(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ExperimentError, match=r"binary\.yaml:1:1: cannot be read"):
        load_experiment(tmp_path / "binary.yaml")


def test_a_trunk_longer_than_the_pretraining_is_refused() -> None:
    with pytest.raises(
        ExperimentError, match=r"proxy.trunk: 41 epochs are more than the 40 of search.target_epochs"
    ):
        load_experiment("digits", ["proxy.trunk.epochs=41"])
    assert load_experiment("digits", ["proxy.trunk.epochs=40"]).proxy.trunk_epochs == 40
