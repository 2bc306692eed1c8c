"""A whole pretraining: what it leaves, that timm loads it, and the mistakes it refuses before the first step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from headsearch.errors import DataError, ExperimentError, HeadError, RunError, UserError
from headsearch.export import load_head
from headsearch.pretrain import PretrainResult, PretrainSpec, pretrain
from headsearch.pretrain.result import TrainingFailed
from headsearch.testing.pretraining import SMALL_VIT, small_export, small_spec
from headsearch.training.trainer import Trainer


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(
    images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PretrainSpec, PretrainResult]:
    """One pretraining with a head, labels and probes."""
    out = tmp_path_factory.mktemp("pretrained") / "out"
    spec = small_spec(images, "data.labels=probe", "recipe.probe_every=2")
    return out, spec, pretrain(spec, out)


def test_plain_timm_loads_the_base_strictly(finished: tuple[Path, PretrainSpec, PretrainResult]) -> None:
    out, _, result = finished
    model = timm.create_model(
        "vit_tiny_patch16_224", checkpoint_path=str(result.weights), num_classes=0, img_size=16, **SMALL_VIT
    )
    trained = load_file(out / "base.safetensors")
    assert model.state_dict().keys() == trained.keys()
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    fresh = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=16, **SMALL_VIT)
    assert not any(
        torch.equal(fresh.state_dict()[name], trained[name]) for name in trained if "qkv.weight" in name
    )


def test_the_card_tells_how_to_load_the_weights(
    finished: tuple[Path, PretrainSpec, PretrainResult], tmp_path: Path
) -> None:
    out, _, result = finished
    card = (out / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("base.safetensors", str(result.weights))
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["model"](torch.zeros(1, 3, 16, 16)).shape == (1, 16)
    assert f"{result.knn:.2f} %" in card
    assert "96 of `images.npz` (npz) at 16 pixels" in card


def test_the_heads_weights_fit_the_head_of_the_head_file(
    finished: tuple[Path, PretrainSpec, PretrainResult], tmp_path: Path
) -> None:
    (tmp_path / "head.yaml").write_text(small_export().to_yaml())
    head = load_head(tmp_path / "head.yaml")
    result = finished[2]
    assert result.head_weights is not None
    head.load_state_dict(load_file(result.head_weights))


def test_the_spec_is_written_as_resolved(finished: tuple[Path, PretrainSpec, PretrainResult]) -> None:
    out, spec, _ = finished
    assert PretrainSpec.read(out / "pretrain.yaml") == spec
    assert spec.seed == 3, "the search's own, so that the same images are held out"
    steps = [path.name.partition("-")[0] for path in sorted((out / "checkpoints").iterdir())]
    assert steps == ["000000006", "000000009"]


def test_metrics_are_written_for_people_and_for_tensorboard(
    finished: tuple[Path, PretrainSpec, PretrainResult],
) -> None:
    out, spec, result = finished
    records = lines(out)
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert [record.get("knn") is not None for record in records] == [False, True, True]
    assert records[-1]["knn"] == result.knn
    assert records[-1]["loss"] == result.loss
    assert records[-1]["weight_decay"] == spec.recipe.weight_decay
    accumulator = EventAccumulator(str(out / "tensorboard"))
    accumulator.Reload()
    shown = [(event.step, event.value) for event in accumulator.Scalars("epoch_loss")]
    assert shown == [
        (2, pytest.approx(records[0]["loss"])),
        (5, pytest.approx(records[1]["loss"])),
        (8, pytest.approx(result.loss)),
    ]


def test_the_control_differs_in_the_head_alone(images: Path, tmp_path: Path) -> None:
    with_head, control = small_spec(images), small_spec(images, without_head=True)
    changed = {key for key, value in control.model_dump().items() if value != with_head.model_dump()[key]}
    assert changed == {"head", "head_id"}
    result = pretrain(control, tmp_path / "out")
    assert result.head_weights is None
    assert not (tmp_path / "out" / "head.safetensors").exists()


def test_the_teachers_weights_are_written_when_asked_for(images: Path, tmp_path: Path) -> None:
    weights = {}
    for whose in ("student", "teacher"):
        pretrain(small_spec(images, f"recipe.export={whose}"), tmp_path / whose)
        weights[whose] = load_file(tmp_path / whose / "base.safetensors")
    assert any(not torch.equal(value, weights["teacher"][name]) for name, value in weights["student"].items())


def test_the_global_random_state_is_left_as_it_was(images: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    pretrain(small_spec(images, "recipe.epochs=1"), tmp_path / "out")
    assert torch.equal(torch.rand(1), expected)


def test_a_step_in_parts_is_the_whole_step_where_images_do_not_meet(images: Path, tmp_path: Path) -> None:
    # DINO compares every image with itself alone and has no batch norm; its centre is kept still.
    still = "method.kwargs={center_momentum: 0.999999}"
    losses = []
    for parts in (1, 4):
        spec = small_spec(
            images, still, f"recipe.accumulate={parts}", "recipe.precision=float32", method="dino"
        )
        pretrain(spec, tmp_path / str(parts))
        losses.append([record["loss"] for record in lines(tmp_path / str(parts))])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_weight_decay_follows_its_cosine(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    unpatched = Trainer.step_in_parts

    def step(trainer: Trainer, *arguments: Any) -> Any:
        loss = unpatched(trainer, *arguments)
        seen.append([group["weight_decay"] for group in trainer.optimizer.param_groups])
        return loss

    monkeypatch.setattr(Trainer, "step_in_parts", step)
    pretrain(small_spec(images, method="dino"), tmp_path / "out")
    expected = [0.4 - 0.36 * 0.5 * (1 + math.cos(math.pi * step / 9)) for step in range(9)]
    assert [first for first, _ in seen] == pytest.approx(expected)
    assert {second for _, second in seen} == {0.0}


def test_several_small_views_are_trained_on(images: Path, tmp_path: Path) -> None:
    crops = "data.augmentation={local_crops: 2, local_size: 8}"
    kwargs = {**SMALL_VIT, "dynamic_img_size": True}
    result = pretrain(small_spec(images, crops, method="dino", kwargs=kwargs), tmp_path / "out")
    assert result.loss > 0


def test_a_set_that_is_streamed_is_trained_on_like_one_in_memory(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import headsearch.training.materials as materials
    from headsearch.data.load import load_data

    pretrain(small_spec(images), tmp_path / "memory")
    monkeypatch.setattr(materials, "load_data", lambda *a, **k: load_data(*a, **k, memory_limit=0))
    pretrain(small_spec(images), tmp_path / "stream")
    # The mean and deviation of pixels are measured on other images when streaming: the same here, since there are few.
    assert [r["loss"] for r in lines(tmp_path / "memory")] == [r["loss"] for r in lines(tmp_path / "stream")]


def test_a_loss_that_is_not_finite_ends_the_training_and_leaves_no_such_checkpoint(
    images: Path, tmp_path: Path
) -> None:
    spec = small_spec(
        images, "recipe.learning_rate=1e30", "recipe.clip_gradient=0", "recipe.checkpoint_minutes=0"
    )
    with pytest.raises(TrainingFailed, match="not finite"):
        pretrain(spec, tmp_path / "out")
    for path in (tmp_path / "out" / "checkpoints").glob("*"):
        assert torch.isfinite(torch.tensor(torch.load(path, weights_only=True)["run"]["loss_sum"]))


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        (
            "recipe.batch_size=97",
            DataError,
            "96 images to train on, fewer than the 97 of a batch; expected more, or a smaller batch_size",
        ),
        ("recipe.accumulate=5", ExperimentError, "must divide batch_size"),
        ("recipe.epocs=5", ExperimentError, "did you mean 'epochs'"),
        ("recipe.device=cuda:99", ExperimentError, "recipe.device: 'cuda:99' is not here"),
        ("base.model=vit_small_patch16_224", HeadError, "was head.yaml edited"),
        ("base.kwargs.embed_dim=32", HeadError, "width is 16"),
        ("head={vit: {depth: 2}}", HeadError, "head_id says convnext"),
        ("method.name=moco", ExperimentError, "did you mean 'mocov3'"),
        ("base.weights=nowhere.pth", UserError, "nowhere.pth"),
        ("data.augmentation.local_crops=2", UserError, "images of 7x7"),
        ("data.root=nowhere", DataError, "nowhere"),
    ],
)
def test_mistakes_are_told_before_training_and_leave_nothing(
    images: Path, tmp_path: Path, override: str, error: type[UserError], message: str
) -> None:
    with pytest.raises(error) as caught:
        pretrain(small_spec(images, override), tmp_path / "out")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("head", "size"),
    [
        ({"convnext": {"depth": 1, "kernel_size": 3}}, 32),
        ({"vit": {"depth": 1}}, 8),
        ({"swin": {"depth": 2, "window": 4, "num_heads": 2}}, 32),
        ({"swin": {"depth": 2, "window": 4, "num_heads": 2}}, 8),
        ({"set": [{"convnext": {"depth": 1}}, {"vit": {"depth": 1}}]}, 32),
    ],
    ids=str,
)
def test_a_head_is_trained_at_another_image_size_where_its_family_allows(
    images: Path, tmp_path: Path, head: Any, size: int
) -> None:
    spec = small_spec(images, f"data.image_size={size}", "recipe.epochs=1", head=head)
    assert pretrain(spec, tmp_path / "out").loss > 0
    assert PretrainSpec.read(tmp_path / "out" / "pretrain.yaml").head_id == spec.head_id


@pytest.mark.parametrize("family", ["mixer", "resmlp", "gmlp"])
def test_a_head_that_is_tied_to_a_grid_is_refused_at_another_size(
    images: Path, tmp_path: Path, family: str
) -> None:
    for head in ({family: {"depth": 1}}, {"set": [{"convnext": {"depth": 1}}, {family: {"depth": 1}}]}):
        with pytest.raises(HeadError, match=r"whose grid is \(4, 4\), but .* has \(8, 8\)"):
            pretrain(small_spec(images, "data.image_size=32", head=head), tmp_path / "out")


def test_a_head_of_one_size_refuses_small_views(images: Path, tmp_path: Path) -> None:
    crops = "data.augmentation={local_crops: 2, local_size: 8}"
    spec = small_spec(
        images,
        crops,
        method="dino",
        kwargs={**SMALL_VIT, "dynamic_img_size": True},
        head={"mixer": {"depth": 1}},
    )
    with pytest.raises(HeadError, match="mixer head is tied to one size"):
        pretrain(spec, tmp_path / "out")


def test_weights_of_another_base_are_refused(images: Path, tmp_path: Path) -> None:
    other = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, img_size=16, **{**SMALL_VIT, "embed_dim": 32}
    )
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not fit"):
        pretrain(small_spec(images, f"base.weights={tmp_path / 'other.pth'}"), tmp_path / "out")


def test_a_folder_that_exists_is_not_written_into(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(RunError, match="add --resume"):
        pretrain(small_spec(images), tmp_path / "out")
    with pytest.raises(RunError, match="nothing to resume"):
        pretrain(small_spec(images), tmp_path / "out", resume=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_yaml_of_the_recipe_holds_numbers(images: Path) -> None:
    recipe = yaml.safe_load(small_spec(images, method="dino").to_yaml())["recipe"]
    assert recipe["learning_rate"] == pytest.approx(5e-4 * 32 / 256)
    assert (recipe["weight_decay"], recipe["weight_decay_end"]) == (0.04, 0.4)
    chosen = small_spec(images, "recipe.weight_decay=0.2", method="dino").recipe
    assert (chosen.weight_decay, chosen.weight_decay_end) == (0.2, 0.2)


def test_another_method_lets_go_of_the_options_of_the_former(images: Path) -> None:
    head = small_export()
    head = head.model_copy(update={"method": head.method.model_copy(update={"kwargs": {"temperature": 0.1}})})
    assert PretrainSpec.from_head(head, data=str(images)).method.kwargs == {"temperature": 0.1}
    assert PretrainSpec.from_head(head, data=str(images), overrides=["method.name=dino"]).method.kwargs == {}
