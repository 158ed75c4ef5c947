"""One image has one result: whatever the instruction set, the restart markers, the crop around."""

import itertools

import numpy as np
import pytest
from references import (
    RAW,
    SAMPLINGS,
    Job,
    all_boxes,
    decode_one,
    encode,
    gradient,
    muted,
    noise,
    noisy_blue,
    photograph,
    pillow,
)

from ffvit.jpeg.kernel import FILTERS, ThreadPool, targets

# Larger and smaller than the boxes, never square but once, hardly a multiple of 16.
OUTPUTS = [(37, 53), (131, 19), (7, 160), (61, 61), (1, 1), (16, 33)]
RESTARTS = [
    {},
    {"restart_marker_blocks": 1},
    {"restart_marker_blocks": 3, "optimize": True},
    {"restart_marker_blocks": 4},
    {"restart_marker_rows": 1},
    {"restart_marker_blocks": 65535},
]


def pools():
    return {target: ThreadPool(1, target) for target in targets()}


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("restart", RESTARTS, ids=str)
def test_every_target_gives_the_same_bits(sampling, restart):
    pool_of, reference = pools(), ThreadPool(1, "plain")
    outputs, filters = itertools.cycle(OUTPUTS), itertools.cycle(FILTERS)
    own = [muted(photograph(67, 89)), muted(noise(67, 89)), noisy_blue(67, 89, 5)]
    either = [photograph(67, 89), noise(67, 89)]  # of libjpeg-turbo where colours are too strong
    for images in own, either:
        for image, quality in itertools.product(images, [10, 50, 90, 100]):
            data = encode(image, sampling, quality=quality, **restart)
            height, width = pillow(data).shape[:2]
            for number, box in enumerate(all_boxes(height, width)):
                job = Job(data, height, width, box, flip=number % 2 == 1)
                output, filter_name = next(outputs), next(filters)
                plain = decode_one(job, *output, filter_name, reference)
                for pool in pool_of.values():
                    assert (decode_one(job, *output, filter_name, pool) == plain).all()
        fallbacks = {pool.num_fallbacks for pool in pool_of.values()}
        assert len(fallbacks) == 1
        assert images is either or fallbacks == {0}


def test_every_target_gives_the_same_bits_from_raw_pixels():
    pool_of = pools()
    image = photograph(67, 89)
    for number, (box, output) in enumerate(itertools.product(all_boxes(67, 89), OUTPUTS)):
        job = Job(image.tobytes(), 67, 89, box, flip=number % 2 == 1, mode=RAW)
        for filter_name in FILTERS:
            results = [decode_one(job, *output, filter_name, pool) for pool in pool_of.values()]
            assert all((result == results[0]).all() for result in results)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_restart_markers_change_no_pixel(sampling):
    image = muted(photograph(83, 109))  # no colours that libjpeg-turbo would have to clip
    without = encode(image, sampling)
    height, width = pillow(without).shape[:2]
    pool = ThreadPool(1)
    for restart in RESTARTS[1:]:
        data = encode(image, sampling, **restart)
        assert data != without
        for box in all_boxes(height, width):
            expected = decode_one(Job(without, height, width, box), 29, 31, pool=pool)
            assert (decode_one(Job(data, height, width, box), 29, 31, pool=pool) == expected).all()
    assert pool.num_fallbacks == 0


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 4}], ids=str)
def test_a_crop_equals_that_part_of_the_whole_image(sampling, options):
    # Also at its border, where smooth upsampling takes chroma from outside of the crop.
    data = encode(photograph(83, 109), sampling, **options)
    height, width = pillow(data).shape[:2]
    pool = ThreadPool(1)
    whole = decode_one(Job(data, height, width), pool=pool)
    for top, left, box_height, box_width in all_boxes(height, width):
        job = Job(data, height, width, (top, left, box_height, box_width))
        part = whole[top : top + box_height, left : left + box_width]
        assert (decode_one(job, pool=pool) == part).all()


@pytest.mark.parametrize("size", [(1, 5), (5, 1), (2, 6), (3, 17), (17, 3), (16, 16), (1, 301)])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_tiny_and_thin_images_are_pillows(sampling, size):
    data = encode(noise(*size), sampling, quality=95)
    expected = pillow(data).astype(int)
    image = decode_one(Job(data, *expected.shape[:2]))
    assert np.abs(image - expected).max() <= 4


def test_flipping_mirrors_and_changes_nothing_else():
    data = encode(gradient(53, 71))
    for filter_name, output in itertools.product(FILTERS, OUTPUTS):
        job, flipped = (Job(data, 53, 71, (3, 2, 47, 61), flip) for flip in (False, True))
        mirrored = decode_one(flipped, *output, filter_name)[:, ::-1]
        assert (decode_one(job, *output, filter_name) == mirrored).all()


@pytest.mark.parametrize(
    ("options", "grey"),
    [
        ({"progressive": True}, False),
        ({"keep_rgb": True, "sampling": "4:4:4"}, False),
        ({}, True),
    ],
    ids=["progressive", "RGB", "grey"],
)
def test_other_kinds_go_to_libjpeg_turbo_and_are_pillows(options, grey):
    image = photograph(43, 59)
    data = encode(image[..., 0] if grey else image, **options)
    pool = ThreadPool(1)
    result = decode_one(Job(data, 43, 59), pool=pool)
    assert pool.num_fallbacks == 1
    assert np.abs(result - pillow(data).astype(int)).max() <= 1


def test_what_a_pool_did_before_changes_nothing():
    # Weights, tables and rows are kept from one image to the next: whatever two have in common.
    boxes = [(3, 2, 47, 61), (3, 2, 47, 60), (3, 3, 47, 61), (5, 2, 47, 61)]
    samplings = itertools.cycle([*SAMPLINGS, "4:2:0"])
    kept = ThreadPool(1)
    for box, filter_name, output in itertools.product(boxes, FILTERS, OUTPUTS):
        data = encode(photograph(80, 80), next(samplings))
        job = Job(data, 80, 80, box)
        fresh = decode_one(job, *output, filter_name, ThreadPool(1))
        assert (decode_one(job, *output, filter_name, kept) == fresh).all()


def test_sampling_without_a_name_in_turbojpeg_is_decoded():
    # Luma of 2 x 4 blocks in each of 3 MCUs, all of them empty: "no difference", "end of block" in
    # the standard tables of luma and chroma. Other samplings of libjpeg-turbo's have a name.
    bits = ("001010" * 8 + "0000" * 2) * 3
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big")
    data = encode(np.zeros((32, 48, 3), dtype=np.uint8))
    sampling = data.index(b"\xff\xc0\x00\x11") + 11
    headers = data[: data.index(b"\xff\xda") + 14]
    data = headers[:sampling] + b"\x24" + headers[sampling + 1 :] + scan + b"\xff\xd9"
    assert (decode_one(Job(data, 32, 48)) == 128).all()
