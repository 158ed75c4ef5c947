"""The paper's counter-experiment (section 3.4): attention only, 28.2 % top-1 after 100 epochs.

Against a vision transformer, the feed-forward layer over the channels is replaced by attention over
them: the D channels are the sequence and the N tokens their features, with one head as N = 197 is
prime. The author never released this code; 4,039,360 parameters agree with the paper's "4.0M", and
the order of the two layers is the vision transformer's.

Legend: B batch, N tokens, D embed_dim, H = W pixels, K classes. Activations are batch-first here.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from ffvit.errors import ConfigError
from ffvit.models.embedding import (
    INIT_STD,
    PatchEmbedding,
    PositionEncoding,
    canonical_grid_size,
    patches_per_side,
)
from ffvit.models.feedforward import (
    NORM_EPS,
    classifier_head,
    init_linear,
    linear_drop_path_rates,
    timm_config,
)

TOKEN_HEADS = 3


class Attention(nn.Module):
    """Multi-head self-attention over a sequence of any length: (B, L, C) to (B, L, C)."""

    def __init__(self, width: int, num_heads: int, drop_rate: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, sequence: Tensor) -> Tensor:
        """Attend; dropout acts on the output only, as in DeiT."""
        heads = self.qkv(sequence).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        mixed: Tensor = self.drop(self.proj(attended.transpose(1, 2).flatten(2)))
        return mixed


class AttentionOnlyBlock(nn.Module):
    """Attention over the tokens, then over the channels, each before a residual connection."""

    def __init__(
        self, num_tokens: int, embed_dim: int, *, drop_rate: float, drop_path_rate: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.token_attention = Attention(embed_dim, TOKEN_HEADS, drop_rate)
        self.norm2 = nn.LayerNorm(num_tokens, eps=NORM_EPS)
        self.channel_attention = Attention(num_tokens, 1, drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        tokens = tokens + self.drop_path(self.token_attention(self.norm1(tokens)))
        channels: Tensor = self.drop_path(self.channel_attention(self.norm2(tokens.mT)))
        return tokens + channels.mT


class AttentionOnlyViT(nn.Module):
    """A vision transformer of attention layers only; it takes images of one size.

    Args:
        image_size: Side of the images, pixels; a multiple of `patch_size`.
        patch_size: Side of a patch, pixels.
        in_chans: Channels of the images.
        num_classes: K.
        embed_dim: D, a multiple of the 3 heads.
        depth: Number of blocks.
        drop_rate: Dropout behind the position encoding and each attention.
        drop_path_rate: Stochastic depth of the last block; linear from 0 in the first.

    Raises:
        ConfigError: An option out of range.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 192,
        depth: int = 12,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if embed_dim % TOKEN_HEADS:
            raise ConfigError(
                f"model.embed_dim={embed_dim} is not a multiple of {TOKEN_HEADS}, the number of"
                " attention heads; change it."
            )
        self.grid_size = canonical_grid_size(image_size, patch_size)
        self.image_size = image_size
        self.patch_size = patch_size
        self.num_classes = num_classes
        self.num_features = self.embed_dim = embed_dim
        self.patch_embed = PatchEmbedding(patch_size, in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_encoding = PositionEncoding(self.grid_size, embed_dim)
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = nn.ModuleList(
            AttentionOnlyBlock(
                1 + self.grid_size**2, embed_dim, drop_rate=drop_rate, drop_path_rate=rate
            )
            for rate in linear_drop_path_rates(drop_path_rate, depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.head = classifier_head(embed_dim, num_classes)
        nn.init.trunc_normal_(self.cls_token, std=INIT_STD)
        self.apply(init_linear)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, H), H = image_size, to logits (B, K)."""
        if patches_per_side(images, self.patch_size) != self.grid_size:
            raise ValueError(
                f"expected images of {self.image_size} pixels, got {images.shape[-1]}: attention"
                " over the channels is tied to the number of tokens."
            )
        patches = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(1, images.shape[0], -1), patches])
        tokens = self.pos_drop(tokens + self.pos_encoding(self.grid_size)).transpose(0, 1)
        for block in self.blocks:
            tokens = block(tokens)
        logits: Tensor = self.head(self.norm(tokens[:, 0]))
        return logits

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that are never decayed besides norms and biases."""
        return {"cls_token", "pos_encoding.pos_embed", "pos_encoding.cls_pos_embed"}


default_cfgs = generate_default_cfgs({"ff_tiny_attention_only_patch16_224": timm_config()})


@register_model
def ff_tiny_attention_only_patch16_224(
    pretrained: bool = False, **options: Any
) -> AttentionOnlyViT:
    """The paper's tiny attention-only model: 4,039,360 parameters; no weights exist."""
    model: AttentionOnlyViT = build_model_with_cfg(
        AttentionOnlyViT, "ff_tiny_attention_only_patch16_224", pretrained, **options
    )
    return model
