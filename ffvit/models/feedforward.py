"""Vision models of feed-forward layers only ("Do You Even Need Attention?", arXiv:2105.02723).

At the canonical resolution a model is the author's function, with his parameter names and order, so
that his checkpoints load strictly; `mlp1`, `norm1` (channels) and `mlp2`, `norm2` (tokens) are his
names. At any other multiple of the patch size the token mixing is resampled (elastic.py).
Activations are token-major: one permutation after the patch embedding, none later, and each linear
layer is one matrix product.

Legend: B batch, N tokens (class token first, then patches row by row), D embed_dim, H = W pixels,
K classes.
"""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from ffvit.errors import CheckpointError, ConfigError
from ffvit.models import author_checkpoints, elastic
from ffvit.models.embedding import (
    INIT_STD,
    PatchEmbedding,
    PositionEncoding,
    canonical_grid_size,
    patches_per_side,
)

NORM_EPS = 1e-6
MLP_EXPANSION = 4
# Values of 16 bits that make 16 bytes: rows of matrices that start on such a border load fastest.
ALIGNMENT = 8


class ChannelMixing(nn.Module):
    """The MLP over each token's channels: (N, B, D) to (N, B, D)."""

    def __init__(self, embed_dim: int, channel_mlp_dim: int, drop_rate: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, channel_mlp_dim)
        self.fc2 = nn.Linear(channel_mlp_dim, embed_dim)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix the channels of each token."""
        hidden = self.drop(F.gelu(self.fc1(tokens)))
        mixed: Tensor = self.drop(self.fc2(hidden))
        return mixed


class TokenMixing(nn.Module):
    """The MLP over each channel's tokens, LayerNorm over the tokens included.

    Args:
        num_tokens: N of the canonical grid.
        token_mlp_dim: Hidden width, the same at every grid.
        drop_rate: Dropout of the hidden layer and of the output.
        is_last: Compute the class token only; nothing reads the others after the last block.
    """

    def __init__(
        self, num_tokens: int, token_mlp_dim: int, drop_rate: float, *, is_last: bool = False
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(num_tokens, token_mlp_dim)
        self.fc2 = nn.Linear(token_mlp_dim, num_tokens)
        self.drop = nn.Dropout(drop_rate)
        self.is_last = is_last

    def forward(
        self, tokens: Tensor, norm: nn.LayerNorm, resampling: elastic.Resampling | None
    ) -> Tensor:
        """Normalise and mix (N, B, D) over N; returns (N, B, D), or (1, B, D) in the last block.

        `norm` comes from the block, beside which the author's checkpoints keep it.
        """
        num_tokens, batch_size, embed_dim = tokens.shape
        weights = elastic.prepare_token_mlp(self.fc1, self.fc2, norm, resampling)
        fc2_weight, fc2_bias = weights.fc2_weight, weights.fc2_bias
        if self.is_last:
            fc2_weight, fc2_bias = fc2_weight[:1], fc2_bias[:1]
        # 1 + g * g tokens are never a multiple of 8. A padding row of ones times fc1's bias as one
        # more column adds the bias, and spares its gradient a pass over the hidden layer.
        padding = 1 + padding_of(num_tokens + 1)
        fc1_weight = torch.cat([weights.fc1_weight, weights.fc1_bias[:, None]], dim=1)
        hidden_padding = padding_of(len(fc1_weight))
        fc1_weight = F.pad(fc1_weight, (0, padding - 1, 0, hidden_padding))
        fc2_weight = F.pad(fc2_weight, (0, hidden_padding))

        fields = elastic.standardize_tokens(tokens.flatten(1), resampling, norm.eps)
        hidden = self.drop(F.gelu(fc1_weight @ F.pad(fields, (0, 0, 0, padding), value=1.0)))
        mixed = torch.addmm(fc2_bias[:, None], fc2_weight, hidden)
        dropped: Tensor = self.drop(mixed.view(-1, batch_size, embed_dim))
        return dropped


class DropPath(nn.Module):
    """Drop a residual branch for some of the images (stochastic depth), token-major."""

    def __init__(self, drop_rate: float) -> None:
        super().__init__()
        self.drop_rate = drop_rate

    def forward(self, branch: Tensor) -> Tensor:
        """Scale (N, B, D) by 0 or 1 / (1 - drop_rate), drawn for each of the B images."""
        if self.drop_rate == 0 or not self.training:
            return branch
        kept = 1 - self.drop_rate
        return branch * branch.new_empty(1, branch.shape[1], 1).bernoulli_(kept).div_(kept)


class FeedForwardBlock(nn.Module):
    """Channel mixing, then token mixing, each before a residual connection."""

    def __init__(
        self,
        num_tokens: int,
        embed_dim: int,
        token_mlp_dim: int,
        *,
        drop_rate: float,
        drop_path_rate: float,
        is_last: bool,
    ) -> None:
        super().__init__()
        self.mlp1 = ChannelMixing(embed_dim, MLP_EXPANSION * embed_dim, drop_rate)
        self.norm1 = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.mlp2 = TokenMixing(num_tokens, token_mlp_dim, drop_rate, is_last=is_last)
        self.norm2 = nn.LayerNorm(num_tokens, eps=NORM_EPS)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: Tensor, resampling: elastic.Resampling | None) -> Tensor:
        """Return (N, B, D), or (1, B, D) from the last block."""
        tokens = tokens + self.drop_path(self.mlp1(self.norm1(tokens)))
        mixed: Tensor = self.drop_path(self.mlp2(tokens, self.norm2, resampling))
        return tokens[: mixed.shape[0]] + mixed


class FeedForwardViT(nn.Module):
    """A vision transformer with a feed-forward layer over the tokens in place of attention.

    Args:
        image_size: Side of the images whose patches make the canonical grid, pixels; a multiple of
            `patch_size`.
        patch_size: Side of a patch, pixels.
        in_chans: Channels of the images.
        num_classes: K; 0 makes the head the identity.
        embed_dim: D.
        depth: Number of blocks.
        token_mlp_dim: Hidden width of the token mixing; None: 4 N, as the author.
        drop_rate: Dropout behind the position encoding and in both MLPs of each block.
        drop_path_rate: Stochastic depth of the last block; linear from 0 in the first.
        resampler: How token fields change grid, one of `elastic.RESAMPLERS`.
        pos_grid_size: Side of the stored position grid; None: the canonical grid's.

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
        embed_dim: int = 768,
        depth: int = 12,
        token_mlp_dim: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        resampler: str = "dct",
        pos_grid_size: int | None = None,
    ) -> None:
        super().__init__()
        grid_size = canonical_grid_size(image_size, patch_size)
        num_tokens = 1 + grid_size**2
        self.image_size = image_size
        self.patch_size = patch_size
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.token_grid = elastic.TokenGrid(grid_size, resampler)

        self.patch_embed = PatchEmbedding(patch_size, in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_encoding = PositionEncoding(pos_grid_size or grid_size, embed_dim)
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = nn.ModuleList(
            FeedForwardBlock(
                num_tokens,
                embed_dim,
                token_mlp_dim or MLP_EXPANSION * num_tokens,
                drop_rate=drop_rate,
                drop_path_rate=rate,
                is_last=index == depth - 1,
            )
            for index, rate in enumerate(linear_drop_path_rates(drop_path_rate, depth))
        )
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.head = classifier_head(embed_dim, num_classes)
        nn.init.trunc_normal_(self.cls_token, std=INIT_STD)
        self.apply(init_linear)

    def forward_features(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, H) to the normalised class token (B, D)."""
        grid_size = patches_per_side(images, self.patch_size)
        resampling = self.token_grid.resampling(grid_size, self.cls_token)
        patches = self.patch_embed(images)
        # Under autocast the patches are bf16 and are promoted here: the residual stream stays
        # float32.
        tokens = torch.cat([self.cls_token.expand(1, images.shape[0], -1), patches])
        tokens = self.pos_drop(tokens + self.pos_encoding(self.token_grid.size, resampling))
        for block in self.blocks:
            tokens = block(tokens, resampling)
        features: Tensor = self.norm(tokens[0])
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the class token (B, D) to logits (B, K); `pre_logits` returns it unchanged."""
        return features if pre_logits else self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, H), H a multiple of the patch size, to logits (B, K)."""
        return self.forward_head(self.forward_features(images))

    def set_resolution(self, resolution: int) -> None:
        """Prepare the constants for images of this side, pixels; call outside a compiled region."""
        self.token_grid.resampling(resolution // self.patch_size, self.cls_token)

    def get_classifier(self) -> nn.Module:
        """Return the head, as timm's models do."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a freshly initialised one."""
        self.num_classes = num_classes
        self.head = classifier_head(self.embed_dim, num_classes).to(self.cls_token)
        self.head.apply(init_linear)

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that are never decayed besides norms and biases.

        The author's list names `pos_embed`, which matches none of his parameters: his positions
        were decayed.
        """
        return {"cls_token", "pos_encoding.pos_embed", "pos_encoding.cls_pos_embed"}

    def load_pretrained(self, path: str | Path) -> None:
        """Load one of the author's checkpoints; timm calls this for `pretrained=True`."""
        author_checkpoints.load_author_checkpoint(self, path)


