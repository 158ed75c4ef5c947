"""Decode, cut and resize in one go against Pillow's whole image and matrices in float64."""

import itertools

import numpy as np
import pytest
from references import (
    SAMPLINGS,
    Job,
    all_boxes,
    clipped_first,
    decode_one,
    encode,
    exact,
    gradient,
    muted,
    noise,
    noisy_blue,
    photograph,
    pillow,
)

from ffvit.jpeg.kernel import FILTERS, ThreadPool

# Both inverse DCTs round to whole levels, so that Y and Cb may each be one off, and blue is
# Y + 1.772 Cb: 2.8, plus half a level of rounding at the end. Pillow has rounded chroma after
# upsampling it, which spreads the mean. A column or a row taken from the wrong place, a missing
# neighbour in upsampling, gives tens of levels on these pictures. Bicubic weights, some of them
# negative, have absolute values that sum to up to 1.3 on each axis.
MAX = {"area": 3.3, "bicubic": 4}
MEAN = 0.6
OUTPUTS = [(37, 53), (131, 19), (9, 200), (64, 48)]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("make", [gradient, photograph, noise])
@pytest.mark.parametrize("filter_name", FILTERS)
def test_crop_and_resize_is_exact_to_rounding(make, sampling, filter_name):
    pool = ThreadPool(1)
    outputs = itertools.cycle(OUTPUTS)
    for quality in (50, 92, 100):
        data = encode(muted(make(101, 127)), sampling, quality=quality)
        height, width = pillow(data).shape[:2]
        differences = []
        for number, box in enumerate(all_boxes(height, width)):
            job = Job(data, height, width, box, flip=number % 2 == 1)
            output = next(outputs)
            image = decode_one(job, *output, filter_name, pool)
            differences.append(np.abs(image - exact(job, *output, filter_name)).ravel())
        difference = np.concatenate(differences)
        assert difference.max() <= MAX[filter_name]
        assert difference.mean() <= MEAN
    assert pool.num_fallbacks == 0


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("filter_name", FILTERS)
def test_any_number_of_rows_may_make_one_row(sampling, filter_name):
    # The kernel keeps only the rows that are still needed: too few would show at some ratio, in the
    # rows above those that are decoded next.
    data = encode(muted(photograph(701, 19)), sampling)
    pool = ThreadPool(1)
    for num_rows in range(8, 48):
        job = Job(data, 701, 19, (num_rows, 1, 701 - num_rows, 17))
        output = ((701 - num_rows) // num_rows, 7)
        difference = np.abs(
            decode_one(job, *output, filter_name, pool) - exact(job, *output, filter_name)
        )
        assert difference.max() <= MAX[filter_name]


@pytest.mark.slow
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("filter_name", FILTERS)
def test_crops_at_every_alignment_are_exact_to_rounding(sampling, filter_name):
    data = encode(muted(photograph(101, 127)), sampling)
    height, width = pillow(data).shape[:2]
    pool = ThreadPool(1)
    for top, left in itertools.product(range(16), range(16)):
        for box_height, box_width in [(23, 31), (47, 40)]:
            job = Job(data, height, width, (top, left, box_height, box_width), flip=left % 2 == 1)
            difference = np.abs(
                decode_one(job, 29, 37, filter_name, pool) - exact(job, 29, 37, filter_name)
            )
            assert difference.max() <= MAX[filter_name]
            assert difference.mean() <= MEAN


@pytest.mark.parametrize("filter_name", FILTERS)
def test_a_large_image_of_many_pixels_for_each_output_is_exact(filter_name):
    # Every product of a sample and a weight is rounded to 1/128 of a level: n taps may add up to
    # n / 256 levels on either axis, hence sizes like those of camera pictures at small outputs.
    data = encode(muted(photograph(761, 1013)), quality=90)
    job = Job(data, 761, 1013)
    difference = np.abs(decode_one(job, 16, 16, filter_name) - exact(job, 16, 16, filter_name))
    assert difference.max() <= 3


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_colours_outside_of_rgb_are_clipped_before_they_are_averaged(sampling):
    data = encode(noisy_blue(96, 128, 20), sampling, quality=90)
    height, width = pillow(data).shape[:2]
    job, pool = Job(data, height, width), ThreadPool(1)
    ours = decode_one(job, 24, 24, pool=pool)
    assert pool.num_fallbacks == 0
    libjpeg = clipped_first(job, 24, 24)
    clipped_last = exact(job, 24, 24, "area")
    # What clip_colours leaves over is chroma that several pixels share, and rounding.
    assert np.abs(clipped_last - libjpeg).mean() > 0.45
    assert np.abs(ours - libjpeg).mean() < 0.7 * np.abs(clipped_last - libjpeg).mean()


@pytest.mark.parametrize("size", [24, 70])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_colours_far_outside_of_rgb_are_libjpeg_turbos_where_pixels_share_chroma(sampling, size):
    data = encode(noisy_blue(96, 128, 60), sampling, quality=90)
    height, width = pillow(data).shape[:2]
    job, pool = Job(data, height, width), ThreadPool(1)
    ours = decode_one(job, size, size, pool=pool)
    assert pool.num_fallbacks == (sampling != "4:4:4")
    largest = 1 if sampling != "4:4:4" else 3
    assert np.abs(ours - clipped_first(job, size, size)).max() <= largest


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_vivid_images_that_libjpeg_turbo_complains_about_are_decoded_all_the_same(sampling):
    data = encode(noisy_blue(96, 128, 60), sampling)
    height, width = pillow(data).shape[:2]
    expected = clipped_first(Job(data, height, width), 24, 24)
    version = data.index(b"JFIF\0") + 5
    data = data[:version] + b"\x09" + data[version + 1 :]  # of JFIF; there is none such
    assert np.abs(decode_one(Job(data, height, width), 24, 24) - expected).mean() < 6


def test_white_stays_white_and_black_black_under_any_shrinking():
    for level, size in itertools.product([0, 255], [300, 1000, 3000]):
        data = encode(np.full((size, size // 7, 3), level, dtype=np.uint8))
        image = decode_one(Job(data, size, size // 7), 5, 3)
        assert np.abs(image - float(level)).max() <= 2
