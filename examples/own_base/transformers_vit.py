"""A ViT of Hugging Face's transformers as a base, made from a config: nothing is downloaded.

headsearch run --base transformers_vit.py:vit --data digits --set data.image_size=32
"""

from transformers import ViTConfig, ViTModel


class ViT(ViTModel):
    """Its state has the names of `ViTModel`."""

    def map_and_embedding(self, images):
        # The last hidden state before the final norm, whose first token is the class token.
        tokens = self(images, output_hidden_states=True).hidden_states[-1]
        side = self.config.image_size // self.config.patch_size
        map_BCHW = tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        return map_BCHW, self.layernorm(tokens)[:, 0]


def vit(image_size=32, patch_size=4, hidden_size=64, num_hidden_layers=4, num_attention_heads=2):
    return ViT(
        ViTConfig(
            image_size=image_size,
            patch_size=patch_size,
            hidden_size=hidden_size,
            intermediate_size=4 * hidden_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=num_attention_heads,
        ),
        add_pooling_layer=False,
    )
