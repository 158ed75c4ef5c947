"""What is compared: each arm is a training config, and the resolution of each of its epochs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.proxy.data import beton_path
from ffvit import schedules
from ffvit.config import to_dict
from ffvit.options import (
    DataSection,
    LrSection,
    ModelSection,
    ResolutionSection,
    TrainConfig,
    TrainingSection,
    ValidationSection,
)

# Pixels. Patches of 8 make grids of 10 and 6; 224 and 128 px in patches of 16 make 14 and 8.
FULL, LOW = 80, 48
WARMUP_SHARE = 0.1
# Options of the models that FF is compared with; their sizes are such that they cost about as much.
MIXER = {"name": "proxy_mixer", "depth": 0}
VIT = {"name": "proxy_vit"}
RESNET = {"name": "proxy_resnet", "image_size": 0, "patch_size": 0, "embed_dim": 16, "depth": 0}

BASE = TrainConfig(
    data=DataSection(
        train_path=str(beton_path("train")),
        val_path=str(beton_path("val")),
        num_workers=1,
        min_scale=0.35,
    ),
    model=ModelSection(name="ff_pico", image_size=FULL, patch_size=8, embed_dim=48, depth=2),
    lr=LrSection(lr=3e-3),
    # The averaged weights cost next to nothing, and each run then compares them with the raw ones.
    training=TrainingSection(
        global_batch_size=64, weight_decay=0.05, label_smoothing=0.1, ema_decay=0.98
    ),
    resolution=ResolutionSection(min_res=FULL, max_res=FULL, multiple=8),  # stages say more
    validation=ValidationSection(resolution=FULL),
)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        name: In results and tables; unique.
        config: Of its runs; `training.seed` is set for each.
        stages: (resolution, epochs) one after the other; `config.resolution` does not count.
        shows_switches: Whether accuracy is measured before and after each change of resolution.
        is_timm: Whether timm trains it instead of our trainer.
        teaching: How a teacher's opinion becomes half of the target, `soft` or `hard`; empty: no
            teacher.
    """

    name: str
    config: TrainConfig
    stages: tuple[tuple[int, int], ...]
    shows_switches: bool = False
    is_timm: bool = False
    teaching: str = ""

    @property
    def resolutions(self) -> list[int]:
        """The resolution of each epoch, pixels."""
        return [resolution for resolution, epochs in self.stages for _ in range(epochs)]

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides the outcome of a run besides seed and code; plain values."""
        options = {
            f"{section}.{name}": value
            for section, values in to_dict(self.config).items()
            for name, value in values.items()
            if section != "resolution"
            and value != default_options()[section][name]
            and not name.endswith("_path")
        }
        options |= {"resolutions": run_lengths(self.resolutions), "is_timm": self.is_timm}
        return options | ({"teaching": self.teaching} if self.teaching else {})


def default_options() -> Mapping[str, Mapping[str, Any]]:
    """Return the options' defaults."""
    return to_dict(TrainConfig())


def run_lengths(values: Sequence[int]) -> list[list[int]]:
    """Write 64, 64, 112 as [[64, 2], [112, 1]]."""
    lengths: list[list[int]] = []
    for value in values:
        if lengths and lengths[-1][0] == value:
            lengths[-1][1] += 1
        else:
            lengths.append([value, 1])
    return lengths


def change(config: TrainConfig, **sections: Mapping[str, Any]) -> TrainConfig:
    """Return a config with some options of some sections replaced."""
    replaced = {
        name: dataclasses.replace(getattr(config, name), **options)
        for name, options in sections.items()
    }
    return dataclasses.replace(config, **replaced)


def arm(
    name: str,
    *stages: tuple[int, int],
    base: TrainConfig = BASE,
    shows_switches: bool = False,
    is_timm: bool = False,
    teaching: str = "",
    **sections: Mapping[str, Any],
) -> Arm:
    """Make an arm of given stages, its warm-up a tenth of its length."""
    epochs = sum(length for _, length in stages)
    config = change(base, training={"epochs": epochs}, lr={"warmup_epochs": WARMUP_SHARE * epochs})
    return Arm(name, change(config, **sections), stages, shows_switches, is_timm, teaching)


def ramp(name: str, epochs: int, start: int, end: int, low: int = LOW, **options: Any) -> Arm:
    """Make an arm whose resolution grows as the shipped recipes' does, in steps of a patch."""
    section = ResolutionSection(
        min_res=low, max_res=FULL, start_ramp=start, end_ramp=end, multiple=BASE.model.patch_size
    )
    lengths = run_lengths([schedules.resolution(epoch, section) for epoch in range(epochs)])
    return arm(name, *((resolution, length) for resolution, length in lengths), **options)
