"""A torchvision ResNet, a family of heads of one's own, and images of five channels."""

from pathlib import Path

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

import headsearch
from headsearch.heads import COMMON_PARAMETERS, Family


class FiveChannels(ResNet):
    def __init__(self):
        super().__init__(BasicBlock, [1, 1, 1, 1])
        self.conv1 = nn.Conv2d(5, 64, 3, padding=1, bias=False)

    def map_and_embedding(self, images):
        x = nn.Sequential(*list(self.children())[:-2])(images)  # all but pooling and classifier
        return x, x.mean(dim=(2, 3))


def circular(spec):
    return nn.Sequential(nn.Conv2d(spec.width, spec.width, 3, padding=1, padding_mode="circular"), nn.GELU())


PLUGINS = [Family("circular", "Convolutions on a torus.", COMMON_PARAMETERS, "BCHW", circular)]
SPACE = "space: headsearch/space@1\nhead: {one_of: [{circular: {depth: 1}}, {mixer: {depth: 1}}]}"

if __name__ == "__main__":
    Path("space.yaml").write_text(SPACE)
    run = headsearch.search(
        base=f"{__file__}:FiveChannels",
        data={"dataset": "npz", "root": "images.npz", "image_size": 32, "channels": 5},
        plugins=[__file__],
        space="space.yaml",
        method="simclr",
        proxy={"epochs": 1, "batch_size": 16},
        search={"strategy": "proxies", "trials": 2, "finalists": 0, "controls": ["none"]},
    )
    print(run.table())
