"""From an experiment to a ranking, with nothing replaced: digits, every method, every family, bases of several kinds (tests/test_base.py has more)."""

import json
from pathlib import Path

import pytest

from headsearch.errors import HeadError
from headsearch.experiment import Experiment, load_experiment
from headsearch.export import export_head, load_head, load_heads, read_head
from headsearch.heads import FAMILIES, parse_head
from headsearch.heads.build import Head
from headsearch.methods import METHODS
from headsearch.pretrain import PretrainSpec, pretrain
from headsearch.results.ranking import rank
from headsearch.runs.directory import RunDirectory
from headsearch.runs.run import read_records
from headsearch.scoring.discrepancy import MEASURES
from headsearch.search.observer import Observer
from headsearch.search.session import run_search
from headsearch.testing.tiny import Context, training
from headsearch.training.evaluator import Evaluator
from headsearch.training.trial import TrialResult

SMALL = "base.kwargs={patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2}"
FEW = ("data.subset=320", "proxy.batch_size=80")
"""Images, where it does not matter how good the scores are."""


def digits(*overrides: str) -> Experiment:
    """One epoch of four batches."""
    half = ["data.subset=640", "proxy.batch_size=160"]
    return load_experiment("digits", [SMALL, "proxy.epochs=1", *half, *overrides])


def train(experiment: Experiment, head: object, folder: Path) -> TrialResult:
    return trained(Evaluator(experiment), head, folder)


def trained(evaluator: Evaluator, head: object, folder: Path) -> TrialResult:
    (result,) = evaluator(training(folder, parse_head(head)), Context()).trials
    return result


def is_scored(result: TrialResult, *, head: bool) -> None:
    final = result.rungs[-1]
    assert set(final.measures) <= set(MEASURES)
    assert bool(final.measures) is head
    assert (final.discrepancy is not None) is head
    assert final.knn is not None
    assert final.knn > 15.0, "ten classes: chance is 10 %"
    assert final.linear is not None
    assert final.linear > 30.0


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    """Shared by the families: images are read once."""
    return Evaluator(digits(*FEW))


def test_every_family_trains(tmp_path: Path) -> None:
    """All on one base; `check_family` looks at each by itself."""
    heads = [parse_head({family: {"depth": 2, "first_shortcut": False}}) for family in FAMILIES]
    evaluator = Evaluator(digits(*FEW, "search.screen={heads_per_step: 11, reduction: 1}"))
    results = evaluator(training(tmp_path, *heads, stage="screen"), Context()).trials
    assert len(results) == len(FAMILIES)
    for family, result in zip(FAMILIES, results, strict=True):
        assert (result.state, set(result.rungs[-1].measures)) == ("complete", set(MEASURES)), family
        assert result.cost.params > 0


