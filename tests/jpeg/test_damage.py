"""Damaged files: a status and a black image, or the pixels that are there; never another's."""

import numpy as np
import pytest
from references import SAMPLINGS, Job, decode, decode_one, encode, noise, photograph, pillow

from ffvit.jpeg.kernel import ThreadPool, targets

OPTIONS = [{}, {"restart_marker_blocks": 2}, {"progressive": True}]


def neighbours(jobs, good):
    """Put a good job before and behind each."""
    return [good, *(job for pair in zip(jobs, [good] * len(jobs), strict=True) for job in pair)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_file_that_ends_too_early_fails_wherever_it_ends(options):
    data = encode(photograph(37, 41), quality=70, **options)
    good = Job(encode(noise(37, 41)), 37, 41)
    jobs = [Job(data[:end], 37, 41, (3, 5, 29, 31)) for end in range(len(data))]
    images, statuses = decode(neighbours(jobs, good), 13, 17)
    assert set(statuses[1::2].tolist()) == {-1, -2}
    assert not images[1::2].any()
    assert not statuses[::2].any()
    assert (images[::2] == decode_one(good, 13, 17)).all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_segment_that_ends_too_early_gives_its_own_pixels_or_none(sampling):
    # Where a crop ends before the damage, its pixels are the sound file's. Otherwise it fails: what
    # the thread decoded before must not fill the gap.
    data = encode(photograph(64, 64), sampling, quality=80, restart_marker_rows=1)
    height, width = pillow(data).shape[:2]
    marker = data.index(b"\xff\xd0", data.index(b"\xff\xda"))
    pool = ThreadPool(1)
    dirt = [Job(encode(noise(64, 64, seed), quality=100), 64, 64) for seed in range(3)]
    num_decoded = 0
    for num_lost in (1, 2, 5, 11, 23, 47, 95):
        wrong = data[: marker - num_lost] + data[marker:]
        for right in range(8, width + 1, 8):
            decode([dirt[(num_lost + right) % 3]], 8, 8, pool=pool)
            box = (0, 0, 7, right)
            images, statuses = decode([Job(wrong, height, width, box)], 7, right, pool=pool)
            if statuses[0] == 0:
                assert (images[0] == decode_one(Job(data, height, width, box))).all()
                num_decoded += 1
            else:
                assert statuses.tolist() == [-2]
    assert num_decoded > 0
    assert statuses.tolist() == [-2]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_flipped_bits_give_every_target_and_every_thread_the_same(options):
    data = encode(photograph(37, 41), quality=70, **options)
    flipped = []
    for place in range(2, len(data)):
        wrong = bytearray(data)
        wrong[place] ^= 1 << place % 8
        flipped.append(Job(bytes(wrong), 37, 41, (3, 5, 29, 31)))
    good = Job(encode(noise(37, 41)), 37, 41)
    jobs = neighbours(flipped, good)
    images, statuses = decode(jobs, 13, 17)
    assert set(statuses.tolist()) <= {0, -1, -2, -3, -8}
    assert not images[statuses != 0].any()
    assert not statuses[::2].any()
    assert (images[::2] == decode_one(good, 13, 17)).all()
    others = [(ThreadPool(1, target), jobs[::-1]) for target in targets()]
    for pool, reverse in [*others, (ThreadPool(3), jobs[::-1])]:
        again, other_statuses = decode(reverse, 13, 17, pool=pool)
        assert (other_statuses[::-1] == statuses).all()
        assert (again[::-1] == images).all()


@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
def test_flipped_bits_that_nothing_tells_give_libjpeg_turbos_pixels(options):
    # Not all: a flipped bit can make coefficients that no image has, and then either decoder
    # overflows in its own way. tests/fuzz compares the coefficients themselves.
    data = encode(photograph(37, 41), quality=90, **options)
    scan = data.index(b"\xff\xda") + 14
    num_equal = num_decoded = 0
    for place in range(scan, len(data) - 2):
        wrong = bytearray(data)
        wrong[place] ^= 1 << place % 8
        job = Job(bytes(wrong), 37, 41)
        images, statuses = decode([job], 37, 41)
        if statuses[0] == 0:
            num_decoded += 1
            num_equal += np.abs(images[0] - pillow(job.data).astype(int)).max() <= 4
    assert num_decoded > 100
    assert num_equal >= 0.95 * num_decoded


def without_segment(data, marker):
    start = data.index(b"\xff" + marker)
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    return data[:start] + data[start + 2 + length :]


@pytest.mark.parametrize("num_bytes", [0, 1, 7, 40])
def test_a_block_of_the_longest_codes_that_is_not_there_is_damage(num_bytes):
    # Zeros are a DC difference of 0 in one bit, and AC values of 15 bits behind codes of 16: a
    # block of 245 bytes, all but the first of them behind the end. For a sanitizer to see where it
    # is looked for.
    data = encode(np.zeros((16, 16, 3), dtype=np.uint8))
    for _ in range(4):
        data = without_segment(data, b"\xc4")
    dc = bytes([1, *[0] * 15, 0])
    ac = bytes([*[0] * 15, 1, 0x0F])
    tables = b"\x00" + dc + b"\x01" + dc + b"\x10" + ac + b"\x11" + ac
    segment = b"\xff\xc4" + (len(tables) + 2).to_bytes(2, "big") + tables
    scan = data.index(b"\xff\xda")
    data = data[:scan] + segment + data[scan : scan + 14] + bytes(num_bytes) + b"\xff\xd9"
    images, statuses = decode([Job(data, 16, 16)], 8, 8)
    assert statuses.tolist() == [-2]
    assert not images.any()


@pytest.mark.parametrize("marker", [b"\xdb", b"\xc4"], ids=["quantisation", "Huffman"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=str)
def test_tables_of_an_earlier_file_are_not_used(options, marker):
    data = encode(photograph(37, 41), quality=40, optimize=True, **options)
    wrong = Job(without_segment(data, marker), 37, 41)
    other = Job(encode(photograph(37, 41, 1)[..., 0], quality=90), 37, 41)
    for before in (Job(data, 37, 41), other):
        _, statuses = decode([before, wrong], 13, 17, pool=ThreadPool(1))
        assert statuses.tolist() == [0, -2]


@pytest.mark.parametrize("end", [3, 250, 400])
def test_a_damaged_header_does_not_disturb_the_next_file(end):
    grey = Job(encode(photograph(37, 41)[..., 0]), 37, 41)
    progressive = Job(encode(photograph(37, 41), progressive=True), 37, 41)
    damaged = bytearray(encode(photograph(37, 41)))
    damaged[end : end + 40] = b"\xff" * 40
    jobs = [grey, Job(bytes(damaged), 37, 41), grey, Job(progressive.data[:end], 37, 41)]
    _, statuses = decode([*jobs, progressive, grey], 13, 17, pool=ThreadPool(1))
    assert statuses[[0, 2, 4, 5]].tolist() == [0] * 4
    assert (statuses[[1, 3]] != 0).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=str)
def test_a_header_of_gigabytes_fails_without_taking_them(options):
    resource = pytest.importorskip("resource")
    data = encode(photograph(37, 41), **options)
    frame = data.index(b"\xff\xc2" if options else b"\xff\xc0") + 5
    wrong = data[:frame] + b"\x80\x00\x80\x00" + data[frame + 4 :]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, statuses = decode([Job(wrong, 32768, 32768, (0, 0, 64, 64))], 8, 8)
    assert statuses[0] in (-2, -6)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_frames_of_another_precision_or_coding_never_pass():
    data = encode(photograph(37, 41))
    frame = data.index(b"\xff\xc0")
    for marker in (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF):  # lossless, differential, ...
        wrong = data[: frame + 1] + bytes([marker]) + data[frame + 2 :]
        images, statuses = decode([Job(wrong, 37, 41)], 13, 17)
        assert statuses.tolist() == [-1]
        assert not images.any()
    for precision in (0, 7, 12, 16):
        wrong = data[: frame + 4] + bytes([precision]) + data[frame + 5 :]
        images, statuses = decode([Job(wrong, 37, 41)], 13, 17)
        assert statuses[0] < 0
        assert not images.any()
