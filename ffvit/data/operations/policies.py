"""Which operations an image gets, and how strong: RandAugment, 3-Augment, colour jitter.

RandAugment is timm's (`rand_augment_transform`), 3-Augment DeiT III's (arXiv:2204.07118), colour
jitter torchvision's. Draws are hashes of (seed, epoch, position), so an image's operations depend
on nothing else. What the operations do to pixels is not known here.

Dimensions: B images, T turns, in which an image's operations follow each other.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from ffvit.errors import ConfigError
from ffvit.jpeg.crops import PURPOSE_JITTER, PURPOSE_POLICY, uniforms

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEVELS = 10.0  # magnitude at which an operation is at its full strength, as in timm


class Operation(IntEnum):
    """What can be done to an image, and in brackets its argument."""

    NONE = -1
    # Those of RandAugment, in timm's order.
    AUTO_CONTRAST = 0
    EQUALIZE = 1
    INVERT = 2
    ROTATE = 3  # (degrees)
    POSTERIZE = 4  # (bits that are kept)
    SOLARIZE = 5  # (value from which on it is inverted)
    SOLARIZE_ADD = 6  # (what is added to values below 128)
    COLOR = 7  # (factor: 0 is grey, 1 the image)
    CONTRAST = 8  # (factor: 0 is the mean grey)
    BRIGHTNESS = 9  # (factor: 0 is black)
    SHARPNESS = 10  # (factor: 0 is smoothed)
    SHEAR_X = 11  # (columns per row)
    SHEAR_Y = 12  # (rows per column)
    TRANSLATE_X = 13  # (share of the width)
    TRANSLATE_Y = 14  # (share of the height)
    BLUR = 15  # (standard deviation, pixels)


NUM_RAND_AUGMENT = 15


class Draws(NamedTuple):
    """What is done to each image of a batch, turn by turn.

    Attributes:
        operations: (B, T) int64 of `Operation`.
        arguments: (B, T) float64, of no meaning where the operation takes none.
    """

    operations: Ints
    arguments: Floats


@dataclass(frozen=True)
class RandAugment:
    """RandAugment (Cubuk et al., arXiv:1909.13719) with timm's choices.

    Each turn draws one of 15 operations, and applies it with `probability` at a magnitude that is
    normal around `magnitude`, clipped to 0..`max_magnitude`.

    Attributes:
        magnitude: Mean magnitude, of 10.
        num_turns: Operations that are drawn for each image.
        probability: That one is applied.
        magnitude_std: Standard deviation of the magnitude.
        max_magnitude: Largest magnitude.
        is_increasing: Whether posterize, solarize and the enhancements grow stronger with the
            magnitude; else they are timm's older forms, of which some grow weaker.
    """

    magnitude: float = _LEVELS
    num_turns: int = 2
    probability: float = 0.5
    magnitude_std: float = 0.0
    max_magnitude: float = _LEVELS
    is_increasing: bool = False

    def draw(self, seed: int, epoch: int, positions: Ints, strength: float) -> Draws:
        """Draw for the images at (B,) positions, with the magnitude times `strength`."""
        draws = uniforms(seed, epoch, positions, PURPOSE_POLICY, 4 * self.num_turns)
        choice, applied, normal, sign = draws.reshape(len(positions), -1, 4).transpose(2, 0, 1)
        operations = (choice * NUM_RAND_AUGMENT).astype(np.int64)
        magnitudes = np.full(choice.shape, self.magnitude * strength)
        if self.magnitude_std > 0:
            magnitudes += self.magnitude_std * ndtri(normal)
        magnitudes = magnitudes.clip(0, self.max_magnitude)
        arguments = self._arguments(operations, magnitudes, np.where(sign < 0.5, 1.0, -1.0))
        operations[applied >= self.probability] = Operation.NONE
        return Draws(operations, arguments)

    def _arguments(self, operations: Ints, magnitudes: Floats, signs: Floats) -> Floats:
        """Turn (B, T) magnitudes into arguments, as timm's LEVEL_TO_ARG."""
        share = magnitudes / _LEVELS
        bits = np.trunc(share * 4)
        threshold = np.trunc(share * 256).clip(max=256)
        factor = share * 1.8 + 0.1
        if self.is_increasing:
            bits, threshold = 4 - bits, 256 - threshold
            factor = (1 + signs * (share * 0.9)).clip(min=0.1)
        arguments = {
            Operation.ROTATE: signs * (share * 30),
            Operation.POSTERIZE: bits,
            Operation.SOLARIZE: threshold,
            Operation.SOLARIZE_ADD: np.trunc(share * 110).clip(max=128),
            Operation.COLOR: factor,
            Operation.CONTRAST: factor,
            Operation.BRIGHTNESS: factor,
            Operation.SHARPNESS: factor,
            Operation.SHEAR_X: signs * (share * 0.3),
            Operation.SHEAR_Y: signs * (share * 0.3),
            Operation.TRANSLATE_X: signs * (share * 0.45),
            Operation.TRANSLATE_Y: signs * (share * 0.45),
        }
        result = np.zeros_like(share)
        for operation, values in arguments.items():
            result = np.where(operations == operation, values, result)
        return result


