"""A plan's pixels on a CPU: one image after the other, in place, compiled by numba.

The arithmetic is Pillow's, in float32 where Pillow's is; compiled without fastmath, so that an
image is the same wherever it is computed. device.py does the same on a GPU.

Dimensions: B images, H rows and W columns of pixels, T turns.
"""

from typing import Any

import numba as nb
import numpy as np
import torch

from ffvit.data.operations.plans import BLUR_TAPS, Kind, Plan

# What a resampled value is raised by before its fraction is cut off: sums in float32 may be a
# little below the whole number that they are exactly, as in an even area.
ROUNDING = 2.0**-10

TABLE, AUTO_CONTRAST, EQUALIZE = int(Kind.TABLE), int(Kind.AUTO_CONTRAST), int(Kind.EQUALIZE)
CONTRAST, COLOR, SHARPNESS = int(Kind.CONTRAST), int(Kind.COLOR), int(Kind.SHARPNESS)
BLUR, WARP = int(Kind.BLUR), int(Kind.WARP)


def change_pixels(images: torch.Tensor, plan: Plan, fill: tuple[int, int, int]) -> None:
    """Do what a plan says.

    Args:
        images: (B, H, W, 3) uint8 RGB on the CPU, contiguous; overwritten.
        plan: Of B images.
        fill: Colour of what lies outside of a warped image.
    """
    colour = np.array(fill, dtype=np.uint8)
    _change_pixels(images.numpy(), *plan, colour)


@nb.njit(nogil=True)
def _change_pixels(
    images: Any, kinds: Any, factors: Any, tables: Any, blurs: Any, matrices: Any, fill: Any
) -> None:
    scratch = np.empty(images.shape[1:], dtype=np.uint8)
    for i in range(len(images)):
        image = images[i]
        for turn in range(kinds.shape[1]):
            kind = kinds[i, turn]
            if kind == TABLE:
                _look_up(image, tables[i, turn])
            elif kind == AUTO_CONTRAST:
                _auto_contrast(image)
            elif kind == EQUALIZE:
                _equalize(image)
            elif kind == CONTRAST:
                _contrast(image, factors[i, turn])
            elif kind == COLOR:
                _color(image, factors[i, turn])
            elif kind == SHARPNESS:
                scratch[:] = image
                _sharpen(scratch, factors[i, turn], image)
            elif kind == BLUR:
                _blur(image, blurs[i, turn])
            elif kind == WARP:
                scratch[:] = image
                _warp(scratch, matrices[i, turn], fill, image)


@nb.njit(nogil=True)
def _blend(degenerate: Any, value: Any, factor: Any) -> Any:
    """Pillow's Image.blend: cuts off the fraction."""
    start = np.float32(degenerate)
    blended = start + factor * (np.float32(value) - start)
    return np.uint8(min(max(blended, np.float32(0)), np.float32(255)))


@nb.njit(nogil=True)
def _grey(red: Any, green: Any, blue: Any) -> Any:
    """Pillow's conversion to mode L."""
    return (
        np.uint32(red) * np.uint32(19595)
        + np.uint32(green) * np.uint32(38470)
        + np.uint32(blue) * np.uint32(7471)
        + np.uint32(32768)
    ) >> np.uint32(16)


@nb.njit(nogil=True)
def _look_up(image: Any, table: Any) -> None:
    values = image.reshape(-1)
    for k in range(len(values)):
        values[k] = table[values[k]]


@nb.njit(nogil=True)
def _look_up_channels(image: Any, tables: Any) -> None:
    pixels = image.reshape(-1, 3)
    for k in range(len(pixels)):
        pixels[k, 0] = tables[0, pixels[k, 0]]
        pixels[k, 1] = tables[1, pixels[k, 1]]
        pixels[k, 2] = tables[2, pixels[k, 2]]


@nb.njit(nogil=True)
def _histograms(image: Any) -> Any:
    counts = np.zeros((3, 256), dtype=np.int32)
    pixels = image.reshape(-1, 3)
    for k in range(len(pixels)):
        counts[0, pixels[k, 0]] += 1
        counts[1, pixels[k, 1]] += 1
        counts[2, pixels[k, 2]] += 1
    return counts


@nb.njit(nogil=True)
def _auto_contrast(image: Any) -> None:
    """Stretch each channel to 0..255: Pillow's ImageOps.autocontrast."""
    pixels = image.reshape(-1, 3)
    lowest, highest = np.full(3, 255, dtype=np.uint8), np.zeros(3, dtype=np.uint8)
    for k in range(len(pixels)):
        for c in range(3):
            lowest[c] = min(lowest[c], pixels[k, c])
            highest[c] = max(highest[c], pixels[k, c])
    tables = np.empty((3, 256), dtype=np.uint8)
    for c in range(3):
        low, high = float(lowest[c]), float(highest[c])
        scale, offset = 1.0, 0.0
        if high > low:
            scale = 255.0 / (high - low)
            offset = -low * scale
        for value in range(256):
            tables[c, value] = np.uint8(min(max(value * scale + offset, 0.0), 255.0))
    _look_up_channels(image, tables)


