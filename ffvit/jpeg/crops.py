"""Which box is cut from an image, and whether it is mirrored: pure functions of sizes and counters.

Every random number is a hash of (seed, epoch, position in the epoch's global order, purpose), so a
crop does not depend on threads, ranks, batch size or restarts. Compiled without fastmath, so that
a box is the same wherever it is computed.
"""

import math

import numba as nb
import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int]

# What a random number is for. A new purpose gets a new number; the old ones never change.
PURPOSE_CROP = 0
PURPOSE_FLIP = 1
PURPOSE_ORDER = 2
PURPOSE_BLOCK = 3
PURPOSE_REPLACEMENT = 4
PURPOSE_MIX = 5
PURPOSE_POLICY = 6
PURPOSE_JITTER = 7
PURPOSE_ERASE = 8
PURPOSE_NOISE = 9

_MAX_TRIES = 10  # as torchvision's RandomResizedCrop


@nb.njit(nogil=True)
def _mix(value: np.uint64) -> np.uint64:
    """Scramble 64 bits: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@nb.njit(nogil=True)
def random_bits(seed: int, epoch: int, position: int, purpose: int, draw: int) -> np.uint64:
    """Hash five counters to 64 uniform bits."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    bits = _mix(np.uint64(seed) + golden)
    bits = _mix(bits ^ (np.uint64(epoch) + golden))
    bits = _mix(bits ^ (np.uint64(position) + golden))
    return _mix(bits ^ ((np.uint64(purpose) << np.uint64(32)) + np.uint64(draw) + golden))


@nb.njit(nogil=True)
def uniform(seed: int, epoch: int, position: int, purpose: int, draw: int) -> float:
    """Draw a float64 from [0, 1)."""
    bits = random_bits(seed, epoch, position, purpose, draw) >> np.uint64(11)
    return float(bits) * (1.0 / 9007199254740992.0)


@nb.njit(nogil=True)
def uniforms(
    seed: int, epoch: int, positions: npt.NDArray[np.int64], purpose: int, num_draws: int
) -> npt.NDArray[np.float64]:
    """Draw the numbers that `uniform` draws, for each of B positions the first few.

    Returns:
        (B, num_draws) float64 from [0, 1).
    """
    result = np.empty((len(positions), num_draws))
    for row in range(len(positions)):
        for draw in range(num_draws):
            result[row, draw] = uniform(seed, epoch, positions[row], purpose, draw)
    return result


@nb.njit(nogil=True)
def random_resized_crop(
    height: int,
    width: int,
    min_scale: float,
    max_scale: float,
    min_ratio: float,
    max_ratio: float,
    seed: int,
    epoch: int,
    position: int,
) -> Box:
    """Draw a box of random area and aspect ratio, as torchvision's RandomResizedCrop does.

    Args:
        height: Of the image, pixels; at least 1.
        width: Of the image, pixels; at least 1.
        min_scale: Smallest area of the box, as a fraction of the image's.
        max_scale: Largest area.
        min_ratio: Smallest width / height of the box; ratios are uniform on a log scale.
        max_ratio: Largest width / height.
        seed: Of the run.
        epoch: Pass over the data.
        position: In the epoch's global order.

    Returns:
        top, left, height, width of the box, inside the image.
    """
    log_min = math.log(min_ratio)
    log_max = math.log(max_ratio)
    for attempt in range(_MAX_TRIES):
        draw = 4 * attempt
        area = uniform(seed, epoch, position, PURPOSE_CROP, draw)
        area = (min_scale + area * (max_scale - min_scale)) * height * width
        shape = uniform(seed, epoch, position, PURPOSE_CROP, draw + 1)
        ratio = math.exp(log_min + shape * (log_max - log_min))
        crop_width = math.floor(math.sqrt(area * ratio) + 0.5)
        crop_height = math.floor(math.sqrt(area / ratio) + 0.5)
        if 0 < crop_width <= width and 0 < crop_height <= height:
            down = uniform(seed, epoch, position, PURPOSE_CROP, draw + 2)
            right = uniform(seed, epoch, position, PURPOSE_CROP, draw + 3)
            top = int(down * (height - crop_height + 1))
            left = int(right * (width - crop_width + 1))
            return top, left, crop_height, crop_width
    # No box fits: the largest centred one whose ratio is allowed.
    crop_height = height
    crop_width = width
    if width < min_ratio * height:
        crop_height = max(1, min(height, math.floor(width / min_ratio + 0.5)))
    elif width > max_ratio * height:
        crop_width = max(1, min(width, math.floor(height * max_ratio + 0.5)))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


@nb.njit(nogil=True)
def center_crop(height: int, width: int, ratio: float) -> Box:
    """Cut the centred square whose side is `ratio` times the image's shorter side.

    At ratio 224/256 and a resolution of 224 this is the usual "resize to 256, crop 224".

    Returns:
        top, left, height, width of the box, inside the image.
    """
    side = max(1, math.floor(ratio * min(height, width) + 0.5))
    return (height - side) // 2, (width - side) // 2, side, side


@nb.njit(nogil=True)
def random_flip(seed: int, epoch: int, position: int) -> int:
    """Draw 1 (mirror the image) or 0, each half of the time."""
    return int(random_bits(seed, epoch, position, PURPOSE_FLIP, 0) >> np.uint64(63))