@dataclass(frozen=True)
class ThreeAugment:
    """3-Augment of DeiT III: each image is made grey, solarized or blurred."""

    def draw(self, seed: int, epoch: int, positions: Ints, strength: float) -> Draws:  # noqa: ARG002
        """Draw for the images at (B,) positions; there is no magnitude."""
        choice, blur = uniforms(seed, epoch, positions, PURPOSE_POLICY, 2).T
        operations = np.array([Operation.COLOR, Operation.SOLARIZE, Operation.BLUR])
        arguments = np.stack([0 * blur, 0 * blur + 128, 0.1 + 1.9 * blur], axis=1)
        number = (choice * 3).astype(np.int64)[:, None]
        return Draws(operations[number], np.take_along_axis(arguments, number, axis=1))


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and saturation times factors of 1 - `width` to 1 + `width`, shuffled."""

    width: float

    def draw(self, seed: int, epoch: int, positions: Ints, strength: float) -> Draws:  # noqa: ARG002
        """Draw for the images at (B,) positions; `strength` does not count."""
        draws = uniforms(seed, epoch, positions, PURPOSE_JITTER, 6)
        operations = np.array([Operation.BRIGHTNESS, Operation.CONTRAST, Operation.COLOR])
        low = max(0.0, 1 - self.width)
        factors = low + draws[:, 3:] * (1 + self.width - low)
        return Draws(operations[np.argsort(draws[:, :3], axis=1)], factors)


Policy = RandAugment | ThreeAugment | ColorJitter

# Key of a RandAugment string: field, type, what is expected, and what is allowed.
_KEYS = {
    "m": ("magnitude", int, "a whole number from 0 on", 0, 1000),
    "n": ("num_turns", int, "a whole number from 1 to 10", 1, 10),
    "p": ("probability", float, "a number from 0 to 1", 0, 1),
    "mstd": ("magnitude_std", float, "a number from 0 to 100", 0, 100),
    "mmax": ("max_magnitude", int, "a whole number from 1 on", 1, 1000),
    "inc": ("is_increasing", int, "0 or 1", 0, 1),
}


def parse_policy(text: str) -> RandAugment | ThreeAugment | None:
    """Read `augment.policy`: empty, `3a`, or RandAugment as timm writes it.

    Raises:
        ConfigError: It is neither; names the part that is wrong.
    """
    if not text:
        return None
    if text == "3a":
        return ThreeAugment()
    name, *parts = text.split("-")
    if name != "rand":
        raise ConfigError(
            f"augment.policy={text}: expected rand-m9-mstd0.5-inc1 or the like (RandAugment), 3a "
            f"(3-Augment), or nothing, got {name!r}; change it."
        )
    fields: dict[str, float] = {}
    for part in parts:
        match = re.fullmatch(r"([a-z]+)(.*)", part)
        key, value = match.groups() if match else (part, "")
        if key not in _KEYS:
            raise ConfigError(
                f"augment.policy={text}: {part!r} is unknown; after rand may stand "
                f"{', '.join(_KEYS)}, each with a number."
            )
        field, read, expected, low, high = _KEYS[key]
        try:
            number = read(value)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise ConfigError(f"augment.policy={text}: {key} expects {expected}, got {value!r}.")
        if field in fields:
            raise ConfigError(f"augment.policy={text}: {key} stands twice; remove one.")
        fields[field] = number
    return RandAugment(**fields)  # type: ignore[arg-type]