@nb.njit(nogil=True)
def _equalize(image: Any) -> None:
    """Spread each channel's values evenly: Pillow's ImageOps.equalize."""
    counts = _histograms(image)
    tables = np.empty((3, 256), dtype=np.uint8)
    for c in range(3):
        last = 255
        while last > 0 and counts[c, last] == 0:
            last -= 1
        step = (counts[c].sum() - counts[c, last]) // 255
        below = step // 2
        for value in range(256):
            tables[c, value] = min(below // step, 255) if step > 0 else value
            below += counts[c, value]
    _look_up_channels(image, tables)


@nb.njit(nogil=True)
def _contrast(image: Any, factor: Any) -> None:
    """Blend with the mean grey: Pillow's ImageEnhance.Contrast."""
    pixels = image.reshape(-1, 3)
    total = np.int64(0)
    for k in range(len(pixels)):
        total += _grey(pixels[k, 0], pixels[k, 1], pixels[k, 2])
    mean = int(total / len(pixels) + 0.5)
    table = np.empty(256, dtype=np.uint8)
    for value in range(256):
        table[value] = _blend(mean, value, factor)
    _look_up(image, table)


@nb.njit(nogil=True)
def _color(image: Any, factor: Any) -> None:
    """Blend with the grey image: Pillow's ImageEnhance.Color."""
    pixels = image.reshape(-1, 3)
    for k in range(len(pixels)):
        red, green, blue = pixels[k]
        grey = _grey(red, green, blue)
        pixels[k, 0] = _blend(grey, red, factor)
        pixels[k, 1] = _blend(grey, green, factor)
        pixels[k, 2] = _blend(grey, blue, factor)


@nb.njit(nogil=True)
def _sharpen(image: Any, factor: Any, out: Any) -> None:
    """Blend with the smoothed image: Pillow's ImageEnhance.Sharpness. The border stays."""
    height, width, _ = image.shape
    length = max(3 * (width - 2), 0)
    for y in range(1, height - 1):
        above, here = image[y - 1].reshape(-1), image[y].reshape(-1)
        below, result = image[y + 1].reshape(-1), out[y].reshape(-1)[3:]
        left_above, above, right_above = above[:length], above[3:], above[6:]
        left, here, right = here[:length], here[3:], here[6:]
        left_below, below, right_below = below[:length], below[3:], below[6:]
        for k in range(length):
            total = np.int32(left_above[k]) + np.int32(above[k]) + np.int32(right_above[k])
            total += np.int32(left_below[k]) + np.int32(below[k]) + np.int32(right_below[k])
            total += np.int32(left[k]) + np.int32(right[k]) + np.int32(5) * np.int32(here[k])
            smooth = np.int32(np.int32(2) * total + np.int32(13)) // np.int32(26)
            result[k] = _blend(smooth, here[k], factor)


@nb.njit(nogil=True)
def _blur(image: Any, weights: Any) -> None:
    """Convolve rows, then columns, with pixels beyond the border as those on it."""
    height, width, _ = image.shape
    reach = BLUR_TAPS // 2
    across = np.empty((height, width * 3), dtype=np.float32)
    padded = np.empty((width + 2 * reach) * 3, dtype=np.float32)
    for y in range(height):
        for x in range(width + 2 * reach):
            for c in range(3):
                padded[3 * x + c] = image[y, min(max(x - reach, 0), width - 1), c]
        row = across[y]
        row[:] = 0
        for tap in range(BLUR_TAPS):
            weight, shifted = weights[tap], padded[3 * tap :]
            for k in range(len(row)):
                row[k] += weight * shifted[k]
    total = np.empty(width * 3, dtype=np.float32)
    for y in range(height):
        total[:] = np.float32(0.5)
        for tap in range(BLUR_TAPS):
            weight, row = weights[tap], across[min(max(y + tap - reach, 0), height - 1)]
            for k in range(len(total)):
                total[k] += weight * row[k]
        result = image[y].reshape(-1)
        for k in range(len(total)):
            result[k] = np.uint8(min(max(total[k], np.float32(0)), np.float32(255)))


@nb.njit(nogil=True)
def _cubic(offset: Any) -> Any:
    """Weights of four neighbours: Pillow's bicubic filter of Image.transform, whose a is -1."""
    d = np.float32(offset)
    d2 = d * d
    d3 = d2 * d
    one, two = np.float32(1), np.float32(2)
    return two * d2 - d - d3, one - two * d2 + d3, d + d2 - d3, d3 - d2


@nb.njit(nogil=True)
def _warp(image: Any, matrix: Any, fill: Any, out: Any) -> None:
    """Resample bicubically: Pillow's Image.transform with AFFINE."""
    height, width, _ = image.shape
    a, b, c, d, e, f = matrix
    values = image.reshape(-1)
    zero = np.float32(0)
    # Offsets of columns and rows from -2 on, with those beyond the border as those on it.
    columns, rows = np.empty(width + 4, np.int64), np.empty(height + 4, np.int64)
    for k in range(width + 4):
        columns[k] = min(max(k - 2, 0), width - 1) * 3
    for k in range(height + 4):
        rows[k] = min(max(k - 2, 0), height - 1) * width * 3
    for y in range(height):
        for x in range(width):
            u = a * (x + 0.5) + b * (y + 0.5) + c
            v = d * (x + 0.5) + e * (y + 0.5) + f
            if not (0 <= u < width and 0 <= v < height):
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = fill
                continue
            left, top = int(np.floor(u - 0.5)), int(np.floor(v - 0.5))
            across, down = _cubic(u - 0.5 - left), _cubic(v - 0.5 - top)
            red, green, blue = np.float32(ROUNDING), np.float32(ROUNDING), np.float32(ROUNDING)
            for j in range(4):
                if down[j] == zero:
                    continue
                row = rows[top + 1 + j]
                for i in range(4):
                    weight = across[i] * down[j]
                    place = row + columns[left + 1 + i]
                    red += weight * np.float32(values[place])
                    green += weight * np.float32(values[place + 1])
                    blue += weight * np.float32(values[place + 2])
            low, high = zero, np.float32(255)
            out[y, x, 0] = np.uint8(min(max(red, low), high))
            out[y, x, 1] = np.uint8(min(max(green, low), high))
            out[y, x, 2] = np.uint8(min(max(blue, low), high))
