"""Resampling on a CPU: affine maps of images, by the bicubic filter of Pillow's Image.transform.

Where a map only shifts lines, each as a whole (shears and translations), a line's pixels have the
same weights, and loops run over consecutive values: some ten times as fast as pixel by pixel.

Dimensions: H lines and W columns of pixels.
"""

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

# What a resampled value is raised by before its fraction is cut off: sums in float32 may be a
# little below the whole number that they are exactly, as in an even area.
ROUNDING = 2.0**-10


def warp(image: Pixels, matrix: npt.NDArray[np.float64], fill: Pixels) -> None:
    """Resample an image in place.

    Args:
        image: (H, W, 3) uint8.
        matrix: (6,) float64 a, b, c, d, e, f: the pixel whose centre is (x, y) comes from
            (a x + b y + c, d x + e y + f).
        fill: (3,) uint8 colour of what lies outside.
    """
    a, b, c, d, e, f = matrix.tolist()
    if a == 1 and e == 1 and d == 0:
        _shift_lines(image.copy(), b, c, f, fill, image)
    elif a == 1 and e == 1 and b == 0:
        turned = np.empty((image.shape[1], image.shape[0], 3), dtype=np.uint8)
        shifted = np.empty_like(turned)
        _transpose(image, turned)
        _shift_lines(turned, d, f, c, fill, shifted)
        _transpose(shifted, image)
    else:
        _resample(image.copy(), matrix, fill, image)


@nb.njit(nogil=True)
def _cubic(distance: Any) -> Any:
    """Weigh four pixels, of which the second is `distance` before the place: a cubic of a = -1."""
    d = np.float32(distance)
    d2 = d * d
    d3 = d2 * d
    one, two = np.float32(1), np.float32(2)
    return two * d2 - d - d3, one - two * d2 + d3, d + d2 - d3, d3 - d2


@nb.njit(nogil=True)
def _clip(value: Any) -> Any:
    return np.uint8(min(max(value, np.float32(0)), np.float32(255)))


@nb.njit(nogil=True)
def _shift_lines(image: Any, slope: Any, across: Any, down: Any, fill: Any, out: Any) -> None:
    """Take (x, y) from (x + slope y + across, y + down)."""
    height, width, _ = image.shape
    source, result = image.reshape(height, -1), out.reshape(height, -1)
    padded = np.empty((width + 4) * 3, dtype=np.float32)  # two pixels beyond each border
    line = padded[6 : 6 + 3 * width]
    sums = np.empty(3 * width, dtype=np.float32)
    for y in range(height):
        shift, v = slope * (y + 0.5) + across, y + 0.5 + down
        first = min(max(int(np.ceil(-shift - 0.5)), 0), width)  # from here on inside
        last = min(max(int(np.ceil(width - shift - 0.5)), 0), width)  # until before here
        if not 0 <= v < height or first >= last:
            first = last = width
        for x in range(width):
            if not first <= x < last:
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = fill
        if first == last:
            continue

        top, weights = int(v + 0.5), _cubic(v + 0.5 - int(v + 0.5))
        line[:] = 0
        for tap in range(4):
            weight, values = weights[tap], source[min(max(top - 2 + tap, 0), height - 1)]
            if weight != 0:
                for k in range(len(values)):
                    line[k] += weight * np.float32(values[k])
        for k in range(6):
            padded[k] = line[k % 3]
            padded[6 + 3 * width + k] = line[3 * (width - 1) + k % 3]

        u = first + 0.5 + shift
        left, weights = int(u + 0.5), _cubic(u + 0.5 - int(u + 0.5))
        total = sums[: 3 * (last - first)]
        total[:] = np.float32(ROUNDING)
        for tap in range(4):
            weight, shifted = weights[tap], padded[3 * (left + tap) :]
            if weight != 0:
                for k in range(len(total)):
                    total[k] += weight * shifted[k]
        target = result[y][3 * first :]
        for k in range(len(total)):
            target[k] = _clip(total[k])


@nb.njit(nogil=True)
def _transpose(image: Any, out: Any) -> None:
    """Swap lines and columns, some lines at a time, as whole columns would not stay in cache."""
    height, width, _ = image.shape
    for begin in range(0, height, 16):
        for x in range(width):
            for y in range(begin, min(begin + 16, height)):
                out[x, y, 0] = image[y, x, 0]
                out[x, y, 1] = image[y, x, 1]
                out[x, y, 2] = image[y, x, 2]


@nb.njit(nogil=True)
def _resample(image: Any, matrix: Any, fill: Any, out: Any) -> None:
    """Resample pixel by pixel."""
    height, width, _ = image.shape
    a, b, c, d, e, f = matrix
    values = image.reshape(-1)
    # Places of columns and lines from -2 on, with those beyond the border as those on it. Unsigned,
    # as numba looks at signed ones whether they count from the end.
    columns, lines = np.empty(width + 4, np.uint64), np.empty(height + 4, np.uint64)
    for k in range(width + 4):
        columns[k] = min(max(k - 2, 0), width - 1) * 3
    for k in range(height + 4):
        lines[k] = min(max(k - 2, 0), height - 1) * width * 3
    one, two, zero = np.uint64(1), np.uint64(2), np.float32(0)
    for y in range(height):
        for x in range(width):
            u = a * (x + 0.5) + b * (y + 0.5) + c
            v = d * (x + 0.5) + e * (y + 0.5) + f
            if not (0 <= u < width and 0 <= v < height):
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = fill
                continue
            left, top = int(u + 0.5), int(v + 0.5)
            across, down = _cubic(u + 0.5 - left), _cubic(v + 0.5 - top)
            red, green, blue = np.float32(ROUNDING), np.float32(ROUNDING), np.float32(ROUNDING)
            for j in range(4):
                line, r, g, b_ = lines[np.uint64(top + j)], zero, zero, zero
                for i in range(4):
                    place = line + columns[np.uint64(left + i)]
                    r += across[i] * np.float32(values[place])
                    g += across[i] * np.float32(values[place + one])
                    b_ += across[i] * np.float32(values[place + two])
                red += down[j] * r
                green += down[j] * g
                blue += down[j] * b_
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = _clip(red), _clip(green), _clip(blue)
