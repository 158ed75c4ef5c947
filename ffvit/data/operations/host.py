"""A plan's pixels on a CPU: one image after the other, in place, compiled by numba when needed.

The arithmetic is Pillow's, in float32 where Pillow's is; compiled without fastmath, so that an
image is the same wherever it is computed. device.py does the same on a GPU.

Dimensions: B images, H rows and W columns of pixels, T turns.
"""

from typing import Any

import numba as nb
import numpy as np
import torch

from ffvit.data.operations.plans import BLUR_TAPS, Kind, Plan, groups
from ffvit.data.operations.warp import warp


def change_pixels(images: torch.Tensor, plan: Plan, fill: tuple[int, int, int]) -> None:
    """Do what a plan says.

    Args:
        images: (B, H, W, 3) uint8 RGB on the CPU, contiguous; overwritten.
        plan: Of B images.
        fill: Colour of what lies outside of a warped image.
    """
    pixels, colour = images.numpy(), np.array(fill, dtype=np.uint8)
    for turn, kind, rows in groups(plan):
        if kind == Kind.TABLE:
            _look_up(pixels, rows, plan.tables[rows, turn])
        elif kind == Kind.AUTO_CONTRAST:
            _auto_contrast(pixels, rows)
        elif kind == Kind.EQUALIZE:
            _equalize(pixels, rows)
        elif kind == Kind.CONTRAST:
            _contrast(pixels, rows, plan.factors[rows, turn])
        elif kind == Kind.COLOR:
            _color(pixels, rows, plan.factors[rows, turn])
        elif kind == Kind.SHARPNESS:
            _sharpen(pixels, rows, plan.factors[rows, turn])
        elif kind == Kind.BLUR:
            _blur(pixels, rows, plan.blurs[rows, turn])
        elif kind == Kind.WARP:
            for row in rows:
                warp(pixels[row], plan.matrices[row, turn], colour)


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
def _apply(image: Any, tables: Any) -> None:
    """Replace the values of an image by those of (3, 256) tables."""
    pixels = image.reshape(-1, 3)
    red, green, blue = tables
    for k in range(len(pixels)):
        pixels[k, 0] = red[pixels[k, 0]]
        pixels[k, 1] = green[pixels[k, 1]]
        pixels[k, 2] = blue[pixels[k, 2]]


@nb.njit(nogil=True)
def _look_up(images: Any, rows: Any, tables: Any) -> None:
    for row, table in zip(rows, tables):  # noqa: B905 - numba's zip knows no strict
        values = images[row].reshape(-1)
        for k in range(len(values)):
            values[k] = table[values[k]]


@nb.njit(nogil=True)
def _auto_contrast(images: Any, rows: Any) -> None:
    """Stretch each channel to 0..255: Pillow's ImageOps.autocontrast."""
    tables = np.empty((3, 256), dtype=np.uint8)
    for row in rows:
        image = images[row]
        lines = image.reshape(len(image), -1)
        low_line, high_line = lines[0].copy(), lines[0].copy()
        for y in range(1, len(lines)):
            line = lines[y]
            for k in range(len(line)):
                low_line[k] = min(low_line[k], line[k])
                high_line[k] = max(high_line[k], line[k])
        for c in range(3):
            low, high = float(low_line[c::3].min()), float(high_line[c::3].max())
            scale, offset = 1.0, 0.0
            if high > low:
                scale = 255.0 / (high - low)
                offset = -low * scale
            for value in range(256):
                tables[c, value] = np.uint8(min(max(value * scale + offset, 0.0), 255.0))
        _apply(image, tables)


