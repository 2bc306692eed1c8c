"""What every self-supervised method must do. A new method is done when `check_method` passes.

>>> check_method("byol", folder)        # doctest: +SKIP
"""

from __future__ import annotations

import math
from pathlib import Path

from headsearch.heads import parse_head
from headsearch.methods import METHODS, build_method
from headsearch.methods import check_method as check_options


def check_method(name: str, folder: Path) -> None:
    """Raises an `AssertionError` that names what the method does wrong. Writes trainings of a few seconds into `folder`."""
    entry = METHODS[name]
    entry.check()
    assert check_options(name, {}) == entry.options(), f"{name}: an option has no default"
    _check_recipe(name)
    _check_loss(name)
    _check_training(name, folder)


def _check_recipe(name: str) -> None:
    recipe = METHODS[name].recipe
    assert recipe.learning_rate > 0, f"{name}: a learning rate of {recipe.learning_rate}"
    assert min(recipe.weight_decay, recipe.weight_decay_end, recipe.clip_gradient) >= 0, f"{name}: {recipe}"
    assert 0 <= recipe.teacher_momentum < 1, f"{name}: a teacher's momentum of {recipe.teacher_momentum}"


def _check_loss(name: str) -> None:
    """Projectors of any input agree in their output; the loss is a number in float32 whose gradient reaches all that is trained."""
    import torch

    torch.manual_seed(0)
    method = build_method(name, width=24)
    if method.compares_tokens:
        # Its projectors take features of positions; the trainings below show what it does.
        return
    student, teacher = (method.projector(features).train() for features in (24, 40))
    predictor = method.predictor()
    method.begin_step(0.5, 10)
    outputs = [teacher(torch.randn(16, 40)).detach() for _ in range(2)]
    targets = method.targets(outputs)
    assert len(targets) == len(outputs), f"{name}: {len(targets)} targets for {len(outputs)} views"
    projected = student(torch.randn(16, 24))
    assert projected.shape == outputs[0].shape, f"{name}: projectors of two inputs end in different sizes"
    loss = method.loss(projected if predictor is None else predictor(projected), targets[0])
    assert loss.ndim == 0, f"{name}: a loss of shape {tuple(loss.shape)}, expected a scalar"
    assert loss.dtype == torch.float32, f"{name}: a loss in {loss.dtype}, expected float32"
    torch.autograd.backward(loss)
    for part, module in (("projector", student), ("predictor", predictor)):
        trained = [] if module is None else [weight for weight in module.parameters() if weight.requires_grad]
        assert all(weight.grad is not None for weight in trained), f"{name}: no gradient reaches its {part}"
    state = method.state_dict()
    build_method(name, width=24).load_state_dict(state)


def _check_training(name: str, folder: Path) -> None:
    """It trains heads one by one, jointly, and in a pretraining, and its losses stay finite."""
    from headsearch.pretrain import pretrain
    from headsearch.testing.pretraining import small_spec
    from headsearch.testing.tiny import Context, tiny_experiment, training, write_two_colours
    from headsearch.training.evaluator import Evaluator

    heads = [
        parse_head(head) for head in ({"convnext": {"depth": 1, "kernel_size": 3}}, {"mixer": {"depth": 1}})
    ]
    images = write_two_colours(folder / "images.npz")
    evaluate = Evaluator(tiny_experiment(images, method={"name": name}))
    for stage, chosen in (("proxy", heads[:1]), ("screen", heads)):
        found = evaluate(training(folder / stage, *chosen, stage=stage), Context())  # type: ignore[arg-type]
        assert len(found.trials) == len(chosen), f"{name}: {len(found.trials)} results of a {stage}"
        losses = [rung.loss for trial in found.trials for rung in trial.rungs]
        assert all(map(math.isfinite, losses)), f"{name}: losses of a {stage} are {losses}"
    result = pretrain(small_spec(images, method=name), folder / "pretrained")
    assert math.isfinite(result.loss), f"{name}: the loss of a pretraining is {result.loss}"
