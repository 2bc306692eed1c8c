"""`headsearch audit` on whole toy runs of every strategy, finished and not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from interrupting import Interrupting
from typer.testing import CliRunner

from headsearch.cli import app
from headsearch.errors import RunError
from headsearch.experiment import Experiment
from headsearch.runs.run import read_run
from headsearch.scoring.between_bases import kept_embeddings
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import run_toy, toy_experiment
from headsearch.training.checkpoint import save_tensors
from headsearch.training.trial import EMBEDDINGS

SIZES = {"candidates": 60, "screen": {"heads": 12}, "trials": 8, "audit": 2, "finalists": 3, "replicates": 3}


def funnel(labels: str = "probe", **search: object) -> Experiment:
    return toy_experiment(labels, **{"strategy": "funnel", **SIZES, **search})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit") / "run"
    run_toy(out, funnel())
    return out


def audited(run: Path) -> dict[str, list[str]]:
    """Names of the lines by section, as the command prints them in JSON."""
    result = CliRunner().invoke(app, ["audit", str(run), "--format", "json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    return {section["name"]: [line["name"] for line in section["lines"]] for section in found["sections"]}


def test_a_funnel_has_all_sections(finished: Path) -> None:
    found = audited(finished)
    assert all(found.values())
    assert found["stages"] == [
        "untrained → screen",
        "untrained → proxy's discrepancy",
        "untrained → proxy's probe",
        "screen → proxy's discrepancy",
        "screen → proxy's probe",
        "probe: chosen less taken by chance",
    ]


def test_heads_taken_by_chance_are_those_beyond_the_best_of_the_screen(finished: Path) -> None:
    run = read_run(finished)
    assert len(run.screen_order) == 12
    proxies = {r.head_id for r in run.records if r.stage == "proxy" and r.control is None}
    assert len(run.by_chance) == 2
    assert proxies - run.by_chance == set(run.screen_order[:6])


def test_the_table_has_a_sentence_for_every_section(finished: Path) -> None:
    result = CliRunner().invoke(app, ["audit", str(finished)])
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for section in read_run(finished).audit.sections:
        assert section.question in text
        assert section.conclusion in text


def test_a_screen_is_held_against_its_own_rungs_and_seeds(tmp_path: Path) -> None:
    run_toy(tmp_path / "run", toy_experiment(strategy="screen", screen={"heads": 12}, replicates=2))
    found = audited(tmp_path / "run")
    assert "score: epoch 1 → 9" in found["rungs"]
    assert "score" in found["seeds"]
    assert not found["stages"]
    assert not found["choosing"]


def test_a_search_by_proxies_alone_has_no_stages(tmp_path: Path) -> None:
    run_toy(tmp_path / "run", toy_experiment(trials=6, finalists=0))
    found = audited(tmp_path / "run")
    assert not found["stages"]
    assert not found["seeds"]
    assert found["choosing"]


def test_a_run_without_labels_needs_none(tmp_path: Path) -> None:
    run_toy(tmp_path / "run", funnel("none"))
    found = audited(tmp_path / "run")
    assert "screen → proxy's discrepancy" in found["stages"]
    assert not [name for names in found.values() for name in names if "probe" in name or name == "linear"]


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_run_that_is_half_done_can_be_audited(tmp_path: Path, after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path / "run", funnel(), observer=Interrupting(after))
    assert len(audited(tmp_path / "run")) == 7


def test_a_run_of_failures_says_what_is_missing(tmp_path: Path) -> None:
    families = ("none", "vit", "mlp", "swin", "convnext", "resnet", "mixer", "resmlp", "gmlp", "poolformer")
    with pytest.raises(RunError, match="trials failed"):
        run_toy(
            tmp_path / "run",
            toy_experiment(trials=4),
            ToyEvaluator(failures=dict.fromkeys(families, "error")),
        )
    assert not any(audited(tmp_path / "run").values())


def test_kept_embeddings_of_the_control_are_compared_between_seeds(finished: Path) -> None:
    controls = [r.number for r in read_run(finished).records if r.control == "none"]
    # √3 times three seeds, for three finalists.
    assert len(controls) == 5
    embedding = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    files = [finished / "trials" / str(number) / EMBEDDINGS for number in controls]
    for file in files:
        save_tensors(file, kept_embeddings(embedding))
    try:
        scale = read_run(finished).audit.sections[-1]
    finally:
        for file in files:
            file.unlink()
    values = {line.name: (line.n, line.value) for line in scale.lines}
    assert values["cka.embedding: bases of two seeds"] == (10, pytest.approx(0.0, abs=1e-6))
    assert values["cka.embedding: the same, images shuffled"] == (10, pytest.approx(1.0, abs=0.05))


def test_no_run_is_one_line_and_the_command_needs_no_torch(finished: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headsearch", "audit", str(tmp_path / "none")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"headsearch: {tmp_path / 'none'}: no such run directory; headsearch run makes one"
    ]
    code = (
        "import sys; from headsearch.runs.run import read_run\n"
        f"read_run({str(finished)!r}).audit\n"
        "assert not {'torch', 'ray', 'optuna'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
