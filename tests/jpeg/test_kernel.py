"""The C++ kernel against Pillow and against a resize written out with matrices."""

import io
import multiprocessing
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ffvit.jpeg.kernel import FILTERS, JOB_FIELDS, STATUS_TEXT, ThreadPool, decode_batch

JPEG, RAW = 0, 1


def gradient(height, width):
    """Two gradients and a mark in the top left corner: no crop, flip or shift looks alike."""
    y, x = np.mgrid[:height, :width]
    image = np.stack(
        [255 * y / max(1, height - 1), 255 * x / max(1, width - 1), 128 + 0 * x], axis=-1
    ).round()
    image[: height // 5, : width // 7] = (250, 10, 240)
    return image.astype(np.uint8)


def encode(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", **({"quality": 92} | options))
    return buffer.getvalue()


def pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def decode(samples, resolution, filter_name="area", num_threads=1, pool=None):
    """Decode (bytes, mode, height, width, box, flip) samples; return images and statuses."""
    buffers = [np.frombuffer(sample[0] or b"\0", dtype=np.uint8) for sample in samples]
    jobs = np.zeros((len(samples), len(JOB_FIELDS)), dtype=np.int64)
    for row, buffer, (data, mode, height, width, box, flip) in zip(
        jobs, buffers, samples, strict=True
    ):
        row[:] = (buffer.ctypes.data, len(data), mode, height, width, *box, flip)
    images = np.full((len(samples), resolution, resolution, 3), 77, dtype=np.uint8)
    statuses = np.full(len(samples), 99, dtype=np.int32)
    pool = pool or ThreadPool(num_threads)
    num_failed = decode_batch(
        pool.address,
        len(samples),
        jobs.ctypes.data,
        FILTERS[filter_name],
        resolution,
        resolution,
        images.ctypes.data,
        statuses.ctypes.data,
    )
    assert num_failed == np.count_nonzero(statuses)
    return images, statuses


def decode_rectangle(sample, height, width, filter_name="area", pool=None):
    """Decode one sample to (1, height, width, 3) and its status."""
    data, mode, *size, box, flip = sample
    buffer = np.frombuffer(data, dtype=np.uint8)
    jobs = np.array([(buffer.ctypes.data, len(data), mode, *size, *box, flip)], dtype=np.int64)
    images = np.full((1, height, width, 3), 77, dtype=np.uint8)
    statuses = np.full(1, 99, dtype=np.int32)
    pool = pool or ThreadPool(1)
    arguments = (FILTERS[filter_name], height, width, images.ctypes.data, statuses.ctypes.data)
    decode_batch(pool.address, 1, jobs.ctypes.data, *arguments)
    return images, statuses


def whole(image, mode=RAW, data=None):
    height, width = image.shape[:2]
    return (data or image.tobytes(), mode, height, width, (0, 0, height, width), 0)


def coverage_matrix(size, resolution):
    """Exact area coverage, (resolution, size), rows summing to one."""
    edges = np.arange(resolution + 1) * size / resolution
    pixels = np.arange(size)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return np.maximum(high - low, 0) / (size / resolution)


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"progressive": True},
        {"restart_marker_blocks": 3},
        {"optimize": True},
    ],
    ids=str,
)
def test_whole_image_is_close_to_pillow(options):
    # Both round Y, Cb and Cr to whole levels after a DCT in integers, so each may differ by one;
    # blue is Y + 1.772 Cb. Pillow also rounds chroma after upsampling it, and the kernel does not.
    # A shifted or mirrored plane would differ by tens.
    image = gradient(67, 83)
    data = encode(image, **options)
    images, statuses = decode_rectangle(whole(image, JPEG, data), 67, 83)
    assert statuses.tolist() == [0]
    difference = np.abs(images[0].astype(int) - pillow(data))
    assert difference.max() <= 3
    assert difference.mean() < 0.5


def test_grey_image_becomes_rgb():
    grey = gradient(41, 41)[..., 0]
    data = encode(grey)
    images, statuses = decode([(data, JPEG, 41, 41, (0, 0, 41, 41), 0)], 41)
    assert statuses.tolist() == [0]
    assert np.abs(images[0].astype(int) - pillow(data)).max() <= 1


@pytest.mark.parametrize("flip", [0, 1])
def test_shrunk_crop_is_exact_area_coverage(flip):
    image = gradient(151, 113)
    top, left, height, width = 13, 7, 101, 97
    images, _ = decode([(image.tobytes(), RAW, 151, 113, (top, left, height, width), flip)], 53)
    crop = image[top : top + height, left : left + width].astype(float)
    rows, columns = coverage_matrix(height, 53), coverage_matrix(width, 53)
    expected = np.einsum("yh,hwc,xw->yxc", rows, crop, columns)
    if flip:
        expected = expected[:, ::-1]
    assert np.abs(images[0] - expected).max() < 0.55


