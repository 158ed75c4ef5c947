"""The built-in sample: real handwritten digits in cluttered photo-like frames, as class folders.

scikit-learn carries 1,797 digits of 8 x 8 pixels (from the UCI repository: Optical Recognition of
Handwritten Digits). Each becomes one photograph-sized scene, so that a first run needs no download.
It shows that everything works; an accuracy on it says nothing about ImageNet.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from ffvit.errors import SourceError

Floats = npt.NDArray[np.float32]
Rng = np.random.Generator

VAL_FRACTION = 0.2
SIDE_PX = (96, 160)
# The digit's height, and how far it may lie off the centre, as fractions of the frame's shorter
# side. A centre crop of 7/8 must not cut it.
DIGIT_FRACTION = (0.66, 0.78)
SHIFT_FRACTION = 0.03
# By how much a digit is lighter than its frame, in luma from 0 to 255. Never darker: to learn that
# the sign does not matter would take a quickstart too many minutes.
CONTRAST = 100.0
JPEG_QUALITY = 90

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_INK_STEEPNESS = 9.0
_LARGEST_INK = 16.0


def write_sample(folder: Path, seed: int = 0) -> None:
    """Write the sample into `folder`/{train,val}/{0..9}/.

    About 1,440 and 360 JPEG files of 96 to 160 pixels a side. Each digit is in exactly one of the
    splits. The same seed gives the same files. The folder appears when all are written.

    Args:
        folder: To be made; may exist if it is empty.
        seed: Of the split and of the scenes.

    Raises:
        SourceError: The folder is not empty, or cannot be written.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise SourceError(
            f"{folder}: expected a new folder, but it is there; remove it or name another."
        )
    temporary = folder.with_name(f"{folder.name}.tmp.{os.getpid()}")
    digits, labels = load_digits(return_X_y=True)
    splits = _splits(labels, seed)
    try:
        for index, (digit, label) in enumerate(zip(digits.reshape(-1, 8, 8), labels, strict=True)):
            path = temporary / splits[index] / str(label) / f"digit_{index:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene = draw_scene(digit.astype(np.float32), np.random.default_rng([seed, index]))
            scene.save(path, quality=JPEG_QUALITY)
        temporary.replace(folder)
    except OSError as error:
        raise SourceError(f"{folder}: cannot write the sample ({error.strerror}).") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def draw_scene(digit: Floats, rng: Rng) -> Image.Image:
    """Set one digit into a frame of its own.

    Args:
        digit: (8, 8) float32 ink from 0 to 16.
        rng: Decides on everything else.

    Returns:
        RGB image, 96 to 160 pixels a side.
    """
    height, width = (int(side) for side in rng.integers(SIDE_PX[0], SIDE_PX[1] + 1, 2))
    back, ink = _contrasting_colors(rng)
    pixels = back + _clutter(height, width, rng) * rng.uniform(10, 20)
    pixels = _draw_distractors(pixels, back, rng)
    coverage = _place_digit(digit, height, width, rng)[..., None]
    textured_ink = ink + _clutter(height, width, rng) * 8
    pixels = pixels * (1 - coverage) + textured_ink * coverage
    pixels *= _lighting(height, width, rng)[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _splits(labels: npt.NDArray[Any], seed: int) -> list[str]:
    """Name the split of each digit: the same share of every class goes to val."""
    splits = ["train"] * len(labels)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        for index in members[: round(VAL_FRACTION * len(members))]:
            splits[index] = "val"
    return splits


def _contrasting_colors(rng: Rng) -> tuple[Floats, Floats]:
    """Draw RGB colours of frame and ink; the ink is clearly lighter, as chalk on a wall."""
    while True:
        back, ink = rng.uniform(20, 235, (2, 3)).astype(np.float32)
        if float((ink - back) @ _LUMA) >= CONTRAST:
            return back, ink


def _clutter(height: int, width: int, rng: Rng) -> Floats:
    """Make (height, width, 3) noise of unit variance with the 1 / frequency spectrum of photos."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    shape = (3, *frequency.shape)
    spectrum = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    # Colours of photographs vary far less than their brightness.
    spectrum = 0.4 * spectrum + 0.9 * spectrum[:1]
    noise = np.fft.irfft2(spectrum / frequency, s=(height, width)).transpose(1, 2, 0)
    unit: Floats = (noise / noise.std()).astype(np.float32)
    return unit


def _draw_distractors(pixels: Floats, back: Floats, rng: Rng) -> Floats:
    """Draw strokes and blobs in colours near the background's."""
    canvas = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(3, 7)):
        color = tuple(int(c) for c in np.clip(back + rng.uniform(-40, 40, 3), 0, 255))
        ends = rng.uniform(0, 1, (2, 2)) * canvas.size
        if rng.random() < 0.5:
            points = [(float(x), float(y)) for x, y in ends]
            draw.line(points, fill=color, width=int(rng.integers(2, 7)))
        else:
            center, radius = ends[0], rng.uniform(4, 22, 2)
            draw.ellipse([*(center - radius).tolist(), *(center + radius).tolist()], fill=color)
    return np.asarray(canvas, dtype=np.float32)


def _place_digit(digit: Floats, height: int, width: int, rng: Rng) -> Floats:
    """Enlarge, turn and place the digit; returns its (height, width) coverage from 0 to 1."""
    # The digits touch their border; with a blank pixel around them the pen strokes end smoothly.
    padded = np.pad(digit / _LARGEST_INK, 1)
    side = int(rng.uniform(*DIGIT_FRACTION) * min(height, width) * len(padded) / len(digit))
    ink = Image.fromarray(padded).resize((side, side), Image.Resampling.BICUBIC)
    ink = ink.rotate(float(rng.uniform(-6, 6)), Image.Resampling.BILINEAR)
    # A steep sigmoid gives the enlarged pixels the edge of a pen stroke.
    stroke = 1 / (1 + np.exp(-_INK_STEEPNESS * (np.asarray(ink) - 0.45)))
    stroke *= np.asarray(ink) > 0.05
    room = np.array([height - side, width - side])
    shift = rng.uniform(-SHIFT_FRACTION, SHIFT_FRACTION, 2) * min(height, width)
    top, left = np.clip(room / 2 + shift, 0, room).astype(int)
    coverage = np.zeros((height, width), dtype=np.float32)
    coverage[top : top + side, left : left + side] = stroke
    return coverage


def _lighting(height: int, width: int, rng: Rng) -> Floats:
    """Make a (height, width) brightness ramp around 1 in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    tilt: Floats = np.asarray(np.sin(angle) * rows + np.cos(angle) * columns, dtype=np.float32)
    return 1 + np.float32(rng.uniform(0, 0.15)) * tilt
