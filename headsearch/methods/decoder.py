"""What predicts hidden positions from the others: a small transformer over a whole map, for methods that leave positions out.

Shapes: B images, N = H × W positions, C channels.
"""

from __future__ import annotations

from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from torch import Tensor, nn

_HEAD_DIM = 32
"""Features of an attention head, as in MAE and I-JEPA."""


def decoder_dim(most: int) -> int:
    """The largest width up to `most` that attention heads and position embeddings divide."""
    return max(4, most - most % (_HEAD_DIM if most >= _HEAD_DIM else 4))


class Decoder(nn.Module):
    """A linear layer, fixed sine-cosine positions, transformer blocks, a norm and a linear layer. The grid is square."""

    def __init__(self, width: int, positions: int, *, dim: int, depth: int, outputs: int) -> None:
        """From `width` features at `positions` positions, over `depth` blocks of `dim` features, to `outputs` numbers at each."""
        super().__init__()
        heads = next(count for count in range(max(1, dim // _HEAD_DIM), 0, -1) if dim % count == 0)
        self.embed = nn.Linear(width, dim)
        self.transformer = MaskedVisionTransformerDecoderTIMM(
            num_patches=positions, embed_dim=dim, depth=depth, num_heads=heads, num_prefix_tokens=0
        )
        # What stands for a hidden position is in the map already.
        self.transformer.register_parameter("mask_token", None)
        self.predict = nn.Linear(dim, outputs)

    def forward(self, map_BNC: Tensor) -> Tensor:
        """Predictions at every position, (B, N, outputs)."""
        x_BND = self.transformer.add_pos_embed(self.embed(map_BNC))
        predicted_BNO: Tensor = self.predict(self.transformer.decode(x_BND))
        return predicted_BNO
