"""Mixup and CutMix: images blended with, or pasted onto, a partner of the same batch.

Mixup (Zhang et al., arXiv:1710.09412) takes a weighted mean of two images, CutMix (Yun et al.,
arXiv:1905.04899) pastes a box of one onto the other; labels are averaged with the same weight.
Semantics are those of timm's `Mixup`, for groups of images that stand together in the order: the
partner is the group in reverse. In mode "batch", as DeiT used it, a group shares one draw; in
"pair" an image and its partner do; in "elem" each image has its own. Draws are hashes of (seed,
epoch, position), so they do not depend on ranks, threads or restarts.
"""

import torch
import torch.nn.functional as F
from scipy.special import betaincinv

from ffvit.errors import ConfigError, check_option
from ffvit.jpeg.crops import PURPOSE_MIX, uniform
from ffvit.options import AugmentSection

MODES = ("batch", "pair", "elem")
# Draws of what shares them, in the order in which they are counted.
_APPLY, _SWITCH, _SHARE, _DOWN, _RIGHT = range(5)


class Mixing:
    """Mixes the images of each group of `mixup_group` consecutive positions with each other.

    Args:
        section: The options; they must have passed `check_mixing`.
        num_classes: Of the targets.
        seed: Of the run.
    """

    def __init__(self, section: AugmentSection, num_classes: int, seed: int) -> None:
        self._section = section
        self._num_classes = num_classes
        self._seed = seed

    @property
    def is_on(self) -> bool:
        """Whether anything is mixed at all."""
        return self._section.mixup > 0 or self._section.cutmix > 0

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, epoch: int, position: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix a batch.

        Args:
            images: (B, C, H, W) float, B a multiple of the group.
            labels: (B,) int64.
            epoch: Pass over the data.
            position: Of the first image in the epoch's global order.

        Returns:
            (B, C, H, W) mixed images, channels last in memory, and (B, num_classes) float32
            targets, of which each row adds up to 1.
        """
        size = self._section.mixup_group
        height, width = images.shape[-2:]
        groups = range(position, position + len(images), size)
        places = [group + self._place(number) for group in groups for number in range(size)]
        plans = {place: self._plan(epoch, place, height, width) for place in dict.fromkeys(places)}
        # One small copy for the batch. A box is top, bottom, left, right; empty for mixup.
        table = torch.tensor([plans[place] for place in places], dtype=torch.float32)
        if images.is_cuda:
            table = table.pin_memory()
        table = table.to(images.device, non_blocking=True)
        pixel_share, label_share, top, bottom, left, right = table[:, :, None, None].unbind(1)

        rows = torch.arange(height, device=images.device)[:, None]
        columns = torch.arange(width, device=images.device)
        inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        own = pixel_share * ~inside  # (B, H, W): how much of each pixel stays
        own = own[:, None].to(images.dtype)
        mixed = torch.lerp(_reverse(images, size), images, own)
        one_hot = F.one_hot(labels, self._num_classes).float()
        targets = torch.lerp(_reverse(one_hot, size), one_hot, label_share[:, :, 0])
        return mixed.contiguous(memory_format=torch.channels_last), targets

    def _place(self, number: int) -> int:
        """Say whose draw the image of this number in its group takes."""
        if self._section.mixup_mode == "batch":
            return 0
        if self._section.mixup_mode == "pair":
            return min(number, self._section.mixup_group - 1 - number)
        return number

    def _plan(self, epoch: int, place: int, height: int, width: int) -> tuple[float, ...]:
        """Draw a share of own pixels, share of own label, and box."""
        section = self._section

        def draw(number: int) -> float:
            return uniform(self._seed, epoch, place, PURPOSE_MIX, number)

        if draw(_APPLY) >= section.mixup_prob:
            return 1.0, 1.0, 0.0, 0.0, 0.0, 0.0
        is_cutmix = section.cutmix > 0 and (
            section.mixup == 0 or draw(_SWITCH) < section.mixup_switch_prob
        )
        alpha = section.cutmix if is_cutmix else section.mixup
        share = float(betaincinv(alpha, alpha, draw(_SHARE)))  # Beta(alpha, alpha)
        if not is_cutmix:
            return share, share, 0.0, 0.0, 0.0, 0.0
        side = (1 - share) ** 0.5
        top, bottom = _span(int(draw(_DOWN) * height), int(side * height), height)
        left, right = _span(int(draw(_RIGHT) * width), int(side * width), width)
        # The box may stick out of the image: what counts is what is pasted.
        label_share = 1 - (bottom - top) * (right - left) / (height * width)
        return 1.0, label_share, top, bottom, left, right


def _span(centre: int, length: int, limit: int) -> tuple[int, int]:
    return max(centre - length // 2, 0), min(centre + length // 2, limit)


def _reverse(values: torch.Tensor, size: int) -> torch.Tensor:
    """Reverse each group of `size` along the first axis."""
    return values.reshape(-1, size, *values.shape[1:]).flip(1).reshape(values.shape)


def check_mixing(section: AugmentSection, batch_size: int) -> None:
    """Check the options of mixup and CutMix.

    Args:
        section: Of which only these are read.
        batch_size: Images per process and micro-batch.

    Raises:
        ConfigError: One is out of its range, or groups do not fill a batch.
    """
    for name in ("mixup", "cutmix"):
        value = getattr(section, name)
        check_option(f"augment.{name}", value, "0 (off) or more", value >= 0)
    for name in ("mixup_prob", "mixup_switch_prob"):
        value = getattr(section, name)
        check_option(f"augment.{name}", value, "a probability, 0 to 1", 0 <= value <= 1)
    mode, size = section.mixup_mode, section.mixup_group
    check_option("augment.mixup_mode", mode, " or ".join(MODES), mode in MODES)
    check_option("augment.mixup_group", size, "2 or more images", size >= 2)
    if (section.mixup > 0 or section.cutmix > 0) and batch_size % size:
        raise ConfigError(
            f"augment.mixup_group={size} does not divide the {batch_size} images that a process "
            "takes at a time; change it, training.global_batch_size, "
            "training.accumulation_steps or the number of processes."
        )
