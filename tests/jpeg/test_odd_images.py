"""Every JPEG of ../shared/data/odd_images.tar: a status, or Pillow's pixels; never a crash."""

import csv
import io
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references import Job, decode, encode, gradient

from ffvit.jpeg.kernel import STATUS_TEXT, ThreadPool, check_jpeg, targets

ARCHIVE = Path(__file__).resolve().parents[3] / "shared" / "data" / "odd_images.tar"
SIDE_LIMIT = 6000

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def files():
    """Read name and bytes of each file, and what Pillow said of it (MANIFEST.csv)."""
    if not ARCHIVE.exists():
        pytest.skip("needs ../shared/data/odd_images.tar")
    with tarfile.open(ARCHIVE) as archive:
        found = {Path(m.name).name: archive.extractfile(m).read() for m in archive if m.isfile()}
    manifest = csv.DictReader(io.StringIO(found.pop("MANIFEST.csv").decode()))
    verdicts = {row["file"]: row["pil"] for row in manifest}
    return [(name, data, verdicts[name]) for name, data in sorted(found.items())]


def opened(data):
    """Give Pillow's size and mode; a size of 16 where it finds none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of decompression bombs, and of damaged EXIF
            image = Image.open(io.BytesIO(data), formats=["JPEG"])
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return 16, 16, None
    return image.height, image.width, image.mode


def pillows_pixels(data):
    """Decode the whole file with Pillow; None where it cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(Image.open(io.BytesIO(data), formats=["JPEG"]).convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None


def test_every_odd_file_is_pillows_image_or_refused(files):
    good = Job(encode(gradient(48, 56)), 48, 56)
    num_compared = 0
    for name, data, _ in files:
        height, width, mode = opened(data)
        is_large = max(height, width) > SIDE_LIMIT
        size = (8, 8) if is_large else (height, width)
        images, statuses = decode([good, Job(data, height, width), good], *size)
        assert statuses[1] in STATUS_TEXT, name
        assert statuses[[0, 2]].tolist() == [0, 0], name
        assert (images[0] == images[2]).all(), name
        if statuses[1] != 0:
            assert not images[1].any(), name
        elif not is_large:
            # What libjpeg-turbo decodes without a warning, Pillow decodes too.
            expected = pillows_pixels(data)
            assert mode in ("RGB", "L"), name
            assert np.abs(images[1] - expected.astype(int)).max() <= 4, name
            num_compared += 1
    assert num_compared >= 30


def test_sound_photographs_are_not_refused(files):
    # Files of cameras and editors; the fuzzers' files are damaged, even where Pillow shows them.
    for name, data, verdict in files:
        height, width, mode = opened(data)
        is_photograph = not any(word in name for word in ("corpora", "corpus"))
        if verdict == "ok" and mode in ("RGB", "L") and is_photograph:
            _, statuses = decode([Job(data, height, width)], 8, 8)
            assert statuses.tolist() == [0], name


def test_wrong_sizes_are_refused(files):
    for name, data, _ in files:
        height, width, mode = opened(data)
        wrong = [(height + 1, width), (height, width + 1), (1, 1), (65535, 3)]
        if height != width:
            wrong.append((width, height))
        jobs = [Job(data, *size) for size in wrong if size != (height, width)]
        _, statuses = decode(jobs, 8, 8)
        if mode is not None:
            assert (statuses != 0).all(), name


def test_every_target_and_the_check_agree_on_every_odd_file(files):
    pools = [ThreadPool(1, target) for target in targets()]
    for name, data, _ in files:
        height, width, _ = opened(data)
        job = Job(data, height, width, (height // 3, width // 4, height // 2 + 1, width // 2 + 1))
        results = [decode([job, Job(data, height, width)], 23, 29, pool=pool) for pool in pools]
        for images, statuses in results:
            assert statuses.tolist() == results[0][1].tolist(), name
            assert (images == results[0][0]).all(), name
        for pool in pools:
            status = check_jpeg(pool.address, data, len(data), height, width)
            assert status == results[0][1][1], name
