"""The command line as people meet it: as a process, with its exit codes and its two streams."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from forked import headsearch

TINY = [
    "digits",
    "--set=proxy.epochs=1",
    "--set=search.strategy=proxies",
    "--set=data.subset=320",
    "--set=search.trials=2",
    "--set=search.finalists=0",
    "--set=search.replicates=1",
    "--set=search.controls=[none]",
    "--set=base.kwargs={patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}",
]

RANK_FIELDS = (
    "rank head_id family config control stage score discrepancy discrepancy_sd probe probe_sd knn linear linear_sd epochs gain gain_low gain_high "
    "linear_gain linear_gain_low linear_gain_high simultaneous shrunk long_gain predicted_gain predicted_low predicted_high params flops overhead replicates pareto_layer feasible reason"
)


def refused(result: subprocess.CompletedProcess[str], *expected: str) -> None:
    """Bad input: exit code 2 and one line that says what is wrong."""
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("headsearch: ")
    for text in expected:
        assert text in lines[0]
    assert result.stdout == ""


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(tmp_path: Path) -> None:
    told = headsearch(
        "run", *TINY, "--dry-run", "--out", tmp_path / "run", "--set=data.subset=512", cwd=tmp_path
    )
    assert told.returncode == 0, told.stderr
    assert [line.split()[:4] for line in told.stdout.splitlines()[1:3]] == [
        ["controls", "1", "1", "512"],
        ["heads", "2", "1", "1,024"],
    ]
    assert "nothing was trained, and no run was begun" in told.stdout
    assert "512 images to train on" in told.stderr
    assert list(tmp_path.iterdir()) == []
    refused(
        headsearch("run", *TINY, "--dry-run", "--set=data.subset=5000", cwd=tmp_path), "data.subset", "1,280"
    )
    refused(
        headsearch("run", *TINY, "--dry-run", "--set=data.subset=auto", cwd=tmp_path), "needs search.budget"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the real thing: two heads and the control on digits, one epoch."""
    out = tmp_path_factory.mktemp("cli") / "run"
    result = headsearch("run", *TINY, "--out", out)
    assert result.returncode == 0, result.stderr
    assert "headsearch export" in result.stderr
    assert "rank" in result.stdout
    return out


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["rank", "--help"], ["export", "--help"], ["space", "count", "tiny"]],
    ids=" ".join,
)
def test_light_commands_import_nothing_heavy(arguments: Sequence[str]) -> None:
    code = (
        "import sys; from headsearch.cli import main\n"
        f"sys.argv = ['headsearch', *{list(arguments)!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'timm', 'pandas', 'scipy', 'sklearn', 'ray', 'lightly'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_rank_and_export_import_nothing_heavy(finished: Path, tmp_path: Path) -> None:
    for arguments in (
        ["rank", str(finished)],
        ["export", str(finished), "--out", str(tmp_path / "head.yaml")],
    ):
        test_light_commands_import_nothing_heavy(arguments)


def test_the_public_commands_are_there() -> None:
    promised = ["init", "run", "rank", "trials", "export", "space", "doctor"]
    shown = headsearch("--help").stdout
    assert all(f" {name} " in shown for name in promised)
    options = headsearch("run", "--help").stdout
    assert all(option in options for option in ("--out", "--set", "--resume", "--base", "--data"))


def test_rank_as_json_is_json_alone_with_the_promised_fields(finished: Path) -> None:
    result = headsearch("rank", finished, "--format", "json")
    rows = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert result.stderr == ""
    assert list(rows[0]) == RANK_FIELDS.split()
    assert {row["control"] for row in rows} == {None, "none"}
    control = next(row for row in rows if row["control"] == "none")
    assert control["discrepancy"] is None
    assert control["gain"] is None
    heads = [row for row in rows if row["control"] is None]
    assert len({row["head_id"] for row in heads}) == 2
    assert all(row["gain"] == pytest.approx(row["probe"] - control["probe"]) for row in heads)
    assert all(row["gain_low"] is None for row in heads), "one seed each shows no noise"


def test_trials_as_csv_has_a_row_for_every_training(finished: Path) -> None:
    lines = headsearch("trials", finished, "--format", "csv").stdout.splitlines()
    assert lines[0].startswith("number,state,head_id")
    assert len(lines) == 1 + 3


def test_an_exported_head_loads_and_runs_on_the_bases_feature_map(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "head.yaml"
    assert headsearch("export", finished, "--out", file).returncode == 0
    import torch

    import headsearch as package

    head = package.load_head(file)
    written = yaml.safe_load(file.read_text())
    width, grid = written["base"]["info"]["width"], written["base"]["info"]["grid"]
    feature_map = torch.randn(2, width, *grid)
    assert head(feature_map).shape == feature_map.shape
    assert head.embed(head(feature_map)).shape == (2, width)
    assert sum(p.numel() for p in head.parameters()) == written["scores"]["params"]


def test_export_refuses_what_is_not_there(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "head.yaml"
    refused(headsearch("export", finished, "--rank", 9, "--out", out), "no head at rank 9")
    unknown = headsearch("export", finished, "--head", "nope", "--out", out)
    refused(unknown, "no head 'nope'", "expected one of")
    assert "none" not in unknown.stderr, "it has no head to offer"
    refused(headsearch("export", finished, "--head", "none", "--out", out), "nothing to export")
    assert not out.exists()


def test_init_writes_files_that_are_good_and_overwrites_nothing(tmp_path: Path) -> None:
    assert headsearch("init", tmp_path / "new").returncode == 0
    assert headsearch("space", "validate", tmp_path / "new" / "space.yaml").returncode == 0
    from headsearch.experiment import load_experiment

    experiment = load_experiment(tmp_path / "new" / "experiment.yaml")
    assert experiment.search.space == str(tmp_path / "new" / "space.yaml")
    refused(headsearch("init", tmp_path / "new"), "exists already")
    taken = headsearch("run", "--set=seed=x", cwd=tmp_path / "new").stderr
    assert "this is digits; for the file here:  headsearch run experiment.yaml" in taken


def test_doctor_as_json_is_json_alone() -> None:
    found = json.loads(headsearch("doctor", "--format", "json").stdout)
    assert found["versions"]["headsearch"]
    assert {finding["topic"] for finding in found["findings"]} == {
        "packages",
        "devices",
        "processor",
        "storage",
    }


def test_a_command_without_its_arguments_explains_itself() -> None:
    told = headsearch("reproduce")
    assert (told.returncode, told.stderr) == (2, "")
    assert "Usage: headsearch reproduce" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "digit"], "did you mean 'digits'"),
        (["run", "digits", "--set", "proxy.epoch=3"], "did you mean 'epochs'"),
        (["run", "digits", "--set", "proxy.epochs=many"], "proxy.epochs"),
        (["run", "digits", "--set", "method.name=mocov4"], "did you mean 'mocov3'"),
        (["run", "digits", "--set", "method.kwargs={temprature: 1}"], "temperature"),
        (["run", "digits", "--set", "search.sampler=tpee"], "did you mean 'tpe'"),
        (["run", "digits", "--set", "search.space=tinyy"], "did you mean 'tiny'"),
        (
            ["run", "digits", "--set", "search.discrepancy=cka.embedding.ouput"],
            "did you mean 'cka.embedding.output'",
        ),
        (["run", "digits", "--set", "data.dataset=digit"], "did you mean 'digits'"),
        (["run", "--data", "no/such/folder"], "no/such/folder"),
        (["run", "nothing.yaml"], "nothing.yaml"),
        (["rank", "no-run"], "no-run"),
        (["rank"], "RUN"),
        (["rnk"], "rnk"),
        (["run", "--epochs", "3"], "No such option: --epochs; keys are given by --set KEY=VALUE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_before_anything_is_loaded(
    arguments: list[str], expected: str, tmp_path: Path
) -> None:
    result = headsearch(*arguments, cwd=tmp_path)
    refused(result, expected)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("base.model=resnet81", "did you mean 'resnet"),
        ("base.kwargs={patchsize: 4}", "patchsize"),
        ("data.image_size=3", "image"),
    ],
)
def test_a_base_that_cannot_be_is_refused(override: str, expected: str, tmp_path: Path) -> None:
    refused(headsearch("run", "digits", "--set", override, cwd=tmp_path), expected)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_images_and_one_class_only_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "empty").mkdir()
    (tmp_path / "one" / "cat").mkdir(parents=True)
    for number in range(40):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / "one" / "cat" / f"{number}.png")
    small = ["--base", "resnet10t", "--set", "data.image_size=32", "--set", "proxy.batch_size=8"]
    refused(headsearch("run", "--data", "empty", *small, cwd=tmp_path), "empty")
    refused(headsearch("run", "--data", "one", *small, cwd=tmp_path), "class")
    assert not (tmp_path / "runs").exists()


