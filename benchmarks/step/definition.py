"""The FF models as the paper defines them, batch-first and with torch's own layers.

What ours is measured against: what a reader of the paper (arXiv:2105.02723) would write, and how
its author computes it. LayerNorm over the tokens and their MLP work on the transposed stream, so
both copy it; every block computes all tokens. Written from the paper's text and from the names and
shapes of the author's checkpoints, which load. One resolution only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6


class Mlp(nn.Module):
    """Two linear layers over the last axis with GELU between."""

    def __init__(self, size: int, hidden_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, hidden_size)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_size, size)

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., size) to the same shape."""
        mapped: Tensor = self.fc2(self.act(self.fc1(values)))
        return mapped


class Block(nn.Module):
    """Feed-forward over the channels, then over the tokens, each pre-norm and residual."""

    def __init__(self, num_tokens: int, embed_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.mlp1 = Mlp(embed_dim, 4 * embed_dim)
        self.norm2 = nn.LayerNorm(num_tokens, eps=NORM_EPS)
        self.mlp2 = Mlp(num_tokens, 4 * num_tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) to the same shape."""
        tokens = tokens + self.mlp1(self.norm1(tokens))
        channels = tokens.transpose(1, 2)
        channels = channels + self.mlp2(self.norm2(channels))
        mixed: Tensor = channels.transpose(1, 2)
        return mixed


class Positions(nn.Module):
    """A position vector for each cell of a grid and one for the class token."""

    def __init__(self, embed_dim: int, grid_size: int, stored_size: int) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.pos_embed = nn.Parameter(torch.randn(1, embed_dim, stored_size, stored_size) * 0.02)
        self.cls_pos_embed = nn.Parameter(torch.randn(1, 1, embed_dim) * 0.02)

    def forward(self) -> Tensor:
        """Return (1, N, D)."""
        grid: Tensor = self.pos_embed
        if grid.shape[-1] != self.grid_size:
            grid = F.interpolate(grid, size=(self.grid_size, self.grid_size), mode="bilinear")
        return torch.cat([self.cls_pos_embed, grid.flatten(2).transpose(1, 2)], dim=1)


class Patches(nn.Module):
    """A linear map of each patch, as a convolution."""

    def __init__(self, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, H) to (B, N - 1, D)."""
        patches: Tensor = self.proj(images)
        return patches.flatten(2).transpose(1, 2)


class PlainFeedForwardViT(nn.Module):
    """The whole network.

    Args:
        resolution: Side of the images, pixels.
        patch_size: Side of a patch, pixels.
        embed_dim: D.
        depth: Number of blocks.
        stored_grid: Side of the grid of positions in the checkpoint.
        num_classes: K.
    """

    def __init__(
        self,
        resolution: int,
        patch_size: int,
        embed_dim: int,
        depth: int,
        stored_grid: int,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        grid_size = resolution // patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.patch_embed = Patches(embed_dim, patch_size)
        self.pos_encoding = Positions(embed_dim, grid_size, stored_grid)
        self.blocks = nn.Sequential(*(Block(1 + grid_size**2, embed_dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, H) to logits (B, K)."""
        first = self.cls_token.expand(len(images), -1, -1)
        tokens = torch.cat([first, self.patch_embed(images)], dim=1) + self.pos_encoding()
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits
