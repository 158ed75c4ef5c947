"""What one image costs to compute, and what a device could compute at most.

Nominal counts, from which MFU and budgets follow: the matrix products and convolutions of the
model as its author defines it, forward, and twice that backward. What runs here differs by some
percent: the last block of an FF model computes its class token only (FF-tiny 2.0 % fewer, FF-base
0.8 %), images need no gradient (FF-tiny 0.7 %, FF-base 0.3 % fewer), token MLPs are padded (FF-tiny
0.6 %, FF-base 0.3 % more), and off the canonical grid weights are resampled (more, per update and
not per image). Norms, activations and the optimizer never count. So MFU compares with other
programs, and is not how busy a device is.
"""

import copy
from collections.abc import Mapping

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ffvit.models import FeedForwardViT
from ffvit.models.feedforward import FeedForwardBlock

# Dense bf16 with float32 accumulation, FLOP/s, by what `torch.cuda.get_device_name` contains; the
# longest name that fits counts. Source: NVIDIA's data sheets, halved where they quote sparsity.
# Words in `LESSER_DEVICES` mark a slower device of the same name, or a part of one.
PEAK_FLOPS: Mapping[str, float] = {
    "A100": 312e12,
    "A30": 165e12,
    "A40": 149.7e12,
    "L4": 121e12,
    "L40S": 362e12,
    "H100": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H200": 989e12,
    "H200 NVL": 835e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "GeForce RTX 3090": 71e12,
    "GeForce RTX 4090": 165.2e12,
}
LESSER_DEVICES = {"D", "Laptop", "MIG", "Max", "Mobile"}
# A forward pass and a backward pass, in which each product has two gradients.
PASSES_TO_TRAIN = 3


def feedforward_macs(
    resolution: int,
    *,
    patch_size: int,
    embed_dim: int,
    depth: int,
    token_mlp_dim: int,
    channel_mlp_dim: int,
    num_classes: int,
    in_chans: int = 3,
) -> int:
    """Count the multiply-accumulates of an FF model's forward pass on one image.

    Args:
        resolution: Side of the image, pixels; a multiple of `patch_size`.
        patch_size: Side of a patch, pixels.
        embed_dim: Width of a token.
        depth: Number of blocks.
        token_mlp_dim: Hidden width of the token mixing, the same at every resolution.
        channel_mlp_dim: Hidden width of the channel mixing.
        num_classes: Of the head; 0: none.
        in_chans: Channels of the image.
    """
    num_patches = (resolution // patch_size) ** 2
    num_tokens = 1 + num_patches
    patches = num_patches * in_chans * patch_size**2 * embed_dim
    block = 2 * num_tokens * embed_dim * (channel_mlp_dim + token_mlp_dim)
    return patches + depth * block + embed_dim * num_classes


def count_macs(model: nn.Module, resolution: int) -> int:
    """Count the multiply-accumulates of a model's forward pass on one image.

    An FF model's by arithmetic, any other's from a trial run without computing.

    Args:
        model: As `create_model` returns it, not wrapped.
        resolution: Side of the image, pixels; one at which the model runs.
    """
    if isinstance(model, FeedForwardViT):
        block = model.blocks[0]
        assert isinstance(block, FeedForwardBlock)
        return feedforward_macs(
            resolution,
            patch_size=model.patch_size,
            embed_dim=model.embed_dim,
            depth=len(model.blocks),
            token_mlp_dim=block.mlp2.fc1.out_features,
            channel_mlp_dim=block.mlp1.fc1.out_features,
            num_classes=model.num_classes,
            in_chans=model.patch_embed.proj.in_channels,
        )
    trial = copy.deepcopy(model).to("meta").eval()
    images = torch.empty(1, 3, resolution, resolution, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        trial(images)
    return int(counter.get_total_flops()) // 2


def training_flops(model: nn.Module, resolution: int) -> int:
    """Count the floating-point operations of training on one image, two per multiply-accumulate."""
    return 2 * PASSES_TO_TRAIN * count_macs(model, resolution)


def peak_flops(device_name: str) -> float | None:
    """Return the dense bf16 peak of a GPU, FLOP/s; None where it is not known.

    Args:
        device_name: As `torch.cuda.get_device_name` gives it, such as "NVIDIA H100 80GB HBM3".
    """
    words = set(device_name.replace("-", " ").split())
    known = [name for name in PEAK_FLOPS if set(name.split()) <= words]
    return PEAK_FLOPS[max(known, key=len)] if known and not words & LESSER_DEVICES else None
