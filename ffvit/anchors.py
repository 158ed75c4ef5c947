"""Published results on ImageNet-1k, to compare runs with: their accuracy, and what they cost.

Copied from the sources named; nothing here was measured with this program.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

NUM_TRAIN_IMAGES, NUM_CLASSES = 1_281_167, 1000


@dataclasses.dataclass(frozen=True)
class Anchor:
    """One published result.

    Attributes:
        name: Of the model.
        epochs: Passes over the training images.
        top_1: On the validation images, per cent.
        hours: What it cost in hours of one device; None where that was not published.
        device: Which device.
        publisher: Who published it, in a word.
        source: Where it stands.
    """

    name: str
    epochs: int
    top_1: float
    hours: float | None
    device: str
    publisher: str
    source: str


def _ffcv(name: str, num_gpus: int, rows: dict[int, tuple[float, float]]) -> list[Anchor]:
    """Turn rows of (top-1, minutes) by epochs into anchors."""
    source = "ffcv-imagenet README; 256 px, flip average"
    return [
        Anchor(name, epochs, top_1, minutes * num_gpus / 60, "A100", "ffcv-imagenet", source)
        for epochs, (top_1, minutes) in rows.items()
    ]


_PAPER = "Do You Even Need Attention, table 1; 224 px"
_MIXER = "MLP-Mixer, table 3; 224 px"
_BIG_VISION = "big_vision, mlp_mixer_i1k.py; 224 px"

ANCHORS = [
    *_ffcv(
        "ResNet-50",
        8,
        {
            16: (73.8, 14.9),
            24: (75.6, 21.7),
            32: (76.6, 28.7),
            40: (77.2, 35.6),
            56: (78.0, 49.4),
            88: (78.4, 77.2),
        },
    ),
    *_ffcv(
        "ResNet-18",
        1,
        {
            16: (66.9, 35.0),
            24: (68.8, 51.6),
            32: (70.0, 68.9),
            40: (70.6, 85.5),
            56: (71.3, 119.4),
            88: (72.4, 187.3),
        },
    ),
    # 27 minutes and 2 h 11 min on 128 cores, two of which are a chip.
    Anchor("Mixer-B/16", 60, 70.5, 27 / 60 * 64, "TPUv3 chip", "Google", _BIG_VISION),
    Anchor("Mixer-B/16", 300, 76.4, 131 / 60 * 64, "TPUv3 chip", "Google", _MIXER),
    Anchor("FF-tiny", 300, 61.4, None, "", "paper", _PAPER),
    Anchor("FF-base", 300, 74.9, None, "", "paper", _PAPER),
    Anchor("FF-large", 300, 71.4, None, "", "paper", _PAPER),
]


def is_imagenet(start: Mapping[str, Any]) -> bool:
    """Say whether the record of a run's start tells of all of ImageNet-1k: only then they compare.

    Up to a hundredth of the training images may have been left out as damaged or held out.
    """
    num_images = start.get("num_train_images", 0)
    is_whole = 0.99 * NUM_TRAIN_IMAGES <= num_images <= NUM_TRAIN_IMAGES
    return is_whole and start.get("num_classes") == NUM_CLASSES
