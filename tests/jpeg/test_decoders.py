"""The operations in stock ffcv's own Loader, on betons that stock ffcv wrote."""

import gc
import threading

import numpy as np
import pytest
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import (
    CenterCropRGBImageDecoder,
    IntDecoder,
    RandomResizedCropRGBImageDecoder,
    SimpleRGBImageDecoder,
)
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import ToTensor
from ffcv.writer import DatasetWriter

from ffvit.jpeg.decoders import (
    EPOCH,
    FAILED_SAMPLE,
    POSITION,
    CenterCropDecoder,
    JpegError,
    RandomResizedCropDecoder,
    WholeImageDecoder,
)

NUM_SAMPLES = 11

# Stock decoders leave numba dispatchers whose finalisers fail (numba 0.68: KeyError in its own
# table of overloads); they are collected in this module, where that is no news.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <finalize:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def collect_garbage():
    yield
    gc.collect()


class Gradients:
    """Images whose red grows downwards, green rightwards, and whose blue tells the index."""

    def __init__(self, is_one_size):
        self.is_one_size = is_one_size

    def __len__(self):
        return NUM_SAMPLES

    def __getitem__(self, index):
        height, width = (67, 83) if self.is_one_size else (67 + index, 83 - index)
        y, x = np.mgrid[:height, :width]
        image = np.stack([3 * y, 2 * x, 0 * x + 20 * index], axis=-1)
        return image.astype(np.uint8), index


def write(path, is_one_size=False, mode="jpg"):
    fields = {"image": RGBImageField(write_mode=mode, jpeg_quality=97), "label": IntField()}
    writer = DatasetWriter(str(path), fields, num_workers=1)
    writer.from_indexed_dataset(Gradients(is_one_size))
    return path


@pytest.fixture(scope="module")
def beton(tmp_path_factory):
    return write(tmp_path_factory.mktemp("decoders") / "sizes.beton")


def stock_loader(path, *decoders):
    pipelines = {"image": [*decoders, ToTensor()], "label": [IntDecoder(), ToTensor()]}
    order = OrderOption.SEQUENTIAL
    return Loader(str(path), 4, num_workers=1, order=order, pipelines=pipelines, drop_last=False)


def images_of(loader):
    return np.concatenate([images.numpy().copy() for images, _ in loader]).astype(int)


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_whole_images_are_those_of_stock_ffcv(tmp_path, mode):
    path = write(tmp_path / "whole.beton", is_one_size=True, mode=mode)
    ours = images_of(stock_loader(path, WholeImageDecoder(num_threads=2)))
    assert ours.shape == (NUM_SAMPLES, 67, 83, 3)
    # Stock asks libjpeg-turbo for its fast DCT.
    bound = 0 if mode == "raw" else 6
    assert np.abs(ours - images_of(stock_loader(path, SimpleRGBImageDecoder()))).max() <= bound


def test_whole_images_of_several_sizes_are_refused(beton):
    with pytest.raises(TypeError, match="one size, got 73 to 83 x 67 to 77 pixels"):
        stock_loader(beton, WholeImageDecoder())


def test_centre_crop_is_that_of_stock_ffcv(beton):
    ours = images_of(stock_loader(beton, CenterCropDecoder(48, ratio=1.0)))
    stock = images_of(stock_loader(beton, CenterCropRGBImageDecoder((48, 48), ratio=1.0)))
    assert np.abs(ours - stock).max() <= 8
    assert np.abs(ours - stock).mean() < 1.5


def test_random_crops_show_parts_of_the_right_image(beton):
    loader = stock_loader(beton, RandomResizedCropDecoder(32, seed=3))
    images = images_of(loader)
    blue = images[..., 2].mean(axis=(1, 2))
    assert np.abs(blue - 20 * np.arange(NUM_SAMPLES)).max() < 4
    # Red grows downwards by 3 levels a pixel at most: a crop of 8 % to all of it.
    heights = (images[:, -1, :, 0] - images[:, 0, :, 0]).mean(axis=1) / 3
    assert (heights > 8).all()
    assert (heights < 80).all()
    assert heights.std() > 5


def test_crops_go_on_from_epoch_to_epoch_and_can_be_repeated(beton):
    decoder = RandomResizedCropDecoder(32, seed=3)
    loader = stock_loader(beton, decoder)
    first, second = images_of(loader), images_of(loader)
    assert (first != second).any()
    decoder.progress[EPOCH] = decoder.progress[POSITION] = 0
    assert (images_of(loader) == first).all()


def test_resolution_may_change_between_epochs(beton):
    decoder = CenterCropDecoder(24)
    loader = stock_loader(beton, decoder)
    assert images_of(loader).shape[1:3] == (24, 24)
    decoder.resolution = 40
    assert images_of(loader).shape[1:3] == (40, 40)


def test_own_decoder_takes_what_stock_ffcv_writes(beton):
    decoder = CenterCropDecoder(24)
    images_of(stock_loader(beton, decoder))
    assert decoder.num_fallbacks == 0


def test_undecodable_sample_raises_in_the_loaders_thread(tmp_path, monkeypatch):
    path = write(tmp_path / "damaged.beton")
    decoder = RandomResizedCropDecoder(32)
    loader = stock_loader(path, decoder)
    with path.open("r+b") as file:
        file.seek(int(loader.reader.metadata["f0"]["data_ptr"][6]))
        file.write(b"\0" * 20)
    raised = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_type))
    iterator = iter(loader)  # stock ffcv never tells the loop of it
    iterator.join(20)
    assert raised == [JpegError]
    assert decoder.progress[FAILED_SAMPLE] == 6


def test_stock_decoders_still_work_beside_ours(beton):
    ours = stock_loader(beton, CenterCropDecoder(24))
    stock = stock_loader(beton, RandomResizedCropRGBImageDecoder((24, 24)))
    assert images_of(ours).shape == images_of(stock).shape