def test_a_run_that_exists_is_not_overwritten(finished: Path) -> None:
    before = sorted(path.name for path in finished.iterdir())
    refused(headsearch("run", *TINY, "--out", finished), "--resume")
    refused(headsearch("run", *TINY, "--set=search.space=paper", "--out", finished, "--resume"), "space")
    refused(headsearch("run", *TINY, "--set=proxy.epochs=2", "--out", finished, "--resume"), "proxy.epochs")
    assert sorted(path.name for path in finished.iterdir()) == before


def test_a_finished_run_resumes_to_the_same_table(finished: Path) -> None:
    before = headsearch("rank", finished, "--format", "json").stdout
    assert headsearch("run", *TINY, "--out", finished, "--resume").returncode == 0
    assert headsearch("rank", finished, "--format", "json").stdout == before


def test_a_run_whose_experiment_is_not_named_goes_on_with_its_own(finished: Path) -> None:
    before = headsearch("rank", finished).stdout
    resumed = headsearch("run", "--out", finished, "--set", 'data.dataset="digits"', "--resume")
    assert (resumed.returncode, resumed.stdout) == (0, before), resumed.stderr


def test_a_file_of_another_kind_is_refused_for_what_it_is(finished: Path, tmp_path: Path) -> None:
    head, experiment = tmp_path / "head.yaml", finished / "experiment.yaml"
    assert headsearch("export", finished, "--out", head).returncode == 0
    refused(headsearch("run", head), "'head: headsearch/head@1'", "expected an experiment")
    refused(headsearch("run", finished), "a run directory", "expected an experiment")
    refused(headsearch("space", "count", head), "'head: headsearch/head@1'", "expected a search space")
    refused(
        headsearch("pretrain", experiment, "--out", tmp_path / "p"), "experiment@1'", "expected a head.yaml"
    )
    refused(headsearch("pretrain", finished, "--out", tmp_path / "p"), "a run directory", "a head.yaml")
    refused(headsearch("rank", experiment), "a file, not a run directory")
    refused(headsearch("rank", finished.parent), f"expected one of: {finished}")
    refused(headsearch("evaluate", head), "a description, which has no weights", "headsearch pretrain")
    refused(
        headsearch("space", "count", finished),
        f"{finished}: a folder, not a space",
        f"is {finished / 'space.yaml'}",
    )


def test_a_choice_that_is_not_known_is_refused_in_our_words(finished: Path) -> None:
    refused(headsearch("rank", finished, "--by", "foo"), "'--by': 'foo' is not one of 'score'")


def test_one_epoch_is_no_plural(finished: Path) -> None:
    assert "after 1 epoch it gains" in headsearch("rank", finished).stdout


def scores(run: Path) -> dict[str, object]:
    """What was measured, by head and seed; times left out."""
    rows = json.loads(headsearch("trials", run, "--format", "json").stdout)
    return {
        f"{row['head_id']}/{row['replicate']}": (
            row["state"],
            row["epoch"],
            row["loss"],
            row["discrepancy"],
            row["linear"],
        )
        for row in rows
    }


ENDED = """
import os, signal
from headsearch.experiment.guests import CallbackEntry
from headsearch.options import Options
from headsearch.search.callbacks.broadcast import Callback

class Ended(Callback):
    def __init__(self, options, subject):
        pass

    def training_started(self, training, status):
        if training.number == 1 and "DEADLY" in os.environ:
            # Somewhere in the training, which takes longer; its own timer does it, so that it cannot have ended before.
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), int(os.environ["DEADLY"])))
            signal.setitimer(signal.ITIMER_REAL, 0.05)

    def close(self):
        pass

PLUGINS = [CallbackEntry("ended", Options, Ended)]
"""


@pytest.mark.parametrize(
    "deadly",
    [
        signal.SIGKILL,
        signal.SIGTERM,
        *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGHUP)),
    ],
)
def test_a_search_that_is_ended_resumes_to_the_results_of_an_undisturbed_one(
    deadly: signal.Signals, finished: Path, tmp_path: Path
) -> None:
    out, plugin = tmp_path / "run", tmp_path / "ended_by_itself.py"
    plugin.write_text(ENDED)
    search = [
        "run",
        *TINY,
        "--plugin",
        str(plugin),
        "--set=search.callbacks=[{kind: ended}]",
        "--out",
        str(out),
    ]
    if deadly is signal.SIGKILL:
        with pytest.raises(RuntimeError, match=f"ended with code -{deadly:d}$"):
            headsearch(*search, DEADLY=str(int(deadly)))
    else:
        ended = headsearch(*search, DEADLY=str(int(deadly)))
        assert ended.returncode == 128 + deadly
        assert "--resume" in ended.stderr.splitlines()[-1]
        assert "Traceback" not in ended.stderr
    after_death = scores(out)
    assert after_death["none/0"] == scores(finished)["none/0"]
    assert headsearch(*search, "--resume").returncode == 0
    assert scores(out) == scores(finished)
