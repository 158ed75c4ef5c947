"""What the kernel takes from a file's headers: size, colour space, Huffman tables."""

import numpy as np
import pytest
from references import Job, decode, decode_one, encode, gradient, noise, photograph, pillow

from ffvit.jpeg.kernel import ThreadPool

# Twelve symbols, 0 to 11: the usual DC table. As an AC table it has no runs of zeros.
CATEGORIES = bytes([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, *range(12)])


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("size", [(43, 60), (44, 59), (42, 59), (43, 58), (59, 43)])
def test_a_file_of_another_size_is_refused(size, options):
    data = encode(gradient(43, 59), **options)
    images, statuses = decode([Job(data, *size, (0, 0, 40, 40))], 13, 17)
    assert statuses.tolist() == [-3]
    assert not images.any()


def with_component_ids(data, ids):
    frame, scan = data.index(b"\xff\xc0\x00\x11") + 10, data.index(b"\xff\xda") + 5
    changed = bytearray(data)
    for number, component_id in enumerate(ids):
        changed[frame + 3 * number] = changed[scan + 2 * number] = component_id
    return bytes(changed)


def without_segment(data, marker):
    start = data.index(b"\xff" + marker)
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    return data[:start] + data[start + 2 + length :]


# An Adobe segment (here: of an RGB file) decides; else numbers from 1 say YCbCr, as does anything
# but the letters R, G, B.
@pytest.mark.parametrize(
    ("ids", "has_adobe", "is_own"),
    [
        ((1, 2, 3), True, False),
        ((1, 2, 3), False, True),
        ((82, 71, 66), False, False),
        ((0, 1, 2), False, False),
    ],
)
def test_the_colour_space_is_found_by_libjpegs_rules(ids, has_adobe, is_own):
    data = with_component_ids(encode(photograph(43, 59), "4:4:4", keep_rgb=True), ids)
    if not has_adobe:
        data = without_segment(data, b"\xee")
    pool = ThreadPool(1)
    image = decode_one(Job(data, 43, 59), pool=pool)
    assert pool.num_fallbacks == (0 if is_own else 1)
    assert np.abs(image - pillow(data).astype(int)).max() <= 4


@pytest.mark.parametrize("size", [5, 13, 14])
def test_a_short_jfif_segment_says_nothing_about_colours(size):
    # An Adobe segment says that this is RGB; a whole JFIF segment overrules it, by libjpeg's rules.
    adobe = encode(photograph(43, 59), "4:4:4", keep_rgb=True)
    content = b"JFIF\0\1\1\0\0\1\0\1\0\0"[:size]
    data = adobe[:2] + b"\xff\xe0" + (size + 2).to_bytes(2, "big") + content + adobe[2:]
    pool = ThreadPool(1)
    result = decode_one(Job(data, 43, 59), pool=pool)
    assert pool.num_fallbacks == (0 if size == 14 else 1)
    expected = pillow(data if size == 14 else adobe)  # Pillow refuses the short ones
    assert np.abs(result - expected.astype(int)).max() <= 4


def test_a_table_may_serve_for_both_classes():
    # The same bytes as a table of DC and of AC: blocks of "no difference", "end of block".
    data = encode(np.zeros((16, 48, 3), dtype=np.uint8))
    for _ in range(4):
        data = without_segment(data, b"\xc4")
    tables = b"".join(bytes([info]) + CATEGORIES for info in (0x00, 0x01, 0x10, 0x11))
    segment = b"\xff\xc4" + (len(tables) + 2).to_bytes(2, "big") + tables
    scan = data.index(b"\xff\xda")
    bits = "0000" * 6 * 3
    blocks = int(bits, 2).to_bytes(len(bits) // 8, "big")
    data = data[:scan] + segment + data[scan : scan + 14] + blocks + b"\xff\xd9"
    pool = ThreadPool(1)
    assert (decode_one(Job(data, 16, 48), pool=pool) == 128).all()
    assert pool.num_fallbacks == 0


def test_each_plane_has_its_own_quantisation():
    tables = [[step] * 64 for step in (3, 17, 40)]
    data = encode(photograph(43, 59), qtables=tables)
    pool = ThreadPool(1)
    image = decode_one(Job(data, 43, 59), pool=pool)
    assert pool.num_fallbacks == 0
    assert np.abs(image - pillow(data).astype(int)).max() <= 4


def code_lengths(data):
    """Read each Huffman table: {class and number: {symbol: length of its code}}."""
    tables, start = {}, 0
    while (start := data.find(b"\xff\xc4", start + 1)) > 0:
        counts, symbols = data[start + 5 : start + 21], iter(data[start + 21 :])
        pairs = [
            (next(symbols), length) for length, count in enumerate(counts, 1) for _ in range(count)
        ]
        tables[data[start + 4]] = dict(pairs)
    return tables


def test_long_codes_are_decoded_and_passed_over():
    # Noise, and in a corner a block of the last coefficient alone, behind 62 zeros: three of the
    # symbol 0xF0, which is so rare that its code is longer than any index of the kernel's.
    image = noise(160, 176)
    wave = np.cos((2 * np.arange(8) + 1) * 7 * np.pi / 16)
    image[:8, :8] = (128 + 100 * np.outer(wave, wave))[..., None].round()
    data = encode(image, "4:4:4", quality=88, optimize=True)
    assert code_lengths(data)[0x10][0xF0] > 11
    pool = ThreadPool(1)
    whole = decode_one(Job(data, 160, 176), pool=pool)
    assert np.abs(whole - pillow(data).astype(int)).max() <= 4
    for box in [(0, 40, 9, 100), (70, 3, 80, 31), (159, 175, 1, 1)]:
        top, left, height, width = box
        part = whole[top : top + height, left : left + width]
        assert (decode_one(Job(data, 160, 176, box), pool=pool) == part).all()
    assert pool.num_fallbacks == 0
