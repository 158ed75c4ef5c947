"""The header parser agrees with Pillow on sound files and refuses the rest."""

import io

import numpy as np
import pytest
from conftest import encode, gradient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ffvit.jpeg.header import read_header

SAMPLING = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}


@pytest.mark.parametrize(
    "kind", ["444", "422", "420", "grey", "progressive", "restart", "one_pixel", "wide", "cmyk"]
)
def test_header_agrees_with_pillow(jpeg_samples, kind):
    header = read_header(jpeg_samples[kind])
    image = Image.open(io.BytesIO(jpeg_samples[kind]))
    assert (header.width, header.height) == image.size
    assert header.components == len(image.getbands())
    assert header.is_baseline == (kind != "progressive")
    assert (header.precision, header.is_interleaved) == (8, True)
    assert header.is_ycbcr == (image.mode == "RGB")
    assert header.restart_interval == (3 if kind == "restart" else 0)


@pytest.mark.parametrize("kind", SAMPLING)
def test_sampling_factors_are_read(jpeg_samples, kind):
    assert read_header(jpeg_samples[kind]).sampling == (SAMPLING[kind], (1, 1), (1, 1))


def test_jpeg_that_stores_rgb_is_told_from_ycbcr():
    assert not read_header(encode(gradient(19, 23), keep_rgb=True)).is_ycbcr


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"GIF89a", b"\xff\xd8\xff\xd9"]
)
def test_what_is_no_jpeg_is_refused(data):
    with pytest.raises(ValueError, match=r"\w"):
        read_header(data)


def test_every_cut_within_the_headers_is_refused(jpeg_samples):
    data = jpeg_samples["420"]
    scan = data.index(b"\xff\xda")
    for length in range(scan + 2):
        with pytest.raises(ValueError, match=r"\w"):
            read_header(data[:length])


@given(st.binary(max_size=200), st.integers(0, 600))
def test_garbage_raises_nothing_but_value_errors(garbage, position):
    data = bytearray(encode(Image.fromarray(np.zeros((5, 7, 3), np.uint8))))
    data[position : position + len(garbage)] = garbage
    try:
        header = read_header(bytes(data))
    except ValueError:
        return
    assert header.width >= 1
    assert header.height >= 1


def test_short_jfif_segment_says_nothing_about_colours():
    # libjpeg and the kernel overlook it, too; so the ids tell that this is RGB.
    rgb = encode(gradient(19, 23), keep_rgb=True)
    for length, is_ycbcr in ((13, False), (14, True)):
        segment = b"JFIF\0" + bytes(length - 5)
        marker = b"\xff\xe0" + (2 + length).to_bytes(2, "big") + segment
        without_adobe = rgb[rgb.index(b"\xff\xdb") :]
        assert read_header(b"\xff\xd8" + marker + without_adobe).is_ycbcr == is_ycbcr


def test_quantization_is_that_of_pillow(jpeg_samples):
    tables = Image.open(io.BytesIO(jpeg_samples["420"])).quantization
    zigzag = read_header(jpeg_samples["420"]).quantization
    assert sorted(zigzag) == sorted(tables[0])
    assert zigzag[:3] == (tables[0][0], tables[0][1], tables[0][8])


@pytest.mark.parametrize("content", [b"\x00" + bytes(63), b"\x20" + bytes(64), b"\x10" + bytes(64)])
def test_damaged_quantization_is_refused(jpeg_samples, content):
    data = jpeg_samples["420"]
    marker = b"\xff\xdb" + (2 + len(content)).to_bytes(2, "big") + content
    with pytest.raises(ValueError, match="quantization"):
        read_header(data[:2] + marker + data[2:])
