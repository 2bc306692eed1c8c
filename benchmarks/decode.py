"""How fast photographs are read: from a JPEG file to the canvas that views are cut from, on one core.

    python benchmarks/decode.py [--images 200] [--rounds 7] [--canvas 256] [--base vit_small_patch16_224] [--device cpu] [--cores 16] [--quick] [--json]

The files are JPEGs of ImageNet's size (500x375 pixels, about 90 kB), cut from the two photographs that come with scikit-learn, always the same ones. All
contenders read the same files, and make of each the centre square of 256x256 pixels by an antialiased bilinear filter (timm's loader: its own transform of evaluation at
that size). They take turns; figures are medians over rounds, and ratios are taken within a round. What headsearch is without simplejpeg, its extra `jpeg`, is measured too.

The last line sets against each other what training takes and what decoding gives: images a second of a training step of `--base` on `--device`, and images a second of so many
cores. Where the first is larger, the accelerator waits for images unless they come from a cache.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import limit
import numpy as np
import simplejpeg
import timm.data
import torch
from PIL import Image
from PIL.Image import Resampling
from sklearn.datasets import load_sample_image
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_image

from headsearch.data.cache import Cached
from headsearch.data.sets import StreamedImages
from headsearch.data.sources import FileSource

SIZE = (500, 375)
Contender = Callable[[], object]
"""Reads all files once."""


def photographs(folder: Path, count: int) -> list[str]:
    """Write the files below `folder`; their names."""
    originals = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    random = np.random.default_rng(0)
    names = []
    for number in range(count):
        original = originals[number % 2]
        width = SIZE[0] * random.uniform(1.0, 1.12)
        height = width * SIZE[1] / SIZE[0]
        left, top = random.uniform(0, (original.width - width, original.height - height))
        photo = original.resize(SIZE, Resampling.BICUBIC, box=(left, top, left + width, top + height))
        if random.random() < 0.5:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        names.append(f"{number % 10}/{number:04}.jpg")
        path = folder / names[-1]
        path.parent.mkdir(exist_ok=True)
        photo.save(path, quality=95)
    return names


def contenders(folder: Path, names: Sequence[str], canvas: int, cache: Path) -> dict[str, Contender]:
    """Ways from the files to their canvases, ours first."""
    source = FileSource(folder, names)
    rows = list(range(len(names)))
    cached = Cached(source, canvas, cache)
    batches = [torch.tensor(rows[start : start + 50]) for start in range(0, len(rows), 50)]

    def each(read: Callable[[bytes], object]) -> Contender:
        return lambda: [read((folder / name).read_bytes()) for name in names]

    def centre(pixels_HWC: torch.Tensor) -> torch.Tensor:
        height, width, _ = pixels_HWC.shape
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return pixels_HWC[top : top + side, left : left + side]

    def shrunk(pixels_HWC: torch.Tensor) -> torch.Tensor:
        # Strides by which torch knows channels-last, as we have them: the fastest that these packages can do.
        square = centre(pixels_HWC)[None].permute(0, 3, 1, 2)
        return interpolate(square, size=(canvas, canvas), mode="bilinear", antialias=True)

    def pillow(content: bytes) -> object:
        with Image.open(io.BytesIO(content)) as file:
            file.draft("RGB", (canvas, canvas))
            image = file.convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((canvas, canvas), Resampling.BILINEAR, box=box))

    def torchvision(content: bytes) -> object:
        encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return shrunk(decode_image(encoded, ImageReadMode.RGB).permute(1, 2, 0))

    transform = timm.data.create_transform(
        (3, canvas, canvas), is_training=False, interpolation="bilinear", crop_pct=1.0
    )
    timm_set = timm.data.create_dataset("", root=folder, transform=transform)

    ways: dict[str, Contender] = {
        "headsearch": lambda: [source.read(row, canvas) for row in rows],
        "headsearch, batches of a stream": lambda: list(
            StreamedImages(source, rows, canvas, workers=0).read(batches)
        ),
        "headsearch, batches from a cache": lambda: list(
            StreamedImages(cached, rows, canvas, workers=0).read(batches)
        ),
        "Pillow with draft": each(pillow),
        "torchvision decode_image": each(torchvision),
        "DataLoader with timm's reader": lambda: list(torch.utils.data.DataLoader(timm_set, batch_size=50)),
    }

    def simple(content: bytes) -> object:
        return shrunk(torch.from_numpy(simplejpeg.decode_jpeg(content, strict=True)))

    def simple_as_usual(content: bytes) -> object:
        square = centre(torch.from_numpy(simplejpeg.decode_jpeg(content, strict=True))).permute(2, 0, 1)[None]
        return interpolate(square, size=(canvas, canvas), mode="bilinear", antialias=True)

    def without_simplejpeg() -> object:
        with patch("headsearch.data.decode.simplejpeg", None):
            return ways["headsearch"]()

    return ways | {
        "simplejpeg": each(simple),
        "simplejpeg, strides as usual": each(simple_as_usual),
        "headsearch without simplejpeg": without_simplejpeg,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Images a second of all contenders and, within a round, over the fastest that is not ours."""
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        folder.mkdir()
        names = photographs(folder, options.images)
        size = statistics.mean((folder / name).stat().st_size for name in names)
        ways = contenders(folder, names, options.canvas, Path(temporary) / "cache")
        for work in ways.values():
            work()
        for turn in range(options.rounds):
            for name in sorted(ways, reverse=bool(turn % 2)):
                begun = time.process_time()
                ways[name]()
                rates.setdefault(name, []).append(len(names) / (time.process_time() - begun))
    others = [name for name in ways if not name.startswith("headsearch")]
    fastest = max(others, key=lambda name: statistics.median(rates[name]))
    return {
        "canvas": options.canvas,
        "images": options.images,
        "bytes": round(size),
        "fastest": fastest,
        "contenders": {
            name: {
                "images_per_second": round(statistics.median(rates[name]), 1),
                "of_the_fastest": round(
                    statistics.median(a / b for a, b in zip(rates[name], rates[fastest], strict=True)), 3
                ),
            }
            for name in ways
        },
    }


def wanted(options: argparse.Namespace) -> float:
    """Images a second of a training step without a head, which is the fastest one."""
    step = argparse.Namespace(batch_size=options.batch_size, device=options.device, compile=False, rounds=2)
    rate: float = limit.measure(options.base, None, step)["images_per_second"]
    return rate


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--canvas", type=int, default=256, help="pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--base", default="vit_small_patch16_224", help="timm model of the training step")
    parser.add_argument("--device", default="cpu", help="of the training step")
    parser.add_argument("--batch-size", type=int, default=4, help="of the training step")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="that decode")
    parser.add_argument("--quick", action="store_true", help="two rounds of 20 images")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.images = 2, 20
    torch.set_num_threads(1)
    found = measure(options)
    needed = wanted(options)
    found |= {"base": options.base, "device": options.device, "step_images_per_second": needed}
    if options.json:
        print(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("contender", "images/s and core", f"of {found['fastest']}", box=None)
    for name, row in found["contenders"].items():
        table.add_row(name, f"{row['images_per_second']:,.0f}", f"{row['of_the_fastest']:.2f}")
    console = Console(width=100)
    console.print(table)
    decoded, cached = (
        options.cores * found["contenders"][f"headsearch, batches {kind}"]["images_per_second"]
        for kind in ("of a stream", "from a cache")
    )
    console.print(
        f"a step of {options.base} on {options.device} takes {needed:,.1f} images/s; {options.cores} cores decode {decoded:,.0f} and read "
        f"{cached:,.0f} from a cache: {'images are there in time' if decoded > needed else 'the step waits for images without a cache'}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
