"""Models of the experiments that the package does not ship, by names that start with "proxy_".

Importing this registers them with timm, so that a recipe can name them.
"""

from typing import Any

import torch
from timm.models import register_model
from timm.models.mlp_mixer import MlpMixer
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ffvit.models import FeedForwardViT, elastic

TOKEN_MLP_DIM = 256


# What timm hands to any model's function, and these have no use for.
_PRETRAINED = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def _architecture(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _PRETRAINED}


def _pico(kind: type[FeedForwardViT], options: dict[str, Any]) -> FeedForwardViT:
    """Build a variant of `ff_pico`, with as wide a token MLP."""
    image_size = options.pop("img_size")
    return kind(image_size=image_size, token_mlp_dim=TOKEN_MLP_DIM, **_architecture(options))


class RawGrid(elastic.TokenGrid):
    """Token weights resized like images, bilinearly, and not rescaled: the naive way."""

    def __init__(self, size: int) -> None:
        super().__init__(size, "bilinear")

    def resampling(self, grid_size: int, like: Tensor) -> elastic.Resampling | None:
        """As of `TokenGrid`; fc1's columns are averaged, where they would have to be added up."""
        constants = super().resampling(grid_size, like)
        return constants and constants._replace(to_canonical=constants.from_canonical.T)


@register_model
def proxy_raw_resize(pretrained: bool = False, **options: Any) -> FeedForwardViT:
    """`ff_pico` with `RawGrid`."""
    del pretrained
    model = _pico(FeedForwardViT, options)
    model.token_grid = RawGrid(model.token_grid.size)
    return model


class MeanPoolViT(FeedForwardViT):
    """Classifies by the mean of the patches instead of the class token, which stays."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.blocks[-1].mlp2.is_last = False  # type: ignore[union-attr]

    def forward_features(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, H) to the mean of the normalised patches (B, D)."""
        grid_size = images.shape[-1] // self.patch_size
        resampling = self.token_grid.resampling(grid_size, self.cls_token)
        patches = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(1, images.shape[0], -1), patches])
        tokens = self.pos_drop(tokens + self.pos_encoding(self.token_grid.size, resampling))
        for block in self.blocks:
            tokens = block(tokens, resampling)
        features: Tensor = self.norm(tokens[1:]).mean(dim=0)
        return features


@register_model
def proxy_mean_pool(pretrained: bool = False, **options: Any) -> FeedForwardViT:
    """`ff_pico` with `MeanPoolViT`'s head."""
    del pretrained
    return _pico(MeanPoolViT, options)


@register_model
def proxy_mixer(pretrained: bool = False, **options: Any) -> nn.Module:
    """Timm's Mixer of two blocks, its token MLP as wide as `ff_pico`'s."""
    del pretrained
    embed_dim: int = options["embed_dim"]
    return MlpMixer(
        num_blocks=2, mlp_ratio=(TOKEN_MLP_DIM / embed_dim, 4.0), **_architecture(options)
    )


@register_model
def proxy_vit(pretrained: bool = False, **options: Any) -> nn.Module:
    """Timm's vision transformer with heads of 16 channels.

    Its attention is written out: on a CPU torch's fused one takes three times as long in bf16.
    """
    del pretrained
    model = VisionTransformer(num_heads=options["embed_dim"] // 16, **_architecture(options))
    for block in model.blocks:
        block.attn.fused_attn = False  # type: ignore[union-attr]
    return model


@register_model
def proxy_resnet(pretrained: bool = False, **options: Any) -> nn.Module:
    """Timm's ResNet of four basic blocks, `embed_dim` channels wide in the first.

    Its first convolution has a stride of 4 in place of 2 and a pooling, and all is in channels-last
    order: both made half of its time on a CPU in bf16.
    """
    del pretrained
    width: int = options.pop("embed_dim")
    model = ResNet(
        BasicBlock,  # type: ignore[arg-type]
        layers=(1, 1, 1, 1),
        channels=tuple(width * 2**stage for stage in range(4)),
        **_architecture(options),
    )
    stem = nn.Conv2d(3, 64, kernel_size=7, stride=4, padding=3, bias=False)
    model.conv1, model.maxpool = stem, nn.Identity()  # type: ignore[assignment]
    return model.to(memory_format=torch.channels_last)


class Scaled(nn.Module):
    """A residual branch with a learnt factor for each channel (LayerScale).

    Source: Touvron et al., Going deeper with Image Transformers, arXiv:2103.17239; their first
    value for fewer than 18 blocks.
    """

    def __init__(self, branch: Any, embed_dim: int) -> None:
        super().__init__()
        self.branch = branch
        self.gamma = nn.Parameter(torch.full((embed_dim,), 0.1))

    def forward(self, *inputs: Any) -> Tensor:
        """Scale what the branch returns, (N, B, D)."""
        scaled: Tensor = self.branch(*inputs) * self.gamma
        return scaled


@register_model
def proxy_layer_scale(pretrained: bool = False, **options: Any) -> FeedForwardViT:
    """`ff_pico` with LayerScale in both branches of each block."""
    del pretrained
    model = _pico(FeedForwardViT, options)
    for block in model.blocks:
        block.mlp1 = Scaled(block.mlp1, model.embed_dim)
        block.mlp2 = Scaled(block.mlp2, model.embed_dim)
    return model
