"""Learning rate by step, resolution and augmentation by epoch: pure functions of the config.

Epochs count from 0. Nothing here keeps state, so a resumed run sees the same values as one that
was never stopped. The `check_*` functions refuse a section that contradicts itself; whether a
model can run a resolution is asked elsewhere.
"""

import math

from ffvit.errors import ConfigError
from ffvit.options import LrSection, ResolutionSection

LR_SCHEDULES = ("linear", "cosine", "step", "deit")
STEP_RATIO = 0.1


def learning_rate(
    step: int, steps_per_epoch: int, lr: LrSection, epochs: int, scale: float
) -> float:
    """Return the learning rate of one optimizer update.

    It rises linearly from `warmup_lr` to `lr` over `warmup_epochs`, then falls to `min_lr` at the
    end of the run (linear, cosine), or to a tenth after each third of the run (step), as 30, 60, 90
    epochs did for ResNets; or it is `deit_learning_rate`. With `warmup_epochs=2` and
    `warmup_lr=1e-4*lr`, linear is ffcv-imagenet's cyclic schedule to rounding, as that interpolates
    between the values of consecutive epochs and has its peak on a whole one.

    Args:
        step: Number of updates made before this one; past the end of the run the end's value.
        steps_per_epoch: Optimizer updates per epoch.
        lr: The section; it must have passed `check_lr`.
        epochs: Length of the run.
        scale: The run's global batch divided by `base_batch_size`; multiplies all three rates, with
            `deit` the peak alone.
    """
    if lr.schedule == "deit":
        return deit_learning_rate(step // steps_per_epoch, lr, epochs, scale)
    epoch = step / steps_per_epoch
    if epoch < lr.warmup_epochs:
        rate = lr.warmup_lr + (lr.lr - lr.warmup_lr) * (epoch / lr.warmup_epochs)
    elif lr.schedule == "step":
        thirds = min(2, 3 * step // (steps_per_epoch * epochs))
        rate = lr.lr * STEP_RATIO**thirds
    elif epoch >= epochs:
        rate = lr.min_lr
    else:
        remaining = (epochs - epoch) / (epochs - lr.warmup_epochs)
        if lr.schedule == "cosine":
            remaining = (1 - math.cos(math.pi * remaining)) / 2
        rate = lr.min_lr + (lr.lr - lr.min_lr) * remaining
    return scale * rate


def deit_learning_rate(epoch: int, lr: LrSection, epochs: int, scale: float) -> float:
    """Return the learning rate of a whole epoch as DeiT's program runs it, which FF models used.

    It differs from `cosine` in four ways. The rate changes between epochs only. It is set at the
    end of an epoch to the value for the number of that epoch, so every value comes one epoch late
    and the first two epochs run at `warmup_lr`. The cosine begins at epoch 0, not at the end of the
    warm-up, so `lr` itself is never reached. The batch scales `lr`, but neither `warmup_lr` nor
    `min_lr`.

    Source: facebookresearch/deit@2f76ec6, main.py, with timm 0.3.2's CosineLRScheduler.
    """
    late = min(max(epoch - 1, 0), epochs)
    peak = scale * lr.lr
    if late < lr.warmup_epochs:
        return lr.warmup_lr + (peak - lr.warmup_lr) * late / lr.warmup_epochs
    return lr.min_lr + (peak - lr.min_lr) * (1 + math.cos(math.pi * late / epochs)) / 2


def resolution(epoch: int, section: ResolutionSection) -> int:
    """Return the side of the training images of one epoch, in pixels.

    From `min_res` at `start_ramp` linearly to `max_res` at `end_ramp`, rounded to a multiple of
    `multiple`, a tie to the even one as in ffcv-imagenet. With `start_ramp` equal to `end_ramp` it
    jumps to `max_res` in that epoch.
    """
    if epoch >= section.end_ramp or section.min_res == section.max_res:
        return section.max_res
    if epoch <= section.start_ramp:
        return section.min_res
    growth = (section.max_res - section.min_res) * (epoch - section.start_ramp)
    exact = section.min_res + growth / (section.end_ramp - section.start_ramp)
    return round(exact / section.multiple) * section.multiple


def first_epochs(section: ResolutionSection, epochs: int) -> dict[int, int]:
    """Map each resolution that a run of so many epochs trains at, in order of use, to its first."""
    firsts: dict[int, int] = {}
    for epoch in range(epochs):
        firsts.setdefault(resolution(epoch, section), epoch)
    return firsts


def resolutions(section: ResolutionSection, epochs: int) -> list[int]:
    """List the distinct resolutions that a run of so many epochs trains at, in order of use."""
    return list(first_epochs(section, epochs))


def strength(start: float, section: ResolutionSection, epoch: int) -> float:
    """Return augmentation's share of its full strength in one epoch.

    It is `start` until `start_ramp` and 1 from `end_ramp` on, in between linear, also where the
    resolution does not change. Source: Tan and Le, EfficientNetV2, arXiv:2104.00298.
    """
    if epoch >= section.end_ramp:
        return 1.0
    if epoch <= section.start_ramp:
        return start
    grown = (epoch - section.start_ramp) / (section.end_ramp - section.start_ramp)
    return start + (1 - start) * grown


def check_lr(section: LrSection, epochs: int) -> None:
    """Check that the section states one learning rate for every step of a run.

    Raises:
        ConfigError: An unknown schedule, a value out of range, or a warm-up longer than the run.
    """
    if section.schedule not in LR_SCHEDULES:
        raise ConfigError(
            f"lr.schedule={section.schedule!r} is not known; use one of {', '.join(LR_SCHEDULES)}."
        )
    if section.lr <= 0:
        raise ConfigError(f"lr.lr={section.lr} is not a learning rate; it must be above 0.")
    for name, value in (("warmup_lr", section.warmup_lr), ("min_lr", section.min_lr)):
        if not 0 <= value <= section.lr:
            raise ConfigError(
                f"lr.{name}={value} is not between 0 and lr.lr={section.lr}; lower it."
            )
    if section.base_batch_size < 0:
        raise ConfigError(
            f"lr.base_batch_size={section.base_batch_size} is not a number of images;"
            " give the batch that lr.lr is stated for, or 0 for the run's own."
        )
    if not 0 <= section.warmup_epochs <= epochs:
        raise ConfigError(
            f"lr.warmup_epochs={section.warmup_epochs} is not between 0 and"
            f" training.epochs={epochs}; shorten the warm-up or lengthen the run."
        )


def check_resolution(section: ResolutionSection) -> None:
    """Check that the section describes a ramp that can be followed.

    Raises:
        ConfigError: A ramp that runs backwards or is over before it begins, or a resolution that
            is no multiple of `multiple`.
    """
    if section.multiple < 1:
        raise ConfigError(
            f"resolution.multiple={section.multiple} is not a number of pixels; it must be above 0."
        )
    for name, value in (("min_res", section.min_res), ("max_res", section.max_res)):
        if value < 1 or value % section.multiple:
            lower = value // section.multiple * section.multiple
            nearest = [str(v) for v in (lower, lower + section.multiple) if v > 0]
            raise ConfigError(
                f"resolution.{name}={value} is not a multiple of"
                f" resolution.multiple={section.multiple}; use {' or '.join(nearest)}."
            )
    if section.min_res > section.max_res:
        raise ConfigError(
            f"resolution.min_res={section.min_res} is above resolution.max_res={section.max_res};"
            " the resolution can only grow."
        )
    if not 0 <= section.start_ramp <= section.end_ramp:
        raise ConfigError(
            f"resolution.start_ramp={section.start_ramp} is not between 0 and"
            f" resolution.end_ramp={section.end_ramp}; swap or mend them."
        )
    if section.min_res < section.max_res and section.end_ramp == 0:
        raise ConfigError(
            f"resolution.min_res={section.min_res} would never be used, as resolution.end_ramp=0"
            f" begins at {section.max_res}; give start_ramp and end_ramp, or an equal min_res."
        )