def padding_of(size: int) -> int:
    """Return what is missing to the next multiple of 8, which tensor cores read in whole pieces."""
    return -size % ALIGNMENT


def linear_drop_path_rates(last: float, depth: int) -> list[float]:
    """Return one stochastic depth rate per block, from 0 to `last`, which is in [0, 1)."""
    if depth < 1:
        raise ConfigError(f"model.depth={depth} is out of range; use 1 or more blocks.")
    if not 0 <= last < 1:
        raise ConfigError(f"model.drop_path_rate={last} is out of range; use 0 or more, below 1.")
    return [last * index / max(depth - 1, 1) for index in range(depth)]


def classifier_head(embed_dim: int, num_classes: int) -> nn.Module:
    """Return a linear layer, or the identity for no classes."""
    return nn.Linear(embed_dim, num_classes) if num_classes > 0 else nn.Identity()


def init_linear(module: nn.Module) -> None:
    """Initialise linear layers as the author; all else keeps PyTorch's defaults, as his does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def timm_config(image_size: int = 224, **cfg: Any) -> dict[str, Any]:
    """Describe a model to timm; the evaluation transform is the paper's (DeiT's)."""
    return {
        "input_size": (3, image_size, image_size),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "custom_load": True,
        "paper_ids": "arXiv:2105.02723",
        "origin_url": "https://github.com/lukemelas/do-you-even-need-attention",
        **cfg,
    }


default_cfgs = generate_default_cfgs(
    {
        "ff_tiny_patch16_224": timm_config(url=author_checkpoints.TINY_URL),
        "ff_base_patch16_224": timm_config(url=author_checkpoints.BASE_URL),
        "ff_large_patch32_224": timm_config(),
        "ff_pico": timm_config(image_size=112),
    }
)


def _create(
    name: str, pretrained: bool, defaults: dict[str, Any], given: dict[str, Any]
) -> FeedForwardViT:
    """Build a model through timm, which calls `load_pretrained` with the downloaded file."""
    try:
        model: FeedForwardViT = build_model_with_cfg(
            FeedForwardViT, name, pretrained, **(defaults | given)
        )
    except URLError as error:
        raise CheckpointError(
            f"{name}: the author's weights could not be downloaded ({error.reason}); fetch"
            f" {default_cfgs[name].default.url} elsewhere and pass"
            " pretrained_cfg_overlay={'file': PATH}."
        ) from None
    return model


@register_model
def ff_tiny_patch16_224(pretrained: bool = False, **options: Any) -> FeedForwardViT:
    """FF-tiny of the paper: 7,676,332 parameters, 61.4 % top-1 on ImageNet in 300 epochs."""
    defaults = {"patch_size": 16, "embed_dim": 192, "depth": 12}
    return _create("ff_tiny_patch16_224", pretrained, defaults, options)


@register_model
def ff_base_patch16_224(pretrained: bool = False, **options: Any) -> FeedForwardViT:
    """FF-base of the paper: 61,943,020 parameters, 74.9 % top-1 on ImageNet in 300 epochs."""
    defaults = {"patch_size": 16, "embed_dim": 768, "depth": 12}
    return _create("ff_base_patch16_224", pretrained, defaults, options)


@register_model
def ff_large_patch32_224(pretrained: bool = False, **options: Any) -> FeedForwardViT:
    """FF-large of the paper: 206,363,576 parameters, 71.4 % top-1; never released."""
    defaults = {"patch_size": 32, "embed_dim": 1024, "depth": 24, "pos_grid_size": 14}
    return _create("ff_large_patch32_224", pretrained, defaults, options)


@register_model
def ff_pico(pretrained: bool = False, **options: Any) -> FeedForwardViT:
    """A small model for images of 64 to 112 pixels; not of the paper, no weights exist.

    The token mixing is 256 wide: four times its 197 tokens would be most of such a small model.
    """
    defaults = {
        "image_size": 112,
        "patch_size": 8,
        "embed_dim": 96,
        "depth": 4,
        "token_mlp_dim": 256,
    }
    return _create("ff_pico", pretrained, defaults, options)
