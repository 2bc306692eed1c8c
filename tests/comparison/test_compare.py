"""A comparison from head.yaml to table with nothing replaced, at a size of seconds: resumed, extended, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from headsearch.base.model import check_base
from headsearch.comparison import compare as module
from headsearch.comparison.compare import compare
from headsearch.comparison.outcome import Comparison
from headsearch.comparison.plan import ComparisonPlan, make_plan
from headsearch.errors import DataError, ExperimentError, RunError
from headsearch.experiment import DataSpec, MethodSpec
from headsearch.export import BaseFacts, ExportedBase, ExportedHead, Provenance
from headsearch.heads import canonical, head_id, parse_head
from headsearch.pretrain.display import pretrain_display

MODEL = "vit_tiny_patch16_224"
KWARGS = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
SHORT = [
    "recipe.epochs=1",
    "recipe.batch_size=320",
    "recipe.learning_rate=0.001",
    "evaluate.knn.neighbours=[5]",
]


def write_head(path: Path, config: Any, **changes: Any) -> Path:
    info = check_base(MODEL, image_size=16, kwargs=KWARGS)
    head = canonical(parse_head(config), info)
    described: Any = head.to_dict()
    exported = ExportedHead(
        head_id=head_id(head),
        config=described,
        base=ExportedBase(
            model=MODEL,
            kwargs=KWARGS,
            weights=None,
            info=BaseFacts.of(info),
        ),
        data=DataSpec(dataset="digits", image_size=16),
        method=MethodSpec(name=changes.get("method", "mocov3"), kwargs={}),
        scores={"overhead": changes.get("overhead", 1.0)},
        provenance=Provenance(experiment="x", seed=0, space="tiny", space_hash="0", versions={}, trials=[]),
    )
    path.write_text(exported.to_yaml())
    return path


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_head(tmp_path_factory.mktemp("heads") / "head.yaml", {"convnext": {"depth": 1}})


def plan(head: Path, seeds: int, *overrides: str) -> ComparisonPlan:
    return make_plan([head], seeds=seeds, probes=["knn"], overrides=[*SHORT, *overrides])


def run(plan: ComparisonPlan, out: Path, *, resume: bool = False) -> Comparison:
    return compare(plan, out, resume=resume, display=lambda: pretrain_display(quiet=True))


@pytest.fixture(scope="module")
def finished(head: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared") / "out"
    run(plan(head, 1), out)
    return out


def test_one_command_trains_and_evaluates_with_and_without(finished: Path) -> None:
    found = json.loads((finished / "comparison.json").read_text())
    none, head = found["rows"]
    assert none["arm"] == "none"
    assert head["arm"].startswith("convnext")
    for row in (none, head):
        assert row["epochs"] == 1
        assert list(row["scores"]) == ["5-NN"]
        assert row["scores"]["5-NN"]["mean"] > 12, "chance is 10"
        assert row["seconds"] > 0
        assert (finished / row["arm"] / "seed-0" / "base.safetensors").is_file()
    assert head["scores"]["5-NN"]["gain"] == pytest.approx(
        head["scores"]["5-NN"]["mean"] - none["scores"]["5-NN"]["mean"]
    )
    assert "one seed shows no noise" in found["verdict"]
    assert found["verdict"] in (finished / "README.md").read_text()


def test_arms_differ_in_their_head_alone(finished: Path) -> None:
    none, head = (
        yaml.safe_load((folder / "seed-0" / "pretrain.yaml").read_text())
        for folder in sorted((p for p in finished.iterdir() if p.is_dir()), key=lambda p: p.name != "none")
    )
    assert none.pop("head") is None
    assert head.pop("head") is not None
    assert none.pop("head_id") == "none"
    head.pop("head_id")
    assert none == head


def test_a_resumed_comparison_does_not_repeat_what_is_done_and_may_have_more_seeds(
    head: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    real = module.pretrain

    def spy(spec: Any, *rest: Any, **options: Any) -> Any:
        trained.append((spec.head_id, spec.seed))
        return real(spec, *rest, **options)

    monkeypatch.setattr(module, "pretrain", spy)
    before = json.loads((finished / "comparison.json").read_text())
    assert [row.arm for row in run(plan(head, 1), finished, resume=True).rows] == [
        row["arm"] for row in before["rows"]
    ]
    assert trained == []
    more = run(plan(head, 2), finished, resume=True)
    assert [seed for _, seed in trained] == [1, 1]
    for row, old in zip(more.rows, before["rows"], strict=True):
        assert row.scores["5-NN"].by_seed[0] == old["scores"]["5-NN"]["by_seed"][0]
        assert len(row.scores["5-NN"].by_seed) == 2
    assert "2 seeds" in (finished / "README.md").read_text()


def test_a_comparison_that_was_cut_off_ends_like_an_undisturbed_one(
    head: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.evaluate

    def fall(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "evaluate", fall)
    with pytest.raises(KeyboardInterrupt):
        run(plan(head, 1), tmp_path / "out")
    monkeypatch.setattr(module, "evaluate", real)
    found = run(plan(head, 1), tmp_path / "out", resume=True)
    expected = json.loads((finished / "comparison.json").read_text())["rows"]
    assert [row.scores["5-NN"].by_seed[0] for row in found.rows] == [
        row["scores"]["5-NN"]["by_seed"][0] for row in expected
    ]


def test_another_comparison_is_not_mixed_in(head: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--resume"):
        run(plan(head, 1), finished)
    with pytest.raises(
        RunError,
        match=r"another recipe.weight_decay: 0.3, it has [0-9.]+ \(and another recipe.weight_decay_end\)",
    ):
        run(plan(head, 1, "recipe.weight_decay=0.3"), finished, resume=True)
    other = write_head(tmp_path / "other.yaml", {"mixer": {"depth": 1}})
    with pytest.raises(
        RunError, match=r"another arms: \['none', 'mixer-[^\]]+\], it has \['none', 'convnext-"
    ):
        run(plan(other, 1), finished, resume=True)
    with pytest.raises(RunError, match="nothing to resume"):
        run(plan(head, 1), tmp_path, resume=True)


def test_what_cannot_be_trained_leaves_nothing(head: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fewer than the 2000 of a batch"):
        run(plan(head, 1, "recipe.batch_size=2000"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_with_a_budget_of_time_heads_get_fewer_epochs(tmp_path: Path) -> None:
    file = write_head(tmp_path / "head.yaml", {"convnext": {"depth": 1}}, overhead=0.6)
    shared = make_plan([file], budget="time", overrides=["recipe.epochs=100", "recipe.warmup_epochs=10"])
    none, head = shared.arms.values()
    assert (none.recipe.epochs, head.recipe.epochs) == (100, 62)
    assert head.recipe.warmup_epochs == pytest.approx(6.2)


def test_what_a_described_head_takes_is_measured_and_holds_for_those_who_go_on(
    head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(*overrides: str) -> ComparisonPlan:
        heads = [head, {"convnext": {"depth": 3}}]
        return make_plan(heads, seeds=1, budget="time", probes=["knn"], overrides=[*SHORT, *overrides])

    class TrainingBegins(Exception):
        pass

    def begin(*_: Any, **__: Any) -> None:
        raise TrainingBegins

    def epochs() -> list[int]:
        with pytest.raises(TrainingBegins):
            run(timed("recipe.epochs=100"), out, resume=out.exists())
        arms = yaml.safe_load((out / "compare.yaml").read_text())["arms"]
        return [spec["recipe"]["epochs"] for spec in arms.values()]

    out = tmp_path / "out"
    monkeypatch.setattr(module, "pretrain", begin)
    none, known, measured = epochs()
    assert (none, known) == (100, 50)
    assert 5 < measured < 95, "three blocks more than none"
    monkeypatch.setattr(module, "step_overhead", begin)
    assert epochs() == [none, known, measured]
    with pytest.raises(RunError, match=r"another recipe.epochs"):
        run(timed("recipe.epochs=90"), out, resume=True)


def test_heads_that_cannot_be_compared_are_refused(head: Path, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="the same head"):
        make_plan([head, write_head(tmp_path / "again.yaml", {"convnext": {"depth": 1}})])
    with pytest.raises(ExperimentError, match="another method"):
        make_plan([head, write_head(tmp_path / "byol.yaml", {"vit": {"depth": 1}}, method="byol")])
    with pytest.raises(ExperimentError, match="did you mean 'knn'"):
        make_plan([head], probes=["kn"])
    with pytest.raises(ExperimentError, match="did you mean 'finetune'"):
        make_plan([head], overrides=["evaluate.finetun.epochs=1"])


def test_images_without_labels_are_met_before_the_training(head: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "flat").mkdir()
    for number in range(40):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / "flat" / f"{number}.png")
    unlabelled = make_plan(
        [head], data=str(tmp_path / "flat"), probes=["knn"], overrides=["recipe.batch_size=8"]
    )
    with pytest.raises(DataError, match="class folders"):
        run(unlabelled, tmp_path / "out")
    assert not (tmp_path / "out").exists()