@nb.njit(nogil=True)
def _equalize(images: Any, rows: Any) -> None:
    """Spread each channel's values evenly: Pillow's ImageOps.equalize."""
    counts = np.empty((3, 256), dtype=np.int32)
    tables = np.empty((3, 256), dtype=np.uint8)
    for row in rows:
        counts[:] = 0
        pixels = images[row].reshape(-1, 3)
        for k in range(len(pixels)):
            counts[0, pixels[k, 0]] += 1
            counts[1, pixels[k, 1]] += 1
            counts[2, pixels[k, 2]] += 1
        for c in range(3):
            last = 255
            while last > 0 and counts[c, last] == 0:
                last -= 1
            step = (len(pixels) - counts[c, last]) // 255
            below = step // 2
            for value in range(256):
                tables[c, value] = min(below // step, 255) if step > 0 else value
                below += counts[c, value]
        _apply(images[row], tables)


@nb.njit(nogil=True)
def _contrast(images: Any, rows: Any, factors: Any) -> None:
    """Blend with the mean grey: Pillow's ImageEnhance.Contrast."""
    tables = np.empty((1, 256), dtype=np.uint8)
    for i in range(len(rows)):
        pixels = images[rows[i]].reshape(-1, 3)
        total = np.int64(0)
        for k in range(len(pixels)):
            total += _grey(pixels[k, 0], pixels[k, 1], pixels[k, 2])
        mean = int(total / len(pixels) + 0.5)
        for value in range(256):
            tables[0, value] = _blend(mean, value, factors[i])
        _look_up(images, rows[i : i + 1], tables)


@nb.njit(nogil=True)
def _color(images: Any, rows: Any, factors: Any) -> None:
    """Blend with the grey image: Pillow's ImageEnhance.Color."""
    for i in range(len(rows)):
        factor, pixels = factors[i], images[rows[i]].reshape(-1, 3)
        for k in range(len(pixels)):
            red, green, blue = pixels[k, 0], pixels[k, 1], pixels[k, 2]
            grey = _grey(red, green, blue)
            pixels[k, 0] = _blend(grey, red, factor)
            pixels[k, 1] = _blend(grey, green, factor)
            pixels[k, 2] = _blend(grey, blue, factor)


@nb.njit(nogil=True)
def _sharpen(images: Any, rows: Any, factors: Any) -> None:
    """Blend with the smoothed image: Pillow's ImageEnhance.Sharpness. The border stays."""
    height, width = images.shape[1:3]
    length = max(3 * (width - 2), 0)
    for i in range(len(rows)):
        factor, lines = factors[i], images[rows[i]].reshape(height, -1)
        above, here = lines[0].copy(), lines[0].copy()
        for y in range(1, height - 1):
            above, here = here, above
            here[:] = lines[y]
            if y == 1:
                above[:] = lines[0]
            below, result = lines[y + 1], lines[y][3:]
            a0, a1, a2 = above[:length], above[3:], above[6:]
            h0, h1, h2 = here[:length], here[3:], here[6:]
            b0, b1, b2 = below[:length], below[3:], below[6:]
            for k in range(length):
                total = np.int32(a0[k]) + np.int32(a1[k]) + np.int32(a2[k])
                total += np.int32(b0[k]) + np.int32(b1[k]) + np.int32(b2[k])
                total += np.int32(h0[k]) + np.int32(h2[k]) + np.int32(5) * np.int32(h1[k])
                smooth = np.int32(np.int32(2) * total + np.int32(13)) // np.int32(26)
                result[k] = _blend(smooth, h1[k], factor)


@nb.njit(nogil=True)
def _blur(images: Any, rows: Any, weights: Any) -> None:
    """Convolve rows, then columns, with pixels beyond the border as those on it."""
    height, width = images.shape[1:3]
    reach = BLUR_TAPS // 2
    across = np.empty((height, width * 3), dtype=np.float32)
    padded = np.empty((width + 2 * reach) * 3, dtype=np.float32)
    total = np.empty(width * 3, dtype=np.float32)
    for i in range(len(rows)):
        lines = images[rows[i]].reshape(height, -1)
        for y in range(height):
            line, sums = lines[y], across[y]
            for x in range(width + 2 * reach):
                place = 3 * min(max(x - reach, 0), width - 1)
                for c in range(3):
                    padded[3 * x + c] = line[place + c]
            sums[:] = 0
            for tap in range(BLUR_TAPS):
                weight, shifted = weights[i, tap], padded[3 * tap :]
                for k in range(len(sums)):
                    sums[k] += weight * shifted[k]
        for y in range(height):
            total[:] = np.float32(0.5)
            for tap in range(BLUR_TAPS):
                weight = weights[i, tap]
                sums = across[min(max(y + tap - reach, 0), height - 1)]
                for k in range(len(total)):
                    total[k] += weight * sums[k]
            line = lines[y]
            for k in range(len(total)):
                line[k] = np.uint8(min(max(total[k], np.float32(0)), np.float32(255)))
