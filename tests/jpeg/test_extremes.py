"""Images of the largest coefficients that 8 bits can need, and of the most."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from references import SAMPLINGS, Job, decode_one, encode, noise, pillow

from ffvit.jpeg.kernel import ThreadPool, targets

HEIGHT, WIDTH = 93, 109


def repeated(values):
    return np.repeat(np.where(values, 255, 0).astype(np.uint8)[..., None], 3, axis=2)


def text():
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for line in range(8):
        draw.text((2, 12 * line), "Hxg&%#@WMil0123456", fill="black")
    return np.asarray(image)


def squares(side):
    """Squares of random saturated colours: chroma of full contrast."""
    rng = np.random.default_rng(side)
    corners = rng.integers(0, 2, (HEIGHT // side + 1, WIDTH // side + 1, 3)) * 255
    enlarged = np.repeat(np.repeat(corners, side, axis=0), side, axis=1)
    return enlarged[:HEIGHT, :WIDTH].astype(np.uint8)


y, x = np.mgrid[:HEIGHT, :WIDTH]
PICTURES = {
    "checkerboard of pixels": repeated((x + y) % 2),  # hardly anything but coefficient 63
    "checkerboard of 3 pixels": repeated((x // 3 + y // 3) % 2),
    "checkerboard of 4 pixels": repeated((x // 4 + y // 4) % 2),
    "columns": repeated(x % 2),
    "rows": repeated(y % 3 < 1),
    "text": text(),
    "squares of 8 pixels": squares(8),
    "squares of 3 pixels": squares(3),
    "pixels of saturated colours": squares(1),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_full_contrast_is_pillows_at_every_quality(name, sampling):
    # Up to 4 levels are rounding. Quality 10 and less rounds coefficients by up to 127 levels, so
    # that sums of the inverse DCT may leave int16, where the kernel stops at its limit and
    # libjpeg-turbo does not: one value in thousands, and never far off.
    pool = ThreadPool(1)
    for quality in (1, 5, 10, 20, 30, 50, 90, 100):
        data = encode(PICTURES[name], sampling, quality=quality)
        expected = pillow(data).astype(int)
        difference = np.abs(decode_one(Job(data, *expected.shape[:2]), pool=pool) - expected)
        assert difference.max() <= (4 if quality > 20 else 24)
        assert (difference > 4).mean() < 0.001
        assert difference.mean() <= 0.5
    assert pool.num_fallbacks == 0


@pytest.mark.parametrize("quality", [20, 50, 90, 100])
def test_the_inverse_dct_rounds_nearly_always_as_libjpeg_turbos(quality):
    # Without upsampling and resizing both give whole levels of Y, Cb and Cr: most are equal, and
    # an error of half a percent in one constant already doubles the mean difference.
    data = encode(noise(HEIGHT, WIDTH), "4:4:4", quality=quality)
    difference = np.abs(decode_one(Job(data, HEIGHT, WIDTH)) - pillow(data).astype(int))
    assert difference.mean() <= 0.08


def test_flat_colours_are_converted_as_by_libjpeg_turbo():
    # One coefficient for each plane of a block, hence equal Y, Cb and Cr: what is left is the
    # rounding of the conversion, also where colours lie outside of RGB.
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 2, (24, 32, 3)) * 255
    colours[12:] = rng.integers(0, 256, (12, 32, 3))
    image = np.repeat(np.repeat(colours, 8, axis=0), 8, axis=1).astype(np.uint8)
    for quality in (20, 100):
        data = encode(image, "4:4:4", quality=quality)
        difference = np.abs(decode_one(Job(data, 192, 256)) - pillow(data).astype(int))
        assert difference.max() <= 1
        assert difference.mean() <= 0.02


def scan_of(data):
    """Say where the entropy data begin."""
    return data.index(b"\xff\xda") + 14


@pytest.mark.parametrize("restart", [0, 1])
def test_blocks_without_an_end_of_block_code_are_decoded(restart):
    # Noise at quality 100 has all 64 coefficients in almost every block, over 4 bits each.
    image = noise(64, 80)
    data = encode(image, "4:4:4", quality=100, restart_marker_blocks=restart)
    num_coefficients = 64 * 80 * 3
    assert (len(data) - scan_of(data)) * 8 > 4 * num_coefficients
    for target in targets():
        pool = ThreadPool(1, target)
        for box in [(0, 0, 64, 80), (33, 51, 1, 1)]:  # decoded, and mostly passed over
            top, left, height, width = box
            result = decode_one(Job(data, 64, 80, box), pool=pool)
            expected = pillow(data)[top : top + height, left : left + width].astype(int)
            assert np.abs(result - expected).max() <= 4
        assert pool.num_fallbacks == 0
