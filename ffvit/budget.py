"""What a recipe costs and what it may give, told before it is run.

Operations are counted. Hours and accuracies are forecasts, until somebody has measured them: hours
suppose that a share of the device's peak is reached (`UTILISATION`), less with small images
(`AT_128_PX`), that several devices are as many times faster, and that no time goes into validation
or waiting for images.
"""

import dataclasses
import itertools
import re
from pathlib import Path

import torch

from ffvit import schedules
from ffvit.config import load_train_config
from ffvit.errors import ConfigError
from ffvit.flops import PEAK_FLOPS, training_flops
from ffvit.models import create_model
from ffvit.options import TrainConfig

SIZES = ("tiny", "base", "large")
NUM_CLASSES = 1000
NUM_IMAGES = 1_281_167  # of ImageNet's training set
# Model FLOPs utilisation (MFU) at 224 px: the share of the dense bf16 peak. Tiny's matrices are
# narrow.
UTILISATION = {"tiny": 0.25, "base": 0.40, "large": 0.40}
# How much of that remains at 128 px, where matrices are smaller: a roofline of an H200, computed.
AT_128_PX = {"tiny": 0.58, "base": 0.67, "large": 0.73}
# Top-1 in % at 224 px, by the name of the config. The paper's recipes: as the paper reports. The
# others: a judgement. MLP-Mixer-B/16 had 70.5 % after 60 epochs and 76.4 % after 300, so some 3.6
# points for each e-fold of epochs; EfficientTrain++'s curricula gave 3 to 4 points at a third of
# the cost. Large is put as far below base as in the paper, 3.5, or up to 6.
TOP_1 = {
    "tiny_16_epochs": "48 to 55",
    "tiny_24_epochs": "51 to 58",
    "tiny_32_epochs": "54 to 60",
    "tiny_40_epochs": "56 to 62",
    "tiny_56_epochs": "58 to 64",
    "tiny_88_epochs": "60 to 66",
    "tiny_300_paper": "61.4",
    "base_16_epochs": "58 to 64",
    "base_24_epochs": "62 to 67",
    "base_32_epochs": "65 to 69",
    "base_40_epochs": "67 to 70",
    "base_56_epochs": "69 to 72",
    "base_88_epochs": "71.5 to 74.5",
    "base_300_paper": "74.9",
    "large_16_epochs": "52 to 60",
    "large_24_epochs": "56 to 63",
    "large_32_epochs": "59 to 65",
    "large_40_epochs": "61 to 66",
    "large_56_epochs": "63 to 68",
    "large_88_epochs": "66 to 71",
    "large_300_paper": "71.4",
}


