"""Restart markers that are missing, too many or out of order fail the sample, and only that one."""

import numpy as np
import pytest
from references import Job, decode, decode_one, encode, gradient, photograph, pillow

from ffvit.jpeg.kernel import ThreadPool

HEIGHT, WIDTH = 61, 109  # 4 rows of 7 MCUs: 10 segments of 3 MCUs, so that the numbers come round
INTERVAL = 3


def places(data):
    """Find the restart markers: where each begins."""
    scan = scan_of(data)
    return [i for i in range(scan, len(data)) if data[i] == 0xFF and 0xD0 <= data[i + 1] <= 0xD7]


def scan_of(data):
    """Say where the entropy data begin."""
    return data.index(b"\xff\xda") + 14


def replaced(data, place, new, length=2):
    return data[:place] + new + data[place + length :]


def swapped(data, first, second):
    """Swap two markers, not what they divide."""
    one, other = data[first : first + 2], data[second : second + 2]
    return replaced(replaced(data, first, other), second, one)


def with_interval(data, interval):
    return replaced(data, data.index(b"\xff\xdd\x00\x04") + 4, interval.to_bytes(2, "big"))


def swapped_segments(data, markers):
    """Let two segments change places under markers that stay in order."""
    a, b, c, d = markers[1] + 2, markers[2], markers[2] + 2, markers[3]
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def without_interval(data):
    start = data.index(b"\xff\xdd\x00\x04")
    return data[:start] + data[start + 6 :]


FAULTS = {
    "first renumbered": lambda d, m: replaced(d, m[0], b"\xff\xd1"),
    "middle renumbered": lambda d, m: replaced(d, m[4], b"\xff\xd3"),
    "last renumbered": lambda d, m: replaced(d, m[-1], b"\xff\xd7"),
    "all one ahead": lambda d, m: (
        d[: m[0]]
        + b"".join(
            bytes([0xFF, 0xD0 + (i + 1) % 8]) + d[a + 2 : b]
            for i, (a, b) in enumerate(zip(m, [*m[1:], len(d)], strict=True))
        )
    ),
    "two swapped": lambda d, m: swapped(d, m[2], m[3]),
    "first removed": lambda d, m: replaced(d, m[0], b""),
    "last removed": lambda d, m: replaced(d, m[-1], b""),
    "one added": lambda d, m: replaced(d, m[3], b"\xff\xd3\xff\xd3"),
    "one added before the first segment": lambda d, _: replaced(d, scan_of(d), b"\xff\xd0", 0),
    "another marker instead": lambda d, m: replaced(d, m[5], b"\xff\xc0"),
    "end of image instead": lambda d, m: replaced(d, m[5], b"\xff\xd9"),
    "one segment lost with its marker": lambda d, m: d[: m[3]] + d[m[4] :],
    "one segment twice": lambda d, m: d[: m[4]] + d[m[3] :],
    "interval one less": lambda d, _: with_interval(d, INTERVAL - 1),
    "interval one more": lambda d, _: with_interval(d, INTERVAL + 1),
    "interval larger than the image": lambda d, _: with_interval(d, 65535),
    "interval zero": lambda d, _: with_interval(d, 0),
    "no interval": lambda d, _: without_interval(d),
}


# Faults of one segment, the third: markers are as they should be.
SEGMENT_FAULTS = {
    "segment empty": lambda d, m: d[: m[1] + 2] + d[m[2] :],
    "bytes too many": lambda d, m: replaced(d, m[2], b"\x12\x34\x56\xff\xd2"),
    "bytes too few": lambda d, m: replaced(d, m[2] - 3, b"", 3),
    "another segment's bytes": lambda d, m: d[: m[1] + 2] + d[m[4] + 2 : m[5]] + d[m[2] :],
}


