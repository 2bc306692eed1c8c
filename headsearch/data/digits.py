"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels that come with the package, for trying everything in seconds."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from headsearch.data.collection import Collection, Request

_HELD_OUT = int(
    "7a2452142048042d4279064509304000b290190e0cb04908082800341001c08b8001541800548380e0451254c020c223"
    "18080099741042950c1818180d25604a05881ba5b1891009680823430dc5724a81a3e0044e60809048d0878b00004813"
    "09080488101e0a1e400ac4002055ad10d3015016888102621010d28354240840a0d420a48f0c2b4a2188001386000014"
    "61bdc830840042420f07031d4841218744464c44889c04126226180450135308a8a5800610044d002016000248841d10"
    "40401002639d0164218522041921c0e10a176268081069c44520018b02d188a00",
    16,
)
"""Bit i is set if image i is held out: 517 of 1,797, in proportion from every class. Written down rather than drawn, so that the split is the same
everywhere and needs no labels."""


def digits(request: Request) -> Collection:
    """1,280 training and 517 held-out digits, grey values 0 to 255."""
    data = load_digits()
    held_out = np.array([_HELD_OUT >> index & 1 for index in range(len(data.images))], dtype=bool)
    images = (data.images * (255 / 16)).round().astype(np.uint8)
    return Collection(
        train=request.part(images[~held_out], data.target[~held_out], "digits train"),
        held_out=request.part(images[held_out], data.target[held_out], "digits held out"),
        classes=[str(name) for name in data.target_names] if request.labels else None,
    )
