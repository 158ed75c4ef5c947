"""What becomes of one image: upright, RGB, small enough; or one line that names the file."""

import io
import resource
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import encode, gradient
from PIL import Image

from ffvit.data.images import encode_image
from ffvit.errors import SourceError
from ffvit.jpeg.decoders import decode_status
from ffvit.jpeg.header import read_header
from ffvit.options import WriteSection

ODD_IMAGES = Path(__file__).resolve().parents[3] / "shared" / "data" / "odd_images.tar"


def raw_pixels(data: bytes, **options: object) -> np.ndarray:
    """Convert an image file to (height, width, 3) uint8 as raw mode stores it."""
    stored = encode_image(data, "image", WriteSection(**{"mode": "raw", "max_side": 0, **options}))
    return np.frombuffer(stored.data, np.uint8).reshape(stored.height, stored.width, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    # What each orientation does to the stored rows and columns, so that undoing it gives `upright`.
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: a.transpose(1, 0, 2)[::-1],
    }[orientation]
    stored = np.asarray(gradient(23, 31))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(stored), "PNG", exif=exif)
    assert np.array_equal(raw_pixels(data), undo(stored))


def test_sixteen_bit_grey_keeps_its_range():
    values = np.linspace(0, 65535, 23 * 31).astype(np.uint16).reshape(23, 31)
    pixels = raw_pixels(encode(Image.fromarray(values), "PNG"))
    assert np.array_equal(pixels, np.repeat((values >> 8)[..., None], 3, axis=2))


def test_transparency_shows_white():
    image = gradient(23, 31).convert("RGBA")
    alpha = np.zeros((23, 31), np.uint8)
    alpha[:, 10:] = 255
    image.putalpha(Image.fromarray(alpha))
    pixels = raw_pixels(encode(image, "PNG"))
    assert (pixels[:, :10] == 255).all()
    assert np.array_equal(pixels[:, 10:], np.asarray(gradient(23, 31))[:, 10:])


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode):
    image = gradient(23, 31).convert(mode)
    data = encode(image, "TIFF")
    assert np.array_equal(raw_pixels(data), np.asarray(image.convert("RGB")))


def test_float_pixels_are_refused():
    data = encode(Image.fromarray(np.ones((3, 5), np.float32)), "TIFF")
    with pytest.raises(SourceError, match="32 bits"):
        raw_pixels(data)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"max_side": 50}, (50, 33)),
        ({"short_side": 20}, (30, 20)),
        ({"max_side": 45, "short_side": 40}, (45, 30)),
        ({"max_side": 500, "short_side": 100}, (90, 60)),
    ],
)
def test_images_are_shrunk_to_both_limits_and_never_enlarged(options, size):
    pixels = raw_pixels(encode(gradient(60, 90), "PNG"), **options)
    assert pixels.shape == (size[1], size[0], 3)


def test_shrinking_averages_areas():
    image = np.asarray(gradient(60, 90)).astype(float)
    pixels = raw_pixels(encode(gradient(60, 90), "PNG"), max_side=30)
    means = image.reshape(20, 3, 30, 3, 3).mean(axis=(1, 3))
    assert np.abs(pixels - means).max() < 1  # Pillow rounds after each of the two directions


@pytest.mark.parametrize(("chroma", "luma"), [("420", (2, 2)), ("422", (2, 1)), ("444", (1, 1))])
def test_jpeg_options_are_honoured(chroma, luma):
    section = WriteSection(chroma=chroma, restart_interval=5, jpeg_quality=71)
    stored = encode_image(encode(gradient(60, 90), "PNG"), "image", section)
    header = read_header(stored.data)
    assert header.sampling == (luma, (1, 1), (1, 1))
    assert header.restart_interval == 5
    assert header.is_baseline
    opened = Image.open(io.BytesIO(stored.data))
    reference = Image.open(io.BytesIO(encode(gradient(60, 90), quality=71)))
    assert opened.quantization == reference.quantization
    assert np.abs(np.asarray(opened).astype(int) - np.asarray(gradient(60, 90))).mean() < 6


@pytest.mark.parametrize("chroma", ["420", "422", "444"])
def test_chroma_of_jpeg_sources_is_honoured(chroma):
    section = WriteSection(chroma=chroma, max_side=50)
    stored = encode_image(encode(gradient(60, 90), subsampling="4:4:4"), "image", section)
    assert read_header(stored.data).sampling[0] == {"420": (2, 2), "422": (2, 1)}.get(
        chroma, (1, 1)
    )
    assert (stored.height, stored.width) == (33, 50)


