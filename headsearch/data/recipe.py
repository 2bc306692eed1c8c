"""How strongly views are augmented, with defaults by data set. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headsearch.data.names import Channels

_GLYPHS = ("digits", "torch/mnist", "torch/kmnist", "torch/qmnist")
"""Written characters: a mirrored 3 is no 3."""


@dataclass(frozen=True)
class Augmentation:
    """The recipe of BYOL (arXiv 2006.07733, appendix B), MoCo v3 and DINO. A pair holds one value per global view."""

    scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest area of a random crop, as a share of the image."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Narrowest and widest crop: width over height before it is resized to a square."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.8
    """Probability that brightness, contrast, saturation and hue of an image are changed, all four together."""
    brightness: float = 0.4
    """The factor is drawn from 1 - brightness to 1 + brightness; likewise contrast and saturation. Every band has a contrast of its own, and
    instead of a brightness a shift of up to so many of its standard deviations."""
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    """Turns of the colour circle in either direction, 0 to 0.5."""
    grayscale: float = 0.2
    """Probability that an image loses its colour."""
    blur: tuple[float, float] = (1.0, 0.1)
    """Probability of a Gaussian blur; the kernel spans a tenth of the image, and below 3 pixels there is none."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the blur in pixels."""
    solarize: tuple[float, float] = (0.0, 0.2)
    """Probability that values above `solarize_threshold` are inverted."""
    solarize_threshold: float = 0.5
    """On a scale of 0 to 1."""
    local_crops: int = 0
    """Additional small views per image (multi-crop, arXiv 2006.09882)."""
    local_size: int | None = None
    """Side of a local view in pixels; None: 3/7 of the image's, which is 96 for 224."""
    local_scale: tuple[float, float] = (0.05, 0.25)
    """Smallest and largest area of a local crop."""
    local_blur: float = 0.5
    """Probability of a blur in a local view."""

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grayscale", "local_blur"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a probability, 0 to 1")
        for name in ("blur", "solarize"):
            pair = getattr(self, name)
            _require(all(0 <= value <= 1 for value in pair), name, pair, "two probabilities, 0 to 1")
        for name in ("scale", "local_scale"):
            low, high = getattr(self, name)
            _require(0 < low <= high <= 1, name, (low, high), "shares of the image, 0 < low <= high <= 1")
        for name in ("ratio", "blur_sigma"):
            low, high = getattr(self, name)
            _require(0 < low <= high, name, (low, high), "0 < low <= high")
        for name in ("brightness", "contrast", "saturation"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number, 0 to 1")
        _require(0 <= self.hue <= 0.5, "hue", self.hue, "turns, 0 to 0.5")
        _require(self.local_crops >= 0, "local_crops", self.local_crops, "0 or more")


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"augmentation {name}: got {value}, expected {expected}")


def check_bands(augmentation: Augmentation) -> None:
    """Raise `ValueError` for what is defined for colours alone, or for values with a largest one."""
    for name in ("saturation", "hue", "grayscale", "solarize"):
        value = getattr(augmentation, name)
        _require(
            not any(value) if isinstance(value, tuple) else not value, name, value, "0: bands are no colours"
        )


def default_augmentation(dataset: str, image_size: int, channels: Channels = "rgb") -> Augmentation:
    """The recipe a data set starts from.

    Written characters: no flip, no colour, no inversion. Images up to 64 pixels: SimCLR's recipe for CIFAR-10
    (arXiv 2002.05709, appendix B.9), which has no blur. Others: BYOL's, with the crops of MoCo v2 and v3 (at least a fifth
    of the image), since a short schedule gains nothing from crops that hardly overlap. Of these, bands have what does not need colours.
    """
    recipe = _for_colours(dataset, image_size)
    if channels == "rgb":
        return recipe
    return replace(recipe, saturation=0.0, hue=0.0, grayscale=0.0, solarize=(0.0, 0.0))


def _for_colours(dataset: str, image_size: int) -> Augmentation:
    if dataset in _GLYPHS:
        return Augmentation(
            scale=(0.3, 1.0),
            flip=0.0,
            saturation=0.0,
            hue=0.0,
            grayscale=0.0,
            blur=(0.0, 0.0),
            solarize=(0.0, 0.0),
        )
    if image_size <= 64:
        return Augmentation(saturation=0.4, blur=(0.0, 0.0), local_blur=0.0)
    return Augmentation()
