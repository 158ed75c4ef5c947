"""From images to tokens: patches, positions, and the sizes they allow.

Legend: B batch, N tokens (the class token first, then patches row by row), D embed_dim, H = W
    pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffvit.errors import ConfigError
from ffvit.models import elastic

INIT_STD = 0.02


class PatchEmbedding(nn.Module):
    """Project each patch to a token: images (B, 3, H, W) to patches (N - 1, B, D)."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Return the patches in row-major order, token-major."""
        patches: Tensor = self.proj(images)
        return patches.flatten(2).permute(2, 0, 1)


class PositionEncoding(nn.Module):
    """Learned position vectors, one per cell of a square grid and one for the class token."""

    def __init__(self, grid_size: int, embed_dim: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, embed_dim, grid_size, grid_size))
        self.cls_pos_embed = nn.Parameter(torch.zeros(1, 1, embed_dim))
        nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)
        nn.init.trunc_normal_(self.cls_pos_embed, std=INIT_STD)

    def forward(self, canonical_size: int, resampling: elastic.Resampling | None = None) -> Tensor:
        """Return (N, 1, D), for the canonical grid or resampled from it."""
        with elastic.autocast_off(self.pos_embed.device):
            patches: Tensor = self.pos_embed
            if patches.shape[-1] != canonical_size:
                # The author's rule; FF-large stores 14 x 14 and uses 7 x 7.
                patches = F.interpolate(
                    patches, (canonical_size, canonical_size), mode="bilinear", align_corners=False
                )
            positions = torch.cat([self.cls_pos_embed[0], patches[0].flatten(1).T])
            if resampling is not None:
                from_canonical = resampling.from_canonical
                positions = (from_canonical @ positions.to(from_canonical.dtype)).to(patches.dtype)
        return positions[:, None]


def canonical_grid_size(image_size: int, patch_size: int) -> int:
    """Return the patches along one side; ConfigError if the patch does not divide the image."""
    if image_size < patch_size or image_size % patch_size:
        raise ConfigError(
            f"model.image_size={image_size} is not a multiple of model.patch_size={patch_size};"
            " change one of the two."
        )
    return image_size // patch_size


def patches_per_side(images: Tensor, patch_size: int) -> int:
    """Return the patches along one side of a batch of square images (B, 3, H, H)."""
    height, width = images.shape[-2:]
    if height != width or height < patch_size or height % patch_size:
        raise ValueError(
            f"images of {height} x {width} pixels: expected squares whose side is a multiple of"
            f" {patch_size}."
        )
    return height // patch_size