@pytest.mark.parametrize("mode", ["jpg", "passthrough"])
@pytest.mark.parametrize("kind", ["exif", "xmp"])
def test_turned_jpeg_is_turned(mode, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
    data = encode(
        gradient(23, 31), quality=95, **({"exif": exif} if kind == "exif" else {"xmp": xmp})
    )
    stored = encode_image(data, "image", WriteSection(mode=mode, jpeg_quality=95))
    assert (stored.height, stored.width) == (31, 23)
    expected = np.asarray(gradient(23, 31)).astype(int).transpose(1, 0, 2)[:, ::-1]
    error = np.abs(np.asarray(Image.open(io.BytesIO(stored.data))) - expected).mean()
    assert error < 8  # chroma halved twice; any other turn is beyond 40


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_shrinking_covers_areas_exactly_where_sizes_do_not_divide(mode):
    """A stripe of one pixel in three keeps its mean brightness in every place."""
    pixels = np.zeros((31, 96, 3), np.uint8)
    pixels[:, ::3] = 240
    data = encode(Image.fromarray(pixels), quality=100, subsampling="4:4:4")
    stored = encode_image(data, "image", WriteSection(mode=mode, max_side=32, jpeg_quality=100))
    if mode == "raw":
        result = np.frombuffer(stored.data, np.uint8).reshape(stored.height, stored.width, 3)
    else:
        result = np.asarray(Image.open(io.BytesIO(stored.data)))
    assert result.shape == (10, 32, 3)
    assert np.abs(result.astype(int) - 80).max() <= 4


def test_jpeg_has_the_standard_huffman_tables():
    section = WriteSection(restart_interval=0, jpeg_quality=75)
    stored = encode_image(encode(gradient(60, 90), "PNG"), "image", section)
    assert stored.data == encode(gradient(60, 90), quality=75, optimize=False)


@pytest.mark.parametrize(
    "kind", ["444", "422", "420", "restart", "one_pixel", "odd_size", "wide", "optimized"]
)
def test_passthrough_keeps_ordinary_jpegs(jpeg_samples, kind):
    stored = encode_image(jpeg_samples[kind], "image", WriteSection(mode="passthrough"))
    size = Image.open(io.BytesIO(jpeg_samples[kind])).size
    assert stored.data == jpeg_samples[kind]
    assert (stored.width, stored.height) == size
    assert stored.is_original


@pytest.mark.parametrize(
    "kind", ["grey", "progressive", "cmyk", "too_large", "turned", "png", "rgb"]
)
def test_passthrough_encodes_the_rest(jpeg_samples, kind):
    turned = Image.Exif()
    turned[0x0112] = 6
    others = {
        "too_large": encode(gradient(31, 119)),
        "turned": encode(gradient(23, 31), exif=turned),
        "png": encode(gradient(23, 31), "PNG"),
        "rgb": encode(gradient(23, 31), keep_rgb=True),
    }
    data = (jpeg_samples | others)[kind]
    section = WriteSection(mode="passthrough", max_side=118)
    stored = encode_image(data, "image", section)
    assert not stored.is_original
    assert stored.data == encode_image(data, "image", WriteSection(max_side=118)).data
    header = read_header(stored.data)
    assert header.is_baseline
    assert header.components == 3
    assert (stored.width, stored.height) == (header.width, header.height)


def test_passthrough_encodes_anew_what_only_pillow_reads(jpeg_samples):
    """Stray bytes before the end: Pillow reads on, the loader's decoder calls the image damaged."""
    whole = jpeg_samples["420"]
    stray = whole[:-2] + b"strayed" + whole[-2:]
    assert decode_status(whole, 91, 118) == 0
    assert decode_status(stray, 91, 118) != 0
    stored = encode_image(stray, "image", WriteSection(mode="passthrough"))
    assert not stored.is_original
    assert decode_status(stored.data, 91, 118) == 0


@pytest.mark.parametrize("mode", ["jpg", "raw", "passthrough"])
@pytest.mark.parametrize("kind", ["truncated", "empty", "garbage"])
def test_damaged_images_are_refused_by_name(jpeg_samples, kind, mode):
    data = (jpeg_samples | {"garbage": b"\xff\xd8\xff" + bytes(range(256))})[kind]
    with pytest.raises(SourceError, match=r"folder/broken\.jpg"):
        encode_image(data, "folder/broken.jpg", WriteSection(mode=mode))


def test_decompression_bombs_are_refused():
    with pytest.raises(SourceError, match="got 2500000000; leave it out"):
        encode_image(b"P6 50000 50000 255\n" + bytes(100), "image", WriteSection(mode="raw"))


@pytest.mark.data
@pytest.mark.skipif(not ODD_IMAGES.exists(), reason="needs shared/data")
@pytest.mark.parametrize("mode", ["jpg", "raw", "passthrough"])
def test_odd_images_are_converted_or_refused_by_name(mode):
    section = WriteSection(mode=mode)
    with tarfile.open(ODD_IMAGES) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
    converted = 0
    for name, data in files.items():
        try:
            stored = encode_image(data, name, section)
        except SourceError as error:
            assert str(error).startswith(name)  # noqa: PT017
            continue
        converted += 1
        assert 1 <= max(stored.width, stored.height) <= 500
    assert converted > 150


def claim_size(data: bytes, side: int) -> bytes:
    """Let the header of a JPEG or PNG of 60 x 90 pixels claim to be a square of this side."""
    if data.startswith(b"\x89PNG"):
        head = b"IHDR" + side.to_bytes(4, "big") * 2 + data[24:29]
        return data[:12] + head + zlib.crc32(head).to_bytes(4, "big") + data[33:]
    size = (60).to_bytes(2, "big") + (90).to_bytes(2, "big")
    assert data.count(size) == 1
    return data.replace(size, side.to_bytes(2, "big") * 2)


@pytest.mark.parametrize("mode", ["jpg", "raw", "passthrough"])
@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG"])
def test_image_with_too_many_pixels_is_refused_before_it_is_decoded(mode, kind):
    image = gradient(60, 90)
    data = encode(image, "PNG") if kind == "PNG" else encode(image, progressive=kind != "JPEG")
    bomb = claim_size(data, 60_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceError, match=r"^a bomb: expected up to 89478485 pixels.*max_pixels"):
        encode_image(bomb, "a bomb", WriteSection(mode=mode))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_limit_of_pixels_can_be_raised_above_that_of_pillow(monkeypatch, kind):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = encode(gradient(60, 90), kind)
    stored = encode_image(data, "image", WriteSection(max_pixels=5400))
    assert (stored.height, stored.width) == (60, 90)
    with pytest.raises(SourceError, match="up to 5399 pixels"):
        encode_image(data, "image", WriteSection(max_pixels=5399))
    assert Image.MAX_IMAGE_PIXELS == 1000
