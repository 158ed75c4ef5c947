"""The loader on a beton that stock ffcv wrote: 37 images, blue channel 6 times the label."""

import gc
import threading

import numpy as np
import pytest
import torch
from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter

from ffvit.data import loader as loader_module
from ffvit.data.loader import create_train_loader, create_val_loader
from ffvit.data.order import epoch_permutation
from ffvit.errors import BetonError, ConfigError
from ffvit.jpeg.crops import random_flip, random_resized_crop

NUM_SAMPLES = 37
CPU = torch.device("cpu")


class Gradients:
    def __len__(self):
        return NUM_SAMPLES

    def __getitem__(self, index):
        height, width = 40 + index % 7, 50 + index % 5
        y, x = np.mgrid[:height, :width]
        image = np.stack([y * 5, x * 4, 0 * x + 6 * index], axis=-1)
        return image.astype(np.uint8), index


@pytest.fixture(scope="module")
def beton(tmp_path_factory):
    path = tmp_path_factory.mktemp("loader") / "gradients.beton"
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(Gradients())
    return path


def train_loader(path, rank=0, world_size=1, num_threads=1, **options):
    options = {"resolution": 32, "global_batch_size": 12, "batch_size": 12 // world_size} | options
    return create_train_loader(
        str(path),
        min_scale=0.3,
        flip=True,
        seed=5,
        rank=rank,
        world_size=world_size,
        num_threads=num_threads,
        device=CPU,
        **options,
    )


def val_loader(path, rank=0, world_size=1, **options):
    options = {"resolution": 24, "ratio": 0.875, "filter_name": "area", "batch_size": 5} | options
    return create_val_loader(
        str(path), rank=rank, world_size=world_size, num_threads=1, device=CPU, **options
    )


def collect(loader):
    batches = [(images.clone(), labels.clone()) for images, labels in loader]
    return torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])


def test_training_shows_each_image_of_the_order_with_its_label(beton):
    loader = train_loader(beton)
    images, labels = collect(loader)
    assert len(loader) == 3
    assert labels.tolist() == epoch_permutation(NUM_SAMPLES, 5, 0)[:36].tolist()
    assert images.shape == (36, 32, 32, 3)
    assert (images[..., 2] == 6 * labels[:, None, None]).all()


def test_crops_are_those_of_the_counters(beton):
    loader = train_loader(beton)
    loader.set_epoch(3)
    images, labels = collect(loader)
    for position in (0, 7, 35):
        label = int(labels[position])
        height, width = 40 + label % 7, 50 + label % 5
        top, _, crop_height, _ = random_resized_crop(
            height, width, 0.3, 1.0, 3 / 4, 4 / 3, 5, 3, position
        )
        rows = images[position, :, 0, 0].float()
        # The red channel is 5 times the row, linear, so its mean is the crop's centre row.
        assert rows.mean() == pytest.approx(5 * (top + (crop_height - 1) / 2), abs=2.6)
        grows_rightwards = images[position, 0, -1, 1] > images[position, 0, 0, 1]
        assert grows_rightwards == (random_flip(5, 3, position) == 0)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_and_threads_do_not_change_the_global_batches(beton, world_size):
    alone = [batch.images.clone() for batch in train_loader(beton)]
    shares = [
        [batch.images.clone() for batch in train_loader(beton, rank, world_size, num_threads=3)]
        for rank in range(world_size)
    ]
    for index, whole in enumerate(alone):
        assert (torch.cat([share[index] for share in shares]) == whole).all()


def test_epochs_differ_and_can_be_repeated(beton):
    loader = train_loader(beton)
    first, _ = collect(loader)
    loader.set_epoch(1)
    second, _ = collect(loader)
    loader.set_epoch(0)
    again, _ = collect(loader)
    assert (first == again).all()
    assert (first != second).any()


def test_epoch_can_be_iterated_again(beton):
    loader = val_loader(beton)
    assert (collect(loader)[0] == collect(loader)[0]).all()


def test_resolution_changes_without_compiling_again(beton):
    loader = train_loader(beton)
    collect(loader)
    code = loader.code
    loader.set_epoch(1, resolution=48)
    images, _ = collect(loader)
    assert images.shape[1:3] == (48, 48)
    assert loader.resolution == 48
    assert loader.code is code


def test_state_goes_on_in_the_middle_of_an_epoch(beton):
    loader = train_loader(beton)
    loader.set_epoch(2, resolution=40)
    expected, _ = collect(loader)
    loader.set_epoch(2)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    loader.close()
    other = train_loader(beton, num_threads=2)
    other.load_state_dict(state)
    rest, _ = collect(other)
    assert state == {"epoch": 2, "batch": 1, "resolution": 40}
    assert (rest == expected[12:]).all()


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_validation_shows_each_image_once_over_all_ranks(beton, world_size):
    labels = []
    for rank in range(world_size):
        loader = val_loader(beton, rank, world_size)
        _, mine = collect(loader)
        labels += mine.tolist()
    assert labels == list(range(NUM_SAMPLES))


def test_more_ranks_than_images_leave_some_without_batches(beton):
    loaders = [val_loader(beton, rank, 64) for rank in (0, 63)]
    assert [len(list(loader)) for loader in loaders] == [0, 1]


def test_early_break_leaves_no_thread(beton):
    # More batches than the queue holds, so that the thread is in the middle of its work.
    loader = train_loader(beton, global_batch_size=4, batch_size=4)
    collect(loader)
    before = threading.active_count()
    for _ in range(10):
        for _ in loader:
            break
        loader.set_epoch(0)
    gc.collect()
    assert threading.active_count() == before


def test_next_after_the_end_still_stops(beton):
    iterator = iter(val_loader(beton))
    assert sum(len(batch.labels) for batch in iterator) == NUM_SAMPLES
    with pytest.raises(StopIteration):
        next(iterator)


def test_exception_in_the_thread_reaches_the_loop(beton, monkeypatch):
    def fail(*_):
        raise OSError("disk on fire")

    loader = val_loader(beton)
    monkeypatch.setattr(loader_module.FfcvEpochIterator, "run_pipeline", fail)
    with pytest.raises(OSError, match="disk on fire"):
        list(loader)


def test_undecodable_sample_is_named(tmp_path):
    path = tmp_path / "damaged.beton"
    fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(Gradients())
    loader = val_loader(path)
    pointer = int(loader.reader.metadata["f0"]["data_ptr"][17])
    with path.open("r+b") as file:
        file.seek(pointer)
        file.write(b"\0" * 20)
    with pytest.raises(BetonError, match=r"damaged\.beton: .*sample 17.*header is damaged") as info:
        list(loader)
    assert info.value.is_local


def test_global_batch_larger_than_the_data_is_refused(beton):
    with pytest.raises(ConfigError, match="global_batch_size=38 is more than the 37 images"):
        train_loader(beton, global_batch_size=38, batch_size=38)


def test_torch_keeps_its_threads(beton):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(val_loader(beton))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_several_loaders_at_once_do_not_mix(beton):
    first, second = train_loader(beton), val_loader(beton, batch_size=12)
    for (images, labels), (other_images, other_labels) in zip(first, second, strict=False):
        assert (images[..., 2] == 6 * labels[:, None, None]).all()
        assert (other_images[..., 2] == 6 * other_labels[:, None, None]).all()
