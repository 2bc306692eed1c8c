"""torchvision's ResNet-18 as a base, with a stem for small images.

headsearch run --base torchvision_resnet.py:resnet18 --data digits --set data.image_size=32
"""

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


class SmallResNet(ResNet):
    """Its state has torchvision's names."""

    def __init__(self, layers=(2, 2, 2, 2), channels=3):
        super().__init__(BasicBlock, layers)
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.maxpool = nn.Identity()
        self.fc = nn.Identity()

    def map_and_embedding(self, images):
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.maxpool(x)))))
        return x, x.mean(dim=(2, 3))


def resnet18(**kwargs):
    return SmallResNet(**kwargs)
