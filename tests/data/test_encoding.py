"""Images cross from worker processes in order and whole, in shared memory or through the pipe."""

import numpy as np
import pytest
from conftest import encode, gradient

from ffvit.data import encoding
from ffvit.data.encoding import RUN_AHEAD, encode_in_order
from ffvit.data.images import encode_image
from ffvit.data.sources import Source
from ffvit.data.sources.base import MemoryStore
from ffvit.options import WriteSection

NUM_IMAGES = 5 * RUN_AHEAD + 3


@pytest.fixture(scope="module")
def source() -> Source:
    """Make images of many sizes, more than there are slots for two workers."""
    sizes = [(3 + i % 41, 5 + i % 29) for i in range(NUM_IMAGES)]
    files = [encode(gradient(*size, mark=(i, 7, 0)), "PNG") for i, size in enumerate(sizes)]
    return Source(
        store=MemoryStore([str(i) for i in range(NUM_IMAGES)], files),
        keys=np.arange(NUM_IMAGES),
        labels=np.zeros(NUM_IMAGES, dtype=np.int64),
        label_names=("all",),
        description="images in memory",
    )


@pytest.mark.parametrize("slot_bytes", [0, 1500, 1 << 20])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_images_arrive_whole_in_order_whatever_fits_a_slot(
    source, monkeypatch, slot_bytes, num_workers
):
    monkeypatch.setattr(encoding, "SLOT_BYTES", slot_bytes)
    section = WriteSection(mode="raw")
    order = np.random.default_rng(0).permutation(NUM_IMAGES)
    images = encode_in_order(source, order, section, num_workers)
    # Copies, as a slot is filled again when the next image is asked for.
    arrived = [(bytes(image.data), image.height, image.width) for image in images]
    for index, (data, height, width) in zip(order, arrived, strict=True):
        expected = encode_image(source.read(index), "image", section)
        assert (data, height, width) == (expected.data, expected.height, expected.width)
