"""Several weights side by side: what is taken from where, pairing, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import stats

from headsearch.data.load import load_data
from headsearch.errors import BaseModelError, DataError, ExperimentError
from headsearch.evaluation.evaluate import evaluate, settled
from headsearch.evaluation.intervals import Outcome
from headsearch.evaluation.result import Evaluation, check_lines, compared
from headsearch.evaluation.spec import EvaluationSpec, evaluation_spec
from headsearch.evaluation.weights import find_weights, load_weights, own_normalisation
from headsearch.pretrain import PretrainSpec

MODEL = "vit_tiny_patch16_224"
KWARGS = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
"""Those of the fixture `spec`."""


@pytest.fixture(scope="module")
def found(spec: EvaluationSpec, weights: Path) -> Evaluation:
    """The file against random weights, in what is quick."""
    told: list[str] = []
    quick = spec.model_copy(update={"probes": ["knn", "few-shot", "segmentation", "detection"]})
    result = evaluate(quick, [str(weights), "random"], tell=told.append)
    assert told[0].startswith("data: digits: 1,280 images to train on")
    assert told[1:] == [
        f"{name}: {probe} done" for name in (str(weights), "random") for probe in quick.probes
    ]
    return result


def test_every_probe_has_a_row_for_each_weights_with_intervals(found: Evaluation, weights: Path) -> None:
    probes = ["20-NN", "few-shot 1%", "few-shot 10%", "segmentation mIoU"]
    assert [(row.probe, row.weights) for row in found.rows] == [
        (probe, name) for probe in probes for name in (str(weights), "random")
    ]
    for row in found.rows:
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.score <= row.high
        assert row.score == pytest.approx(np.mean(row.by_seed))
        assert len(row.by_seed) == (2 if row.probe.startswith("few-shot") else 1)
        assert row.test_images == (200 if "mIoU" in row.probe else 517)
        assert (row.difference is None) is (row.weights != "random")
    assert [check.passed for check in found.checks] == [True, True]
    assert all("passed" in line for line in check_lines(found.checks))


def test_as_json_nothing_is_nan_and_the_spec_is_whole(found: Evaluation) -> None:
    read = json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert read["evaluation"] == "headsearch/evaluation@1"
    assert read["spec"]["data"]["image_size"] == 16
    assert EvaluationSpec.model_validate(read["spec"]) == found.spec
    assert len(read["rows"]) == 8
    assert len(read["detection"]) == 2


def test_the_knn_is_that_of_a_search_on_the_same_weights(
    found: Evaluation, spec: EvaluationSpec, weights: Path
) -> None:
    from headsearch.scoring.probes import knn_accuracy

    base = load_weights(find_weights(str(weights)), found.spec).eval()
    images = load_data("digits", root=None, image_size=16, labels="probe", seed=0)
    mean, std = (torch.tensor(value)[:, None, None] for value in (images.mean, images.std))

    def embedded(part: Any) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            return base((part.images / 255 - mean) / std).embedding, part.labels

    expected = knn_accuracy(*embedded(images.train), *embedded(images.held_out))
    assert found.rows[0].score == pytest.approx(expected, abs=0.4)


def test_differences_are_paired_by_seed_and_image() -> None:
    random = np.random.default_rng(0)
    first = 100.0 * (random.random((1, 400)) < 0.6)
    second = np.where(random.random((1, 400)) < 0.05, 100.0 - first, first)
    rows = compared(
        {name: {"knn": Outcome((float(x.mean()),), x)} for name, x in (("a", first), ("b", second))}
    )
    low, high = stats.t.interval(0.95, 399, (second - first).mean(), stats.sem((second - first)[0]))
    assert rows[1].difference == pytest.approx((second - first).mean())
    assert rows[1].difference_low == pytest.approx(low, rel=1e-6)
    assert rows[1].difference_high == pytest.approx(high, rel=1e-6)
    assert rows[0].difference is None


def test_weights_equal_to_the_first_differ_by_nothing_and_no_noise_is_claimed(
    spec: EvaluationSpec, weights: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights.read_bytes())
    quick = spec.model_copy(update={"probes": ["knn"]})
    row = evaluate(quick, [str(weights), str(copy)]).rows[1]
    assert (row.difference, row.difference_low, row.difference_high) == (0.0, None, None)


@pytest.fixture
def pretraining(weights: Path, tmp_path: Path) -> Path:
    """A directory as a pretraining leaves it."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    (folder / "base.safetensors").write_bytes(weights.read_bytes())
    content = {
        "base": {"model": MODEL, "kwargs": KWARGS},
        "data": {"dataset": "digits", "image_size": 16},
        "seed": 4,
    }
    (folder / "pretrain.yaml").write_text(PretrainSpec.parse(content, "test").to_yaml())
    return folder


def test_a_pretraining_directory_says_base_data_size_and_seed(pretraining: Path) -> None:
    found = evaluate(evaluation_spec({"probes": ["knn"]}), [str(pretraining)])
    assert found.spec.base.model == MODEL
    assert found.spec.base.kwargs == KWARGS
    assert (found.spec.data.dataset, found.spec.data.image_size, found.spec.seed) == ("digits", 16, 4)


def test_what_is_given_goes_before_what_a_pretraining_says(pretraining: Path) -> None:
    spec = evaluation_spec({"data": {"dataset": "npz", "root": "x.npz", "image_size": 32}, "seed": 0})
    whole = settled(spec, [find_weights(str(pretraining))])
    assert (whole.data.dataset, whole.data.root, whole.data.image_size, whole.seed) == (
        "npz",
        "x.npz",
        32,
        0,
    )


