"""The probe `label-free`: measures and a verdict for any weights, without labels, and what a collapsed base gets."""

import json
import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from headsearch.cli import app
from headsearch.comparison.plan import make_plan
from headsearch.errors import ExperimentError
from headsearch.evaluation.evaluate import evaluate
from headsearch.evaluation.health import Health
from headsearch.evaluation.health_page import MEASURES, health_figure
from headsearch.evaluation.spec import EvaluationSpec
from headsearch.testing.pretraining import small_export

KWARGS = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}


def test_healthy_and_collapsed_weights_are_told_apart(
    spec: EvaluationSpec, weights: Path, tmp_path: Path
) -> None:
    state = load_file(weights)
    dead = {
        name: torch.zeros_like(value) if name == "norm.weight" else value for name, value in state.items()
    }
    dead["norm.bias"] = torch.ones_like(state["norm.bias"])
    save_file(dead, tmp_path / "dead.safetensors")
    asked = spec.model_copy(update={"probes": ["label-free"], "seeds": 2})
    found = evaluate(asked, [str(weights), str(tmp_path / "dead.safetensors")])
    alive, collapsed = found.health
    assert alive.verdict.startswith("healthy")
    assert set(alive.measures) == {
        "rankme", "alpha_req", "lidar", "alignment", "uniformity", "wasserstein", "retrieval", "twonn", "dse"
    }  # fmt: skip
    assert None not in alive.measures.values()
    assert collapsed.verdict.startswith("collapsed: the base collapsed")
    assert collapsed.measures["wasserstein"] == pytest.approx(2**0.5, abs=1e-3)
    assert collapsed.measures["rankme"] == pytest.approx(1.0, abs=1e-3)
    assert found.rows == ()
    read = json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert [each["weights"] for each in read["health"]] == [alive.weights, collapsed.weights]


def test_the_same_weights_measure_the_same_again(spec: EvaluationSpec, weights: Path) -> None:
    asked = spec.model_copy(update={"probes": ["label-free"], "seeds": 1})
    first, second = (evaluate(asked, [str(weights)]).health for _ in range(2))
    assert first == second


def test_the_command_prints_a_row_and_a_sentence(weights: Path) -> None:
    result = CliRunner().invoke(
        app,
        ["evaluate", str(weights), "--base", "vit_tiny_patch16_224", "--data", "digits", "--image-size", "16", "--probes", "label-free", "--base-kwargs", json.dumps(KWARGS), "--seeds", "1"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "lidar" in result.stdout
    assert ": healthy: embeddings differ in about" in result.stdout.replace("\n", " ")


def test_a_comparison_has_no_use_for_measures_without_a_score(tmp_path: Path) -> None:
    (tmp_path / "head.yaml").write_text(small_export().to_yaml())
    with pytest.raises(ExperimentError, match="label-free gives measures and no score"):
        make_plan([tmp_path / "head.yaml"], data="digits", probes=["label-free"])


def row(name: str, rank: float, verdict: str) -> Health:
    return Health(name, {"rankme": rank, "dse": None}, verdict)


def test_a_figure_has_every_measure_over_the_epochs_that_the_names_tell() -> None:
    rows = [row("run-7/epoch-5.pt", 9.0, "healthy: so"), row("run-7/epoch-20.pt", 3.0, "collapsing: <b>")]
    drawn = {panel.text: trace for panel, trace in zip(*of(health_figure(rows)), strict=True)}
    assert list(drawn) == list(MEASURES.values())
    rank = drawn["RankMe: directions in use"]
    assert list(rank.x) == [5, 20]
    assert list(rank.y) == [9.0, 3.0]
    assert list(rank.marker.symbol) == ["circle", "x"]
    assert rank.customdata[1][1] == "collapsing: &lt;b&gt;"
    assert list(drawn["DSE: structure of positions"].y) == [None, None]


def of(figure: go.Figure) -> tuple[Any, Any]:
    return figure.layout.annotations, figure.data


@pytest.mark.parametrize("names", [["a.pt", "b-2.pt"], ["e-3.pt", "e-2.pt"], ["e-2.pt", "f-2.pt"]])
def test_names_that_tell_no_epochs_are_drawn_in_their_order(names: list[str]) -> None:
    figure = health_figure([row(name, 2.0, "healthy: so") for name in names])
    assert list(figure.data[0].x) == names
    assert figure.layout.xaxis.type == "category"


def test_the_page_says_the_sentences_and_loads_nothing(weights: Path, tmp_path: Path) -> None:
    page = tmp_path / "health.html"
    command = ["evaluate", str(weights), "random", "--base", "vit_tiny_patch16_224", "--data", "digits", "--image-size", "16", "--base-kwargs", json.dumps(KWARGS), "--seeds", "1", "--figure", str(page)]  # fmt: skip
    refused = CliRunner().invoke(app, [*command, "--probes", "knn"])
    assert refused.exit_code != 0
    assert "--figure: draws the measures of the probe label-free" in str(refused.exception)
    assert not page.exists()
    result = CliRunner().invoke(app, [*command, "--probes", "label-free"])
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.count("healthy: embeddings differ in about") >= 2
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
