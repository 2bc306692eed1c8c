"""HSSL in a LightningModule: a ResNet of torchvision learns by SimCLR, together with a head of transformer blocks.

Run:  python examples/loops/lightning_module.py
"""

import pytorch_lightning as pl
import torch
from digits import digit_views
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models import resnet18

import headsearch


class HSSLSimCLR(pl.LightningModule):
    """SimCLR with a teacher and a head."""

    def __init__(self) -> None:
        super().__init__()
        # The last map is all that the head needs; the embedding is its mean.
        self.backbone = nn.Sequential(*list(resnet18().children())[:-2])
        self.pair = headsearch.HSSLPair(
            {"vit": {"depth": 1, "first_shortcut": False}},
            lambda width: SimCLRProjectionHead(width, 128, 32),
            map_shape=(512, 1, 1),
            student=self.backbone,
        )
        self.criterion = NTXentLoss(temperature=0.5)
        self.losses: list[float] = []

    def training_step(self, views: list[Tensor], batch_idx: int) -> Tensor:
        images = torch.cat(views)
        maps = self.backbone(images)
        with torch.no_grad():
            slow = self.pair.teacher.base(images)
        projections = self.pair(
            *([(view, view.mean(dim=(2, 3))) for view in each.chunk(len(views))] for each in (maps, slow))
        )
        terms = projections.terms(self.criterion)
        self.log_dict({"base": terms.base, "head": terms.head})
        self.losses.append(terms.loss.item())
        return terms.loss

    def on_train_batch_end(self, *_: object) -> None:
        self.pair.update_teacher(momentum=0.99)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.pair.student.parameters(), lr=1e-3)


def train(steps: int) -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    module = HSSLSimCLR()
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(list(digit_views(steps)), batch_size=None))
    return module.backbone, module.losses


if __name__ == "__main__":
    backbone, losses = train(steps=100)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    torch.save(backbone.state_dict(), "backbone.pt")