@pytest.mark.parametrize(
    ("filter_name", "pillow_filter", "side"),
    [
        ("area", Image.Resampling.BILINEAR, 31),
        ("bicubic", Image.Resampling.BICUBIC, 31),
        ("bicubic", Image.Resampling.BICUBIC, 83),
    ],
)
def test_other_filters_are_pillows(filter_name, pillow_filter, side):
    # Pillow rounds and clips to 8 bits between its passes, the kernel does not: leave headroom.
    image = gradient(97, 89) // 2 + 60
    box = (5, 3, side, side)
    images, _ = decode([(image.tobytes(), RAW, 97, 89, box, 0)], 43, filter_name)
    expected = Image.fromarray(image[5 : 5 + side, 3 : 3 + side]).resize((43, 43), pillow_filter)
    assert np.abs(images[0].astype(int) - np.asarray(expected)).max() <= 1


def test_corner_mark_stays_in_its_corner_and_moves_with_the_flip():
    image = gradient(90, 90)
    plain, flipped = (
        decode([(image.tobytes(), RAW, 90, 90, (0, 0, 90, 90), flip)], 30)[0][0] for flip in (0, 1)
    )
    mark = np.array([250, 10, 240])
    assert np.abs(plain[0, 0] - mark).max() <= 1
    assert np.abs(flipped[0, -1] - mark).max() <= 1
    assert (plain[:, ::-1] == flipped).all()


@settings(max_examples=60)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    resolution=st.integers(1, 70),
    value=st.integers(0, 255),
    filter_name=st.sampled_from(sorted(FILTERS)),
)
def test_constant_image_stays_constant(height, width, resolution, value, filter_name):
    image = np.full((height, width, 3), value, dtype=np.uint8)
    images, statuses = decode([whole(image)], resolution, filter_name)
    assert statuses.tolist() == [0]
    assert (images == value).all()


def test_every_bad_sample_has_its_status_and_is_black():
    image = gradient(48, 56)
    data = encode(image)
    box = (0, 0, 48, 56)
    expected = {
        (b"", JPEG, 48, 56, box, 0): -1,
        (b"not a JPEG at all", JPEG, 48, 56, box, 0): -1,
        (data[:-100], JPEG, 48, 56, box, 0): -2,
        (data, JPEG, 56, 48, (0, 0, 40, 40), 0): -3,
        (data, JPEG, 48, 56, (0, 20, 48, 37), 0): -4,
        (data, JPEG, 48, 56, (0, 0, 0, 10), 0): -4,
        (data, JPEG, 48, 56, (-1, 0, 10, 10), 0): -4,
        (image.tobytes()[:-1], RAW, 48, 56, box, 0): -5,
        (data, 7, 48, 56, box, 0): -7,
    }
    images, statuses = decode(list(expected), 32)
    assert statuses.tolist() == list(expected.values())
    assert set(expected.values()) <= set(STATUS_TEXT)
    assert not images.any()


def test_a_bad_sample_does_not_disturb_its_neighbours():
    image = gradient(48, 56)
    good = whole(image, JPEG, encode(image))
    alone, _ = decode([good], 32)
    images, statuses = decode([good, (b"\xff\xd8\xff", *good[1:]), good], 32)
    assert statuses.tolist() == [0, -1, 0]
    assert (images[[0, 2]] == alone).all()


def test_any_number_of_threads_gives_the_same_pixels():
    generator = np.random.default_rng(5)
    samples = []
    for _ in range(37):
        height, width = generator.integers(20, 90, 2)
        image = gradient(height, width)
        box = (1, 2, int(height) - 3, int(width) - 5)
        samples.append((encode(image), JPEG, int(height), int(width), box, 1))
    one, _ = decode(samples, 29, num_threads=1)
    many, _ = decode(samples, 29, num_threads=5)
    assert (one == many).all()


def _decode_in_child(pool, samples, connection):
    connection.send(decode(samples, 24, pool=pool)[0])


def test_pool_works_after_a_fork():
    image = gradient(48, 56)
    samples = [whole(image, JPEG, encode(image))] * 7
    pool = ThreadPool(3)
    expected, _ = decode(samples, 24, pool=pool)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_decode_in_child, args=(pool, samples, sender))
    with warnings.catch_warnings():
        # Python 3.12 warns of forking with threads, which is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    assert receiver.poll(20)
    assert (receiver.recv() == expected).all()
    child.join(20)
    assert child.exitcode == 0