@dataclasses.dataclass(frozen=True)
class Budget:
    """A recipe of ff_configs/ on ImageNet.

    Attributes:
        path: Its YAML file.
        config: Its options.
        phases: (resolution in pixels, epochs) in their order.
        phase_flops: Floating-point operations of all forward and backward passes of each.
    """

    path: Path
    config: TrainConfig
    phases: list[tuple[int, int]]
    phase_flops: list[int]

    @property
    def flops(self) -> int:
        """Operations of the whole run."""
        return sum(self.phase_flops)

    @property
    def size(self) -> str:
        """Which model: tiny, base or large."""
        return self.path.stem.partition("_")[0]

    @property
    def num_updates(self) -> int:
        """Optimizer updates; a partial batch at an epoch's end is left out."""
        return self.config.training.epochs * (NUM_IMAGES // self.config.training.global_batch_size)

    @property
    def num_images(self) -> int:
        """Images seen, each as often as it is seen."""
        return self.num_updates * self.config.training.global_batch_size

    @property
    def top_1(self) -> str:
        """Accuracy to expect, with where it comes from."""
        figure = f"{TOP_1[self.path.stem]} %"
        if self.path.stem.endswith("paper"):
            return f"{figure} (the paper's; not measured with this code)"
        return f"{figure} (forecast, not measured)"

    def gpu_hours(self, gpu: str, mfu: float | None = None) -> float:
        """Forecast the hours on one GPU.

        Args:
            gpu: By its name in `PEAK_FLOPS`.
            mfu: The share of its peak that is reached at 224 px; None: as in `UTILISATION`.
        """
        seconds = sum(
            flops / (utilisation(self.size, side, mfu) * PEAK_FLOPS[gpu])
            for flops, (side, _) in zip(self.phase_flops, self.phases, strict=True)
        )
        return seconds / 3600

    def command(self, num_gpus: int) -> str:
        """Return what to type.

        Raises:
            ConfigError: The batch does not fall into so many equal parts.
        """
        batch_size, rest = divmod(self.config.training.global_batch_size, num_gpus)
        if rest:
            raise ConfigError(
                f"--num_gpus={num_gpus} does not divide the batch of {self.path},"
                f" {self.config.training.global_batch_size} images; use a power of 2."
            )
        launcher = f"torchrun --nproc_per_node={num_gpus}" if num_gpus > 1 else "python"
        words = f"{launcher} train_imagenet.py --config {self.path}"
        group, mixed = self.config.augment.mixup_group, self.config.augment
        if (mixed.mixup > 0 or mixed.cutmix > 0) and batch_size % group:
            words += f" --augment.mixup_group={batch_size}"
        return words


def load_budget(path: Path) -> Budget:
    """Read a recipe and count its operations.

    Args:
        path: A YAML of ff_configs/ whose name is in `TOP_1`.
    """
    config, _ = load_train_config(["--config", str(path)])
    epochs = config.training.epochs
    with torch.device("meta"):
        model = create_model(config.model, NUM_CLASSES)
    by_epoch = [schedules.resolution(epoch, config.resolution) for epoch in range(epochs)]
    phases = [(side, len(list(run))) for side, run in itertools.groupby(by_epoch)]
    batch_size = config.training.global_batch_size
    images_per_epoch = NUM_IMAGES // batch_size * batch_size
    phase_flops = [n * images_per_epoch * training_flops(model, side) for side, n in phases]
    return Budget(path, config, phases, phase_flops)


def utilisation(size: str, resolution: int, mfu: float | None = None) -> float:
    """Forecast the share of a GPU's peak that is reached, linear in the resolution.

    Args:
        size: Which model: tiny, base or large.
        resolution: Side of the images, pixels.
        mfu: The share at 224 px; None: as in `UTILISATION`.
    """
    lost = (1 - AT_128_PX[size]) * (224 - resolution) / (224 - 128)
    return (mfu or UTILISATION[size]) * (1 - lost)


def load_budgets(size: str, folder: Path) -> list[Budget]:
    """Read all recipes of one model, from the cheapest to the paper's.

    Raises:
        ConfigError: No such model, or the folder lacks one of them.
    """
    if size not in SIZES:
        raise ConfigError(f"--model={size}: expected one of {', '.join(SIZES)}.")
    paths = [folder / f"{name}.yaml" for name in TOP_1 if name.startswith(f"{size}_")]
    for path in paths:
        if not path.is_file():
            raise ConfigError(
                f"--configs={folder}: expected the repository's folder of recipes, but there is no"
                f" {path}; run this in the repository, or name the folder."
            )
    return sorted((load_budget(path) for path in paths), key=lambda budget: budget.flops)


def find_gpu(name: str) -> str:
    """Find a GPU in `PEAK_FLOPS` by a name typed in any case and spacing.

    Raises:
        ConfigError: Its peak is not known.
    """
    known = {_squeezed(gpu): gpu for gpu in PEAK_FLOPS}
    if _squeezed(name) not in known:
        raise ConfigError(f"--gpu={name}: expected one of {', '.join(PEAK_FLOPS)}.")
    return known[_squeezed(name)]


def recommend(
    size: str,
    gpu: str,
    hours: float,
    num_gpus: int = 1,
    mfu: float | None = None,
    folder: Path = Path("ff_configs"),
) -> str:
    """Describe the longest recipe that is forecast to end in time, and the next one.

    Args:
        size: Which model: tiny, base or large.
        gpu: By a name that `find_gpu` knows.
        hours: On the clock.
        num_gpus: How many work side by side.
        mfu: The share of the GPUs' peak that is reached at 224 px; None: as in `UTILISATION`.
        folder: With the recipes.

    Raises:
        ConfigError: One of these is not known or makes no sense, or no recipe is short enough.
    """
    if not hours > 0:
        raise ConfigError(f"--hours={hours:g}: expected more than 0.")
    if num_gpus < 1:
        raise ConfigError(f"--num_gpus={num_gpus}: expected 1 or more.")
    if mfu is not None and not 0 < mfu <= 1:
        raise ConfigError(f"--mfu={mfu:g}: expected a share of the peak, above 0 and at most 1.")
    gpu = find_gpu(gpu)
    budgets = load_budgets(size, folder)
    needed = [budget.gpu_hours(gpu, mfu) / num_gpus for budget in budgets]
    num_fitting = sum(one <= hours for one in needed)
    if num_fitting == 0:
        raise ConfigError(
            f"--hours={hours:g}: the shortest recipe for {size}, {budgets[0].path}, is forecast to"
            f" take {needed[0]:.2f} h on {num_gpus} {gpu}; give more of either, or another model."
        )
    chosen, chosen_hours = budgets[num_fitting - 1], needed[num_fitting - 1]
    peak = f"{PEAK_FLOPS[gpu] / 1e12:.0f} TFLOP/s"
    basis = f"forecast: {shares(chosen, mfu)} of {peak}; no validation, no wait for images"
    rate = chosen.num_images / chosen_hours / 3600
    lines = [
        f"config    {chosen.path}",
        f"images    {chosen.num_images / 1e6:.1f} million, {chosen.config.training.epochs} epochs",
        f"pixels    {resolution_ramp(chosen)}",
        f"FLOPs     {exponential(chosen.flops)}, forward and backward, counted",
        f"hours     {rounded(chosen_hours)} on {num_gpus} {gpu} ({basis})",
        f"images/s  {rate:,.0f} on average, which loading must keep up with (docs/benchmarks.md)",
        f"top-1     {chosen.top_1}",
    ]
    if num_fitting < len(budgets):
        following = budgets[num_fitting]
        lines.append(
            f"next      {following.path} needs {needed[num_fitting]:.2f} h: {following.top_1}"
        )
    return "\n".join([*lines, "", f"    {chosen.command(num_gpus)}"])


def resolution_ramp(budget: Budget) -> str:
    """Say which resolution is trained for how long: "128 px for 7 epochs, 224 for 3"."""
    (first, num_epochs), *others = budget.phases
    return ", ".join(
        [f"{first} px for {num_epochs} epochs", *(f"{side} for {n}" for side, n in others)]
    )


def shares(budget: Budget, mfu: float | None = None) -> str:
    """Say which share of a GPU's peak is supposed: "27 % (128 px) and 40 % (224 px)"."""
    sides = dict.fromkeys(side for side, _ in budget.phases)
    texts = {side: f"{100 * utilisation(budget.size, side, mfu):.2g} %" for side in sides}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return " and ".join(f"{text} ({side} px)" for side, text in texts.items())


def exponential(value: float) -> str:
    """Write a large number with two digits, such as 1.9e+18 as 1.9e18."""
    return f"{value:.1e}".replace("e+", "e")


def rounded(hours: float) -> str:
    """Write hours with two digits: 13, 4.0 or 0.69."""
    return f"{hours:.{0 if hours >= 10 else 1 if hours >= 1 else 2}f}"


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("nvidia").removeprefix("geforce")