def test_another_cut_than_the_pretrainings_is_pointed_out(pretraining: Path) -> None:
    told: list[str] = []
    evaluate(evaluation_spec({"probes": ["knn"], "seed": 1}), [str(pretraining)], tell=told.append)
    (warned,) = (line for line in told if line.startswith("beware"))
    assert "seed 4" in warned
    assert "some test images were seen" in warned


def test_the_image_size_is_the_models_own_where_nobody_says() -> None:
    random = find_weights("random")

    def size(model: str, **kwargs: int) -> int | None:
        spec = evaluation_spec({"base": {"model": model, "kwargs": kwargs}, "data": {"dataset": "digits"}})
        return settled(spec, [random]).data.image_size

    assert size("resnet18") == 224
    assert size("vit_small_patch14_dinov2") == 518
    assert size("vit_tiny_patch16_224", img_size=64) == 64


def test_timms_own_weights_keep_their_normalisation() -> None:
    assert own_normalisation(find_weights("pretrained"), "vit_tiny_patch16_224") == (
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
    )
    assert own_normalisation(find_weights("random"), "vit_tiny_patch16_224") is None


def test_random_weights_follow_the_seed_alone(spec: EvaluationSpec) -> None:
    def drawn(seed: int) -> torch.Tensor:
        whole = settled(spec.model_copy(update={"seed": seed}), [find_weights("random")])
        torch.rand(seed + 1)
        return load_weights(find_weights("random"), whole).model.pos_embed  # type: ignore[return-value]

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_final_scores_are_of_the_test_split_where_a_search_uses_val(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        for label in ("a", "b"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    options = {
        "base": {"model": MODEL, "kwargs": KWARGS},
        "data": {"dataset": "folder", "root": str(tmp_path)},
        "probes": ["knn"],
    }
    assert evaluate(evaluation_spec(options), ["random"]).rows[0].test_images == 4
    searched = load_data("folder", root=str(tmp_path), image_size=16, labels="probe", seed=0)
    assert len(searched.held_out) == 6


def test_weights_that_do_not_fit_or_are_not_there_are_refused(
    spec: EvaluationSpec, weights: Path, tmp_path: Path
) -> None:
    state = load_file(weights)
    state["surplus.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(BaseModelError, match=r"has no surplus.weight"):
        evaluate(spec, ["random", str(tmp_path / "other.safetensors")])
    with pytest.raises(BaseModelError, match="no file or directory 'gone'"):
        evaluate(spec, ["gone"])
    with pytest.raises(BaseModelError, match="not a finished pretraining"):
        evaluate(spec, [str(tmp_path)])
    with pytest.raises(BaseModelError, match="given twice"):
        evaluate(spec, ["random", "random"])


def test_what_is_missing_is_asked_for(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="--base"):
        evaluate(evaluation_spec({}), [str(weights)])
    with pytest.raises(ExperimentError, match=r"--data.*few-shot, knn, linear"):
        evaluate(evaluation_spec({"base": {"model": MODEL, "kwargs": KWARGS}}), [str(weights)])
    Image.new("RGB", (16, 16)).save(tmp_path / "flat.png")
    unlabelled = {
        "base": {"model": MODEL, "kwargs": KWARGS},
        "data": {"dataset": "folder", "root": str(tmp_path)},
    }
    with pytest.raises(DataError, match="class folders"):
        evaluate(evaluation_spec({**unlabelled, "probes": ["knn"]}), [str(weights)])


def test_images_without_labels_are_retrieved_by_their_views(weights: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(60):
        pixels = random.integers(0, 256, size=(16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    spec = evaluation_spec(
        {
            "base": {"model": MODEL, "kwargs": KWARGS},
            "data": {"dataset": "folder", "root": str(tmp_path)},
            "seeds": 3,
        }
    )
    told: list[str] = []
    (first, second) = evaluate(spec, ["random", str(weights)], tell=told.append).rows
    assert (first.probe, second.probe) == ("retrieval", "retrieval")
    assert "no probe but retrieval" in told[0]
    held_out = len(load_data("folder", root=str(tmp_path), image_size=16, labels="none", seed=0).held_out)
    assert 100 / held_out < first.score <= 100, "more than chance"
    again = evaluate(spec, ["random", str(weights)]).rows
    assert [row.score for row in again] == [first.score, second.score]
    assert second.difference == pytest.approx(second.score - first.score)


def test_a_mistake_in_the_options_names_the_nearest_key() -> None:
    with pytest.raises(ExperimentError, match="did you mean 'finetune'"):
        evaluation_spec({"probes": ["finetun"]})
    with pytest.raises(ExperimentError, match="did you mean 'layer_decay'"):
        evaluation_spec({}, ["finetune.layer_deca=0.5"])
    with pytest.raises(ExperimentError, match=r"few_shot.fractions"):
        evaluation_spec({}, ["few_shot.fractions=[2.0]"])


@pytest.mark.parametrize("name", ["random", "pretrained"])
def test_a_folder_named_like_weights_of_another_meaning_is_not_mistaken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    find_weights(name)
    (tmp_path / name).mkdir()
    with pytest.raises(BaseModelError, match=rf"expected \./{name} for what lies here"):
        find_weights(name)
    with pytest.raises(BaseModelError, match="is not a finished pretraining"):
        find_weights(f"./{name}")
    (tmp_path / name / "seed-0").mkdir()
    (tmp_path / name / "seed-0" / "base.safetensors").touch()
    with pytest.raises(BaseModelError, match=f"expected one of: {name}/seed-0$"):
        find_weights(f"./{name}")
