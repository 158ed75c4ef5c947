"""Operations on batches of images, on the device they lie on."""

import functools

import torch

from ffvit.data.epoch_iterator import Batch
from ffvit.data.mix import Mixing

# Of ImageNet's training images, in units of 0..255 (red, green, blue); the values everyone uses.
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)


@functools.cache
def _mean_and_scale(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the constants on the device once: a copy per step would wait for the device."""
    mean = torch.tensor(IMAGENET_MEAN, device=device)
    return mean, 1 / torch.tensor(IMAGENET_STD, device=device)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Shift and scale pixels to mean 0 and deviation 1 over ImageNet.

    Args:
        images: (B, H, W, 3) uint8 RGB.

    Returns:
        (B, 3, H, W) float32, channels last in memory.
    """
    mean, scale = _mean_and_scale(images.device)
    return ((images.float() - mean) * scale).permute(0, 3, 1, 2)


def augment(batch: Batch, epoch: int, mixing: Mixing) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a training step's inputs and targets of a loader's batch.

    Args:
        batch: Of the training loader.
        epoch: Pass over the data.
        mixing: Mixup and CutMix.

    Returns:
        (B, 3, H, W) float32, normalised, channels last in memory; and the labels, (B,) int64, or
        where images are mixed (B, num_classes) float32 shares of each class.
    """
    images = normalize(batch.images)
    if not mixing.is_on:
        return images, batch.labels
    return mixing(images, batch.labels, epoch, batch.position)
