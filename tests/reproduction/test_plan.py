"""What the command line asks for, and what it refuses: one line, exit code 2, nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headsearch.cli import app
from headsearch.errors import UserError
from headsearch.reproduction.plan import make_plan
from headsearch.space import load_space


def test_by_default_it_is_the_digits_experiment_with_three_seeds() -> None:
    plan = make_plan()
    heads, screen = plan.heads(12), plan.screen(12)
    assert (heads.data.dataset, heads.base.model, heads.proxy.epochs) == (
        "digits",
        "vit_tiny_patch16_224",
        40,
    )
    assert (heads.search.trials, heads.search.finalists, heads.search.replicates) == (12, 12, 3)
    assert heads.search.controls == ["none", "same", "mlp"]
    assert heads.search.stopping.kind == "none"
    assert (screen.search.strategy, screen.search.screen.heads, screen.search.replicates) == ("screen", 12, 1)
    assert not screen.probes
    for key in ("base", "method", "proxy"):
        assert getattr(screen, key) == getattr(heads, key)


def test_base_data_and_epochs_are_those_that_are_given(tmp_path: Path) -> None:
    plan = make_plan(base="resnet18", data=str(tmp_path), epochs=3, overrides=["data.image_size=64"])
    experiment = plan.experiment
    assert (experiment.base.model, experiment.base.kwargs) == ("resnet18", {})
    assert (experiment.data.dataset, experiment.data.root) == ("folder", str(tmp_path))
    assert (experiment.data.image_size, experiment.proxy.epochs) == (64, 3)
    assert experiment.proxy.rungs[-1] == 3


def test_the_space_has_two_heads_of_six_families_that_need_no_fixed_grid() -> None:
    space = load_space("claims")
    heads = list(space.enumerate())
    assert len(heads) == space.count() == 12
    assert len({head.family for head in heads}) == 6
    assert space.families.isdisjoint({"mixer", "resmlp", "gmlp"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"overrides": ["data.labels=none"]},
            "data.labels: the claims are about a probe, which needs labels",
        ),
        ({"overrides": ["search.trials=3"]}, "--set search.trials=3: decided by what is reproduced"),
        ({"overrides": ["search.stopping.kind=asha"]}, "decided by what is reproduced"),
        ({"overrides": ["search={}"]}, "decided by what is reproduced"),
        ({"overrides": ["search.space=paper"]}, "1756 heads.*expected at most 100"),
        ({"overrides": ["search.space=sets"]}, "sets of heads"),
        ({"overrides": ["prxy.epochs=3"]}, "did you mean 'proxy'"),
        ({"overrides": ["nonsense"]}, "expected key=value"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(options: dict[str, list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        make_plan(overrides=options["overrides"])
    assert "\n" not in str(refused.value)


def test_help_has_an_example_and_needs_no_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from headsearch.cli import app; "
        "out = CliRunner().invoke(app, ['reproduce', 'paper', '--help']); "
        "assert 'torch' not in sys.modules; print(out.output)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "headsearch reproduce paper" in " ".join(shown.split())


@pytest.mark.slow
def test_the_command_runs_on_digits_and_goes_on_with_another_seed(tmp_path: Path) -> None:
    space = tmp_path / "few.yaml"
    space.write_text(
        "space: headsearch/space@1\ndoc: Few.\nhead: {one_of: [{poolformer: {depth: 1}}, {convnext: {depth: 1}}, {vit: {depth: 1}}]}\n",
        encoding="utf-8",
    )
    kwargs = "base.kwargs={patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}"
    out = tmp_path / "paper"
    command = ["reproduce", "paper", "--out", str(out), "--epochs", "1", "--format", "json", "--quiet"]
    command += ["--set", f"search.space={space}", "--set", kwargs]
    first = CliRunner().invoke(app, [*command, "--seeds", "1"])
    assert first.exit_code == 0, first.output
    second = CliRunner().invoke(app, [*command, "--seeds", "2", "--resume"])
    assert second.exit_code == 0, second.output
    found = json.loads(second.stdout)
    assert {head["seeds"] for head in found["figures"]["heads"]} == {2}
    assert sum(head["searched"] for head in found["figures"]["heads"]) == 3
    assert found == json.loads((out / "claims.json").read_text(encoding="utf-8"))
    for run in ("heads", "screen"):
        assert CliRunner().invoke(app, ["rank", str(out / run)]).exit_code == 0