@pytest.fixture(scope="module")
def data():
    return encode(photograph(HEIGHT, WIDTH), restart_marker_blocks=INTERVAL)


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_markers_fail_the_sample_alone(data, fault):
    wrong = FAULTS[fault](data, places(data))
    assert wrong != data
    good = Job(encode(gradient(HEIGHT, WIDTH)), HEIGHT, WIDTH)
    expected = decode_one(good, 31, 37)
    # The whole image, and crops that see none of the damage: sound markers before them, or after.
    boxes = [None, (0, 0, 20, 30), (45, 70, 16, 39)]
    jobs = [good]
    for box in boxes:
        jobs += [Job(wrong, HEIGHT, WIDTH, box), good]
    images, statuses = decode(jobs, 31, 37)
    assert statuses.tolist() == [0, *[-2, 0] * len(boxes)]
    assert not images[1::2].any()
    assert (images[::2] == expected).all()


@pytest.mark.parametrize("fault", SEGMENT_FAULTS)
def test_a_damaged_segment_changes_nothing_outside_of_it(data, fault):
    # It is MCUs 6 to 8: the last of the first row and two of the second. Smooth upsampling reaches
    # one MCU further.
    wrong = SEGMENT_FAULTS[fault](data, places(data))
    pool = ThreadPool(1)
    for box in [(0, 0, 15, 95), (33, 0, 28, 109), (0, 33, 30, 60), (17, 49, 10, 40)]:
        sound = decode_one(Job(data, HEIGHT, WIDTH, box), 31, 37)
        assert (decode_one(Job(wrong, HEIGHT, WIDTH, box), 31, 37, pool=pool) == sound).all()
    assert pool.num_fallbacks == 0
    if fault != "another segment's bytes":  # which is sound wherever it stands
        images, statuses = decode([Job(wrong, HEIGHT, WIDTH)], 31, 37, pool=pool)
        assert statuses.tolist() == [-2]
        assert not images.any()


def test_segments_in_the_wrong_order_are_libjpeg_turbos_image(data):
    # Nothing in the file tells: any decoder shows the segments where they stand.
    wrong = swapped_segments(data, places(data))
    pool = ThreadPool(1)
    image = decode_one(Job(wrong, HEIGHT, WIDTH), pool=pool)
    assert pool.num_fallbacks == 0
    assert np.abs(image - pillow(wrong).astype(int)).max() <= 4
    assert (image != decode_one(Job(data, HEIGHT, WIDTH))).any()


@pytest.mark.parametrize("interval", [28, 29, 1000, 65535])
def test_an_interval_as_large_as_the_image_needs_no_marker(interval):
    data = encode(photograph(HEIGHT, WIDTH), restart_marker_blocks=interval)
    assert not places(data)
    pool = ThreadPool(1)
    image = decode_one(Job(data, HEIGHT, WIDTH), pool=pool)
    assert pool.num_fallbacks == 0
    assert (image == decode_one(Job(encode(photograph(HEIGHT, WIDTH)), HEIGHT, WIDTH))).all()


def test_fill_bytes_before_a_marker_are_no_damage(data):
    # T.81, B.1.1.2: any marker may be preceded by bytes FF.
    filled = replaced(data, places(data)[2], b"\xff\xff\xff\xd2")
    image = decode_one(Job(filled, HEIGHT, WIDTH))
    assert np.abs(image - pillow(data).astype(int)).max() <= 4


def test_a_marker_behind_the_last_segment_is_left_to_libjpeg_turbo(data):
    pool = ThreadPool(1)
    image = decode_one(Job(data[:-2] + b"\xff\xd1\xff\xd9", HEIGHT, WIDTH), pool=pool)
    assert pool.num_fallbacks == 1
    assert np.abs(image - pillow(data).astype(int)).max() <= 1


def test_bytes_behind_the_end_are_ignored(data):
    pool = ThreadPool(1)
    expected = decode_one(Job(data, HEIGHT, WIDTH), pool=pool)
    for behind in (b"\x00", b"\xff", b"\xff\xd0", b"\xff\xd9", data):
        assert (decode_one(Job(data + behind, HEIGHT, WIDTH), pool=pool) == expected).all()
    assert pool.num_fallbacks == 0
