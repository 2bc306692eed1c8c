"""Views: exact where nothing is drawn, equal to torchvision where one thing is, random per image and repeatable."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from headsearch.data.augment import Augmentation, Views, default_augmentation

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
NOTHING = Augmentation(
    scale=(1.0, 1.0),
    ratio=(1.0, 1.0),
    flip=0.0,
    jitter=0.0,
    grayscale=0.0,
    blur=(0.0, 0.0),
    solarize=(0.0, 0.0),
)


def views(augmentation: Augmentation, image_size: int = 32) -> Views:
    return Views(augmentation, image_size=image_size, mean=MEAN, std=STD)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normalised(images: Tensor) -> Tensor:
    return tv.normalize(images.float() / 255, list(MEAN), list(STD))


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (16, 3, 32, 32), generator=generator(9), dtype=torch.uint8)


def test_an_identity_recipe_gives_the_normalised_images(images: Tensor) -> None:
    for view in views(NOTHING)(images, generator(), "cpu"):
        torch.testing.assert_close(view, normalised(images), atol=3e-6, rtol=0)


def test_prepare_takes_the_normalised_centre() -> None:
    images = torch.randint(0, 256, (3, 3, 37, 37), generator=generator(), dtype=torch.uint8)
    expected = normalised(tv.center_crop(images, [32, 32]))
    torch.testing.assert_close(views(NOTHING).prepare(images), expected, atol=1e-6, rtol=0)


def test_prepare_refuses_images_that_are_too_small() -> None:
    with pytest.raises(ValueError, match="smaller than image_size 32"):
        views(NOTHING).prepare(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_a_certain_flip_solarization_and_grayscale_agree_with_torchvision(images: Tensor) -> None:
    flipped, _ = views(replace(NOTHING, flip=1.0))(images, generator(), "cpu")
    torch.testing.assert_close(flipped, normalised(tv.horizontal_flip(images)), atol=3e-6, rtol=0)
    grey, _ = views(replace(NOTHING, grayscale=1.0))(images, generator(), "cpu")
    expected = tv.rgb_to_grayscale(images.float(), num_output_channels=3)
    torch.testing.assert_close(grey, normalised(expected), atol=3e-6, rtol=0)
    plain, inverted = views(replace(NOTHING, solarize=(0.0, 1.0)))(images, generator(), "cpu")
    torch.testing.assert_close(plain, normalised(images), atol=3e-6, rtol=0)
    torch.testing.assert_close(inverted, normalised(tv.solarize(images, 128)), atol=3e-6, rtol=0)


def test_a_certain_blur_agrees_with_torchvision(images: Tensor) -> None:
    blurred, sharp = views(replace(NOTHING, blur=(1.0, 0.0), blur_sigma=(1.0, 1.0)))(
        images, generator(), "cpu"
    )
    expected = tv.gaussian_blur(images.float(), [3, 3], [1.0, 1.0])
    torch.testing.assert_close(blurred, normalised(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(sharp, normalised(images), atol=3e-6, rtol=0)


def test_values_are_clipped_to_what_pixels_can_be(images: Tensor) -> None:
    strong = replace(NOTHING, jitter=1.0, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5)
    low, high = normalised(torch.zeros(1, 3, 1, 1)), normalised(torch.full((1, 3, 1, 1), 255.0))
    for view in views(strong)(images, generator(), "cpu"):
        assert (view >= low).all()
        assert (view <= high).all()
        assert (view == low).any()
        assert (view == high).any()


def test_equal_images_in_a_batch_get_different_views(images: Tensor) -> None:
    same = images[:1].expand(16, -1, -1, -1)
    for view in views(Augmentation())(same, generator(), "cpu"):
        distance = torch.cdist(view.flatten(1), view.flatten(1)) + torch.eye(16)
        assert distance.min() > 0.5


def test_the_two_views_of_an_image_differ(images: Tensor) -> None:
    first, second = views(replace(Augmentation(), blur=(0.5, 0.5), solarize=(0.2, 0.2)))(
        images, generator(), "cpu"
    )
    assert (first - second).abs().flatten(1).mean(dim=1).min() > 0.01


def test_the_generator_alone_decides(images: Tensor) -> None:
    make = views(Augmentation(local_crops=2))
    source = generator(5)
    first, second = make(images, source, "cpu"), make(images, source, "cpu")
    torch.rand(3)
    again = make(images, generator(5), "cpu")
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0], second[0])


def test_local_crops_are_small_and_follow_the_global_views(images: Tensor) -> None:
    shapes = [tuple(view.shape) for view in views(Augmentation(local_crops=3))(images, generator(), "cpu")]
    assert shapes == [(16, 3, 32, 32)] * 2 + [(16, 3, 14, 14)] * 3
    assert views(Augmentation(), image_size=224).local_size == 96


def test_probabilities_are_met_per_image(images: Tensor) -> None:
    many = images[:1].expand(4000, -1, -1, -1)
    make = views(replace(NOTHING, flip=0.5, solarize=(0.0, 0.2)))
    first, second = make(many, generator(), "cpu")
    share_flipped = (first - normalised(many)).abs().flatten(1).amax(dim=1).gt(1e-3).float().mean()
    assert abs(share_flipped - 0.5) < 0.03
    straight, mirrored = normalised(images[:1]), normalised(images[:1]).flip(3)
    kept = torch.minimum(
        (second - straight).abs().flatten(1).amax(dim=1), (second - mirrored).abs().flatten(1).amax(dim=1)
    )
    assert abs(kept.gt(1e-3).float().mean() - 0.2) < 0.03


def test_autocast_does_not_reach_the_pixels(images: Tensor) -> None:
    make = views(Augmentation())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = make(images, generator(), "cpu")
    outside = make(images, generator(), "cpu")
    assert all(torch.equal(one, other) for one, other in zip(inside, outside, strict=True))


def test_written_characters_are_never_mirrored_or_inverted() -> None:
    for name in ("digits", "torch/mnist"):
        recipe = default_augmentation(name, 16)
        assert recipe.flip == 0
        assert recipe.solarize == (0, 0)
    assert default_augmentation("folder", 32).blur == (0, 0)
    assert default_augmentation("folder", 224).blur == (1.0, 0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": (0.5, 0.2)},
        {"scale": (0.0, 1.0)},
        {"flip": 1.5},
        {"hue": 0.6},
        {"ratio": (2.0, 1.0)},
        {"blur": (0.0, 2.0)},
        {"brightness": -0.1},
        {"local_crops": -1},
    ],
)
def test_a_recipe_out_of_bounds_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"augmentation {next(iter(wrong))}: got"):
        Augmentation(**wrong)  # type: ignore[arg-type]