def test_a_stack_of_families_trains(evaluator: Evaluator, tmp_path: Path) -> None:
    is_scored(
        trained(evaluator, [{"convnext": {"depth": 1}}, {"mixer": {"depth": 1}}], tmp_path),
        head=True,
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_a_base_without_a_head(method: str, tmp_path: Path) -> None:
    is_scored(train(digits(f"method.name={method}", *FEW), None, tmp_path), head=False)


@pytest.mark.parametrize(
    ("model", "kwargs"),
    [
        ("resnet10t", "{channels: [8, 8, 16, 16]}"),
        ("convnext_atto", "{depths: [1, 1, 1, 1], dims: [8, 8, 16, 16]}"),
        (
            "swin_tiny_patch4_window7_224",
            "{patch_size: 2, window_size: 2, embed_dim: 8, depths: [1, 1], num_heads: [1, 1]}",
        ),
        ("mobilenetv3_small_050", "{}"),
        (
            "vit_small_patch14_reg4_dinov2",
            "{patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2, init_values: null, global_pool: avg}",
        ),
    ],
)
def test_bases_of_every_kind_train(model: str, kwargs: str, tmp_path: Path) -> None:
    # Projectors of the methods' own sizes take most of the time where an embedding is wide.
    base = (f"base.model={model}", f"base.kwargs={kwargs}", "data.image_size=32")
    experiment = digits(*base, "method.kwargs={hidden_dim: 64, output_dim: 32}", *FEW)
    result = train(experiment, {"vit": {"depth": 1}}, tmp_path)
    assert result.rungs[-1].discrepancy is not None
    assert result.rungs[-1].linear is not None


def test_a_funnel_without_labels_reads_none_and_ranks_by_discrepancy(tmp_path: Path) -> None:
    overrides = [
        *FEW,
        "data.labels=none",
        "search.strategy=funnel",
        "search.candidates=6",
        "search.screen={heads: 4, epochs: 2}",
        "search.trials=3",
        "search.finalists=1",
        "search.replicates=2",
        "search.controls=[none]",
    ]
    summary = run_search(digits(*overrides), tmp_path / "run")
    screened = [record for record in summary.records if record.stage == "screen"]
    assert len(screened) == 4
    assert len({record.seed for record in screened}) == 1
    assert all(record.state in ("complete", "stopped") and record.rungs[-1].quality for record in screened)
    for record in summary.records:
        assert record.stage == "screen" or record.state == "complete"
        assert all(rung.knn is None and rung.linear is None for rung in record.rungs)
    rows = rank(summary.records, labels=False)
    ranked = [row for row in rows if row.rank is not None]
    assert len(ranked) == 3
    scores = [row.score for row in ranked if row.score is not None]
    assert scores == sorted(scores, reverse=True)
    assert all(row.probe is None and row.gain is None and row.pareto_layer is None for row in rows)
    assert ranked[0].replicates == 2


def test_a_set_is_trained_ranked_exported_and_read_back(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "space: headsearch/space@1\nhead: {one_of: [{set: [{mixer: {depth: 1}}, {convnext: {depth: 1}}]}, {mixer: {depth: 1}}]}"
    )
    overrides = [
        f"search.space={space}",
        "search.strategy=proxies",
        "search.sampler=grid",
        "search.trials=2",
        "search.finalists=0",
        "search.replicates=1",
        "search.controls=[none]",
    ]
    run = tmp_path / "run"
    summary = run_search(digits(*FEW, *overrides), run)
    assert [record.state for record in summary.records] == ["complete"] * 3
    rows = {row.family: row for row in rank(summary.records, by="pareto", labels=True)}
    pair, single = rows["set(convnext|mixer)"], rows["mixer"]
    assert pair.rank is not None
    assert pair.discrepancy is not None
    assert pair.gain is not None
    assert pair.params is not None
    assert single.params is not None
    assert read_records(run) == list(summary.records)

    file = tmp_path / "head.yaml"
    export_head(run, file, head_id=pair.head_id)
    assert read_head(file).config == pair.config
    heads = load_heads(file)
    assert [head.config.family for head in heads] == ["convnext", "mixer"]
    assert pair.params == sum(weight.numel() for head in heads for weight in head.parameters())
    assert pair.params > single.params
    with pytest.raises(
        HeadError, match=r"head\.yaml: a set of 2 heads; expected a single one \(load_heads reads both\)"
    ):
        load_head(file)
    assert len(load_heads_of(run, single.head_id, tmp_path)) == 1


def load_heads_of(run: Path, head_id: str, folder: Path) -> list[Head]:
    export_head(run, folder / "one.yaml", head_id=head_id)
    return load_heads(folder / "one.yaml")


def test_a_folder_of_images_is_searched_and_what_is_corrupt_is_left_out(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 12)):
        for label, colour in enumerate(("red", "green")):
            folder = tmp_path / "images" / split / colour
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 80, (20, 24, 3), dtype=np.uint8)
                pixels[..., label] += 150
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "images" / "train" / "red" / "broken.png").write_bytes(b"not an image")
    experiment = load_experiment(
        None,
        [
            "data.dataset=folder",
            f"data.root={tmp_path / 'images'}",
            "data.image_size=16",
            "base.model=vit_tiny_patch16_224",
            SMALL,
            "proxy.epochs=2",
            "proxy.batch_size=16",
            "search.space=tiny",
            "search.strategy=proxies",
            "search.trials=1",
            "search.finalists=0",
            "search.controls=[none]",
        ],
    )
    summary = run_search(experiment, tmp_path / "run")
    assert [record.state for record in summary.records] == ["complete", "complete"]
    assert all(record.rungs[-1].linear == 100.0 for record in summary.records), "colours are easy"
    assert RunDirectory.open(tmp_path / "run").experiment() == experiment
    assert read_records(tmp_path / "run") == list(summary.records)
    log = [
        json.loads(line)
        for line in (tmp_path / "run" / "trials" / "0" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [entry["epoch"] for entry in log if "learning_rate" in entry] == [1, 2]
    assert not list((tmp_path / "run").rglob("checkpoint*"))


class Notes(Observer):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def test_an_earlier_map_goes_from_the_search_into_the_pretraining(tmp_path: Path) -> None:
    overrides = [
        *FEW,
        "base.model=convnext_atto",
        "base.kwargs={depths: [1, 1, 1, 1], dims: [8, 8, 16, 24]}",
        "data.image_size=32",
        "search.strategy=proxies",
        "search.trials=1",
        "search.finalists=0",
        "search.replicates=1",
        "search.controls=[none]",
    ]
    last, earlier = Notes(), Notes()
    run_search(digits(*overrides), tmp_path / "last", observer=last)
    run_search(digits(*overrides, "base.stage=-2"), tmp_path / "run", observer=earlier)
    assert any("ends on a map of 1x1" in text for text in last.texts)
    assert not any("1x1" in text for text in earlier.texts)
    assert "stage" not in (tmp_path / "last" / "experiment.yaml").read_text()
    exported = export_head(tmp_path / "run", tmp_path / "head.yaml")
    assert (exported.base.info.stage, exported.base.info.width, exported.base.info.grid) == (-2, 16, [2, 2])
    recipe = ["recipe.epochs=1", "recipe.batch_size=320", "recipe.warmup_epochs=0"]
    spec = PretrainSpec.from_head(read_head(tmp_path / "head.yaml"), overrides=recipe)
    assert spec.base.stage == -2
    result = pretrain(spec, tmp_path / "weights")
    assert result.head_weights is not None
    with pytest.raises(HeadError, match="whose stage is -2, but the base at hand"):
        pretrain(PretrainSpec.from_head(exported, overrides=[*recipe, "base.stage=-1"]), tmp_path / "other")
