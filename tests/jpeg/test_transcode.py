"""JPEGs made from JPEGs keep what they should; nothing is called whole that a decoder refuses."""

import io
import itertools
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import references
from conftest import encode, gradient
from PIL import Image
from references import SAMPLINGS, Job, decode, noise, photograph

from ffvit.jpeg.decoders import decode_status
from ffvit.jpeg.header import read_header
from ffvit.jpeg.kernel import targets
from ffvit.jpeg.transcode import (
    add_restart_markers,
    libjpeg_turbo_version,
    shrink_jpeg,
    shrink_pixels,
)

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "imagenet_sample.tar"
BASELINE = ["444", "422", "420", "grey", "restart", "one_pixel", "odd_size", "wide", "optimized"]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def coverage(length: int, new_length: int) -> np.ndarray:
    """Give each target's part of each source: the overlap of two intervals, by definition."""
    edges = np.arange(length + 1)
    targets = np.arange(new_length + 1) * length / new_length
    overlap = np.minimum(edges[1:], targets[1:, None]) - np.maximum(edges[:-1], targets[:-1, None])
    return np.maximum(overlap, 0) * new_length / length


def area_mean(image: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = coverage(image.shape[0], height), coverage(image.shape[1], width)
    return np.einsum("yi,xj,ijc->yxc", rows, columns, image, optimize=True)


@pytest.mark.parametrize("new_size", [(1, 1), (7, 11), (29, 37), (30, 19), (31, 47)])
def test_pixels_are_shrunk_by_exact_coverage(new_size):
    image = np.asarray(gradient(31, 47)).copy()
    image[::3, ::2] = 255 - image[::3, ::2]
    result = shrink_pixels(image, new_size)
    assert np.abs(result - area_mean(image, *new_size)).max() <= 0.502


@pytest.mark.parametrize("kind", ["444", "422", "420", "restart", "odd_size", "wide", "optimized"])
@pytest.mark.parametrize("divisor", [1, 1.3, 2])
def test_shrunk_jpeg_is_as_near_as_one_made_by_way_of_pixels(jpeg_samples, kind, divisor):
    data = jpeg_samples[kind]
    whole = pixels(data)
    new_size = tuple(max(1, round(side / divisor)) for side in whole.shape[:2])
    target = area_mean(whole, *new_size)
    result = shrink_jpeg(data, whole.shape[:2], new_size, 90, 4)
    by_pixels = encode(
        Image.fromarray(np.round(target).astype(np.uint8)), quality=90, restart_marker_blocks=4
    )
    header = read_header(result)
    assert (header.height, header.width) == new_size
    assert header.sampling == ((2, 2), (1, 1), (1, 1))
    assert header.is_baseline
    assert header.restart_interval == 4
    assert Image.open(io.BytesIO(result)).quantization == (
        Image.open(io.BytesIO(by_pixels)).quantization
    )
    error = np.abs(pixels(result) - target).mean()
    assert error < 1.05 * np.abs(pixels(by_pixels) - target).mean() + 0.1


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_target_shrinks_to_the_same_file(sampling):
    for quality, make in itertools.product([10, 90, 100], [photograph, noise]):
        data = references.encode(make(67, 89), sampling, quality=quality, restart_marker_blocks=3)
        size = pixels(data).shape[:2]
        files = {shrink_jpeg(data, size, (45, 31), 90, 4, target) for target in targets()}
        assert len(files) == 1


@pytest.mark.parametrize("kind", ["grey", "cmyk", "progressive", "truncated", "empty"])
def test_what_cannot_be_shrunk_on_its_planes_is_refused(jpeg_samples, kind):
    with pytest.raises(ValueError, match=r"header|damaged"):
        shrink_jpeg(jpeg_samples[kind], (91, 118), (45, 59), 90, 4)


def test_jpeg_of_another_size_is_refused(jpeg_samples):
    for call in (
        lambda data: shrink_jpeg(data, (118, 91), (45, 59), 90, 4),
        lambda data: add_restart_markers(data, 118, 91, 4),
    ):
        with pytest.raises(ValueError, match="width and height"):
            call(jpeg_samples["420"])


def test_libjpeg_turbos_version_is_a_version():
    assert re.fullmatch(r"\d+\.\d+[\d.a-z]*", libjpeg_turbo_version())


def test_result_larger_than_the_first_buffer_is_written_whole():
    """A progressive file of one colour grows more than a hundredfold."""
    data = encode(Image.new("RGB", (1999, 1501), (9, 99, 200)), progressive=True, quality=75)
    result = add_restart_markers(data, 1501, 1999, 1)
    assert len(result) > 2 * len(data) + 4096
    assert np.array_equal(pixels(result), pixels(data))


def status(data: bytes) -> int:
    try:
        header = read_header(data)
    except ValueError:
        return -1
    return decode_status(data, header.height, header.width)


@pytest.mark.parametrize("kind", [*BASELINE, "progressive"])
def test_whole_files_pass(jpeg_samples, kind):
    assert status(jpeg_samples[kind]) == 0


@pytest.mark.parametrize("kind", ["cmyk", "truncated", "empty"])
def test_others_do_not(jpeg_samples, kind):
    assert status(jpeg_samples[kind]) != 0


@pytest.mark.parametrize("kind", ["444", "420", "restart"])
def test_every_cut_is_noticed(jpeg_samples, kind):
    data = jpeg_samples[kind]
    assert [n for n in range(len(data)) if status(data[:n]) == 0] == []


def damaged(files: list[bytes], num_files: int):
    """Flip a bit, remove a few bytes, or repeat some, mostly among the headers."""
    rng = np.random.default_rng(0)
    for number in range(num_files):
        data = bytearray(files[number % len(files)])
        place = int(rng.integers(2, 700 if number % 2 else len(data)))
        length = int(rng.integers(1, 5))
        if number % 3 == 0:
            del data[place : place + length]
        elif number % 3 == 1:
            data[place:place] = data[place - length : place]
        else:
            data[min(place, len(data) - 1)] ^= 1 << int(rng.integers(8))
        yield bytes(data)


def check_that_what_passes_decodes(files: list[bytes], num_files: int) -> None:
    num_whole = 0
    for data in damaged(files, num_files):
        if status(data) == 0:
            num_whole += 1
            header = read_header(data)
            _, statuses = decode([Job(data, header.height, header.width)], 7, 5)
            assert statuses.tolist() == [0]
    # Codes that changed into other codes are as sound as before.
    assert num_files // 50 < num_whole < num_files


def test_nothing_passes_that_the_loaders_decoder_refuses(jpeg_samples):
    files = [jpeg_samples[kind] for kind in BASELINE if len(jpeg_samples[kind]) > 700]
    check_that_what_passes_decodes(files, 3000)


def is_transcoded(data: bytes, function: str) -> bool:
    try:
        if function == "shrink":
            shrink_jpeg(data, (91, 118), (45, 59), 90, 4)
        else:
            add_restart_markers(data, 91, 118, 4)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("function", ["shrink", "restart"])
def test_damaged_files_give_a_result_or_an_error(jpeg_samples, function):
    files = [jpeg_samples[kind] for kind in ("444", "422", "420", "restart", "optimized")]
    num_transcoded = sum(is_transcoded(data, function) for data in damaged(files, 1500))
    assert 100 < num_transcoded < 1500


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not SAMPLE.exists(), reason="needs shared/data")
def test_real_images_pass_and_damaged_ones_never_wrongly():
    with tarfile.open(SAMPLE) as tar:
        files = [tar.extractfile(member).read() for member in tar if member.isfile()]
    assert all(status(data) == 0 for data in files)
    check_that_what_passes_decodes(files, 1000)
