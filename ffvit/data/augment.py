"""What is done to a training batch on the device it lies on: docs/augmentation.md.

Operations on pixels by a policy, normalisation, erasing, mixing, in this order. Every draw is a
hash of (seed, epoch, position), so a batch's images are the same for any ranks, threads and
restarts, and none depends on the others of its batch but by mixing.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch

from ffvit.data.epoch_iterator import Batch
from ffvit.data.erasing import erase
from ffvit.data.mix import Mixing, check_mixing
from ffvit.data.operations import device, host
from ffvit.data.operations.plans import make_plan
from ffvit.data.operations.policies import ColorJitter, Draws, Policy, parse_policy
from ffvit.errors import check_option
from ffvit.options import AugmentSection

# Of ImageNet's training images, in units of 0..255 (red, green, blue); the values everyone uses.
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
# What lies outside of a warped image, as in timm.
FILL = (124, 116, 104)


class Augmentation:
    """Makes a training step's inputs and targets of a loader's batch.

    Args:
        section: The options; they must have passed `check_augmentation`.
        num_classes: Of the targets.
        seed: Of the run.
        strength: Epoch -> share of RandAugment's magnitude and of erasing's probability.
    """

    def __init__(
        self,
        section: AugmentSection,
        num_classes: int,
        seed: int,
        strength: Callable[[int], float] = lambda _: 1.0,
    ) -> None:
        self._section = section
        self._seed = seed
        self._strength = strength
        self._policies = create_policies(section)
        self._mixing = Mixing(section, num_classes, seed)

    def __call__(self, batch: Batch, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment a batch.

        Args:
            batch: Of the training loader.
            epoch: Pass over the data.

        Returns:
            (B, 3, H, W) float32, normalised, channels last in memory; and the labels, (B,) int64,
            or where images are mixed (B, num_classes) float32 shares of each class.
        """
        images = normalize(self.change_pixels(batch.images, epoch, batch.position))
        probability = self._section.erasing * self._strength(epoch)
        if probability > 0:
            erase(images, probability, self._seed, epoch, batch.position)
        if not self._mixing.is_on:
            return images, batch.labels
        return self._mixing(images, batch.labels, epoch, batch.position)

    def change_pixels(self, images: torch.Tensor, epoch: int, position: int) -> torch.Tensor:
        """Do the policy's operations.

        Args:
            images: (B, H, W, 3) uint8 RGB.
            epoch: Pass over the data.
            position: Of the first image in the epoch's global order.

        Returns:
            The same of these, changed; or `images` itself if there is nothing to do.
        """
        if not self._policies:
            return images
        positions = np.arange(position, position + len(images))
        strength = self._strength(epoch)
        draws = [policy.draw(self._seed, epoch, positions, strength) for policy in self._policies]
        together = Draws(*(np.concatenate(arrays, axis=1) for arrays in zip(*draws, strict=True)))
        plan = make_plan(together, *images.shape[1:3])
        images = images.clone()
        backend = host if images.device.type == "cpu" else device
        backend.change_pixels(images, plan, FILL)
        return images


def create_policies(section: AugmentSection) -> list[Policy]:
    """Make what decides on the pixels' operations, in the order in which they are done.

    Raises:
        ConfigError: `augment.policy` cannot be read.
    """
    policies: list[Policy] = []
    policy = parse_policy(section.policy)
    if policy is not None:
        policies.append(policy)
    if section.color_jitter > 0:
        policies.append(ColorJitter(section.color_jitter))
    return policies


def check_augmentation(section: AugmentSection, batch_size: int) -> None:
    """Check the options.

    Args:
        section: All of it but `repeats`, which the loader reads.
        batch_size: Images per process and micro-batch.

    Raises:
        ConfigError: One cannot be read or is out of its range.
    """
    create_policies(section)
    jitter = section.color_jitter
    check_option("augment.color_jitter", jitter, "0 (off) or more", jitter >= 0)
    for name in ("erasing", "ramp_start"):
        value = getattr(section, name)
        check_option(f"augment.{name}", value, "a number from 0 to 1", 0 <= value <= 1)
    check_mixing(section, batch_size)


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
