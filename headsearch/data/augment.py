"""Augmented views of a batch of images, on the batch's device, with random parameters for every image.

Crop, flip, resize and blur are one matrix per axis (`geometry`), the colour changes are one matrix and offset (`colour`), so a view is
three batched products. Order, as in BYOL: crop, flip, colour, grayscale, blur, clip, solarize, normalise. (Blur and colour
changes are linear and commute, except for the clipping. The mean that contrast refers to is taken after the blur.)

Bands are not colours and have no black or white. They are normalised first, then cropped, flipped and blurred. Then every band of every image gets its
own contrast and shift, in units of the band's standard deviation. So views depend neither on the unit of a band nor on its zero, and nothing is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headsearch.data.colour import colour_transforms
from headsearch.data.geometry import blur_kernel_size, blur_matrices, crop_boxes, resize_matrices
from headsearch.data.names import Channels
from headsearch.data.recipe import Augmentation, default_augmentation

__all__ = ["Augmentation", "Views", "default_augmentation"]


@dataclass(frozen=True)
class _Draw:
    """Random parameters of one view of a batch of B images."""

    boxes: Tensor
    """Crops: left, top, width, height as shares of the image [B, 4]."""
    flip: Tensor
    """Which images are mirrored, bool [B]."""
    factors: Tensor
    """Brightness, contrast, saturation (factors) and hue (turns) [B, 4]."""
    tones: Tensor
    """Contrast (factor) and shift of every band [B, 2, C]; for RGB C is 0."""
    blurred: Tensor
    """Which images are blurred, int64."""
    sigma: Tensor
    """Their standard deviations, in pixels."""
    solarized: Tensor
    """Which images are solarized, int64."""

    def rows(self, chosen: slice) -> _Draw:
        """The parameters of some images."""
        count = len(self.flip[chosen])
        blurred, solarized = self.blurred - chosen.start, self.solarized - chosen.start
        among = (blurred >= 0) & (blurred < count)
        return _Draw(
            boxes=self.boxes[chosen],
            flip=self.flip[chosen],
            factors=self.factors[chosen],
            tones=self.tones[chosen],
            blurred=blurred[among],
            sigma=self.sigma[among],
            solarized=solarized[(solarized >= 0) & (solarized < count)],
        )

    def to(self, device: torch.device) -> _Draw:
        """The same on a device."""
        return _Draw(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


class Views:
    """Makes the views of self-supervised training, and the plain images of evaluation.

    Args:
        augmentation: the recipe.
        image_size: side of the global views, in pixels.
        mean: of the channels, as `Dataset.mean`; likewise `std`.
        channels: `rgb`, or the number of bands.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        *,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        channels: Channels = "rgb",
    ) -> None:
        self.augmentation = augmentation
        self.channels = channels
        self.image_size = image_size
        self.mean = mean
        self.std = std

    @property
    def local_size(self) -> int:
        """Side of the local views, in pixels."""
        return self.augmentation.local_size or round(self.image_size * 3 / 7)

    @torch.no_grad()
    def __call__(
        self,
        images_BCHW: Tensor,
        generator: torch.Generator | None,
        device: torch.device | str,
        *,
        rows: slice | None = None,
        batch_size: int | None = None,
    ) -> list[Tensor]:
        """Views of images [B, C, H, W]: two of [B, C, image_size, image_size], then the local ones.

        The views depend only on the images and the generator's state. All randomness is drawn on the generator's device, so a CPU generator
        gives the same views on every device, up to rounding. If the images are only the `rows` of a batch of `batch_size`, they get the views
        that they would have in the whole batch.
        """
        device = torch.device(device)
        images = images_BCHW.to(device, non_blocking=True)
        recipe = self.augmentation
        plans = [
            (self.image_size, recipe.scale, blur, solarize)
            for blur, solarize in zip(recipe.blur, recipe.solarize, strict=True)
        ]
        plans += [(self.local_size, recipe.local_scale, recipe.local_blur, 0.0)] * recipe.local_crops
        count, rows = batch_size or len(images), rows or slice(0, len(images))
        with torch.autocast(device.type, enabled=False):
            if self.channels != "rgb":
                images = self._normalised(images)
            # [B, H, C, W]: then both resizing products are plain batched ones.
            pixels_BHCW = images.transpose(1, 2)
            pixels_BHCW = pixels_BHCW.to(torch.float32, memory_format=torch.contiguous_format).contiguous()
            return [
                self._view(
                    pixels_BHCW,
                    size,
                    self._draw(count, size, scale, blur, solarize, generator).rows(rows).to(device),
                )
                for size, scale, blur, solarize in plans
            ]

    def prepare(self, images_BCHW: Tensor) -> Tensor:
        """Images, cropped to their centre where they are larger than `image_size`, normalised float."""
        height, width = images_BCHW.shape[2:]
        top, left = (height - self.image_size) // 2, (width - self.image_size) // 2
        if top < 0 or left < 0:
            raise ValueError(
                f"images of {height}x{width} pixels are smaller than image_size {self.image_size}"
            )
        center = images_BCHW[:, :, top : top + self.image_size, left : left + self.image_size]
        if self.channels != "rgb":
            return self._normalised(center)
        gain, bias = self._normalisation(images_BCHW.device)
        return center.float() * gain[:, None, None] + bias[:, None, None]

    def _normalised(self, bands_BCHW: Tensor) -> Tensor:
        """Bands minus their mean, over their deviation; float."""
        mean, std = (
            torch.tensor(of, device=bands_BCHW.device)[:, None, None] for of in (self.mean, self.std)
        )
        return (bands_BCHW.float() - mean).div_(std)

    def _normalisation(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Gain and bias [3] that take values of 0 to 255 to normalised ones."""
        mean = torch.tensor(self.mean, device=device)
        std = torch.tensor(self.std, device=device)
        return 1 / (255 * std), -mean / std

    def _draw(
        self,
        count: int,
        size: int,
        scale: tuple[float, float],
        blur: float,
        solarize: float,
        generator: torch.Generator | None,
    ) -> _Draw:
        recipe = self.augmentation
        boxes = crop_boxes(count, scale, recipe.ratio, generator)
        flip, jitter, grey, blurring, sharpness, solarizing, *strengths = torch.rand(
            10, count, generator=generator, device=boxes.device
        )
        spread = torch.tensor(
            [recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue], device=boxes.device
        )
        unchanged = torch.tensor([1.0, 1.0, 1.0, 0.0], device=boxes.device)
        change = (2 * torch.stack(strengths, dim=1) - 1) * spread
        factors = unchanged + change * (jitter < recipe.jitter)[:, None]
        factors[:, 2] *= grey >= recipe.grayscale
        blurred = (blurring < (blur if blur_kernel_size(size) > 1 else 0.0)).nonzero().flatten()
        low, high = recipe.blur_sigma
        bands = 0 if self.channels == "rgb" else self.channels
        tones = torch.zeros(count, 2, bands, device=boxes.device)
        if bands:
            contrast, shift = 2 * torch.rand(2, count, bands, generator=generator, device=boxes.device) - 1
            change = torch.stack([recipe.contrast * contrast, recipe.brightness * shift], dim=1)
            tones = change * (jitter < recipe.jitter)[:, None, None] + torch.tensor(
                [[1.0], [0.0]], device=boxes.device
            )
        return _Draw(
            boxes=boxes,
            flip=flip < recipe.flip,
            factors=factors,
            tones=tones,
            blurred=blurred,
            sigma=low + (high - low) * sharpness[blurred],
            solarized=(solarizing < solarize).nonzero().flatten(),
        )

    def _view(self, pixels_BHCW: Tensor, size: int, draw: _Draw) -> Tensor:
        count, height, channels, width = pixels_BHCW.shape
        left, top, across, down = draw.boxes.unbind(dim=1)
        columns = resize_matrices(left * width, across * width, draw.flip, width, size)
        rows = resize_matrices(top * height, down * height, torch.zeros_like(draw.flip), height, size)
        if len(draw.blurred):
            blurs = blur_matrices(draw.sigma, size)
            columns[draw.blurred] = blurs @ columns[draw.blurred]
            rows[draw.blurred] = blurs @ rows[draw.blurred]
        view = torch.bmm(rows, pixels_BHCW.view(count, height, channels * width))
        view = torch.bmm(view.view(count, size * channels, width), columns.transpose(1, 2))
        view_BC = view.view(count, size, channels, size).transpose(1, 2).reshape(count, channels, size * size)
        if self.channels != "rgb":
            contrast, shift = draw.tones.unbind(dim=1)
            offset = (1 - contrast) * view_BC.mean(dim=2) + shift
            view_BC.mul_(contrast[:, :, None]).add_(offset[:, :, None])
            return view_BC.view(count, channels, size, size)

        matrix, offset = colour_transforms(draw.factors, view_BC.mean(dim=2) / 255)
        view_BC = torch.bmm(matrix / 255, view_BC).add_(offset[:, :, None]).clamp_(0, 1)
        if len(draw.solarized):
            drawn = view_BC[draw.solarized]
            view_BC[draw.solarized] = torch.where(
                drawn >= self.augmentation.solarize_threshold, 1 - drawn, drawn
            )
        gain, bias = self._normalisation(view.device)
        view_BC.mul_(255 * gain[:, None]).add_(bias[:, None])
        return view_BC.view(count, channels, size, size)
