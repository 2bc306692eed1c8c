"""A plug-in of headsearch: a data source of our own, images of thin and thick rings that are drawn when they are asked for.

    headsearch run --data rings --plugin rings_data.py --set data.image_size=32

A source of real images gives paths of files, or arrays, where this one draws.
"""

from __future__ import annotations

import numpy as np

from headsearch.data.collection import Collection
from headsearch.data.names import DataSource

CLASSES = ["thin", "thick"]


class Rings:
    """So many images. Any object with a length whose items are images will do: Pillow's, arrays, paths of files, or open files."""

    def __init__(self, count, seed):
        self.count = count
        self.seed = seed
        self.labels = [index % len(CLASSES) for index in range(count)]

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        # Drawn from its number alone, so that it is the same in every process.
        random = np.random.default_rng([self.seed, index])
        x, y = random.uniform(10, 22, size=2)
        rows, columns = np.mgrid[:32, :32]
        distance = np.abs(np.hypot(columns - x, rows - y) - random.uniform(5, 9))
        width = 1.5 if self.labels[index] == 0 else 3.5
        image = random.integers(0, 80, size=(32, 32, 3)) + 150 * (distance < width)[..., None]
        return image.astype(np.uint8)


def open_rings(request):
    """The data set: training images, held-out images, and the classes. `request` says what may be read (`headsearch.data.collection.Request`)."""
    train, test = Rings(640, seed=0), Rings(160, seed=1)
    return Collection(
        train=request.part(train, train.labels, "rings train"),
        held_out=request.part(test, test.labels, "rings test"),
        classes=CLASSES,
    )


PLUGINS = [DataSource("rings", open_rings)]
