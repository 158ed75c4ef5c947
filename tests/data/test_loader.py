"""The loader on a beton that stock ffcv wrote: 37 images, blue channel 6 times the label."""

import gc
import threading

import numpy as np
import pytest
import torch
from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter

from ffvit.data.beton import read_tables
from ffvit.data.loader import create_train_loader, create_val_loader
from ffvit.data.order import epoch_permutation
from ffvit.errors import BetonError, ConfigError
from ffvit.jpeg.crops import random_flip, random_resized_crop
from ffvit.jpeg.decoders import JpegError
from ffvit.jpeg.kernel import OUT_OF_MEMORY
from ffvit.options import DataSection, ValidationSection

NUM_SAMPLES = 37
DAMAGED = (5, 17, 18)
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


def train_loader(path, rank=0, world_size=1, num_threads=1, copy=False, **options):
    sizes = {"resolution": 32, "global_batch_size": 12, "batch_size": 12 // world_size}
    sizes |= {name: options.pop(name) for name in tuple(options) if name in sizes}
    return create_train_loader(
        DataSection(train_path=str(path), **({"min_scale": 0.3} | options)),
        seed=5,
        rank=rank,
        world_size=world_size,
        num_threads=num_threads,
        device=CPU,
        copy=copy,
        **sizes,
    )


def val_loader(path, rank=0, world_size=1, batch_size=5, copy=False):
    return create_val_loader(
        DataSection(val_path=str(path)),
        ValidationSection(resolution=24, batch_size=batch_size),
        rank=rank,
        world_size=world_size,
        num_threads=1,
        device=CPU,
        copy=copy,
    )


def collect(loader):
    batches = [(batch.images.clone(), batch.labels.clone()) for batch in loader]
    return torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])


def test_training_shows_each_image_of_the_order_with_its_label(beton):
    loader = train_loader(beton)
    images, labels = collect(loader)
    assert len(loader) == 3
    assert labels.tolist() == epoch_permutation(NUM_SAMPLES, 5, 0)[:36].tolist()
    assert images.shape == (36, 32, 32, 3)
    assert (images[..., 2] == 6 * labels[:, None, None]).all()


def test_an_epoch_uses_the_memory_of_the_one_before(beton):
    loader = train_loader(beton)
    used = []
    for epoch, resolution in enumerate((32, 32, 24, 24)):
        loader.set_epoch(epoch, resolution)
        used.append([batch.images.data_ptr() for batch in loader])
    assert used[0] == used[1]
    assert used[2] == used[3]
    assert len(set(used[0])) == len(used[0])


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


def test_repeats_show_a_third_of_the_images_in_three_crops_each(beton):
    batches = list(train_loader(beton, repeats=3, copy=True))
    samples = np.concatenate([batch.samples for batch in batches])
    assert len(samples) == 36
    assert np.bincount(samples).max() == 3
    assert set(samples) == set(epoch_permutation(NUM_SAMPLES, 5, 0)[:12])
    images, labels = torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches])
    assert labels.tolist() == samples.tolist()
    for sample in set(samples):
        first, second, third = images[torch.from_numpy(samples == sample)]
        assert (first != second).any()
        assert (first != third).any()
        assert (second != third).any()


@pytest.mark.parametrize("order", ["random", "blocks"])
def test_repeats_are_the_same_for_any_ranks(beton, order):
    options = {"repeats": 3, "order": order}
    alone = [batch.images.clone() for batch in train_loader(beton, **options)]
    shares = [[b.images.clone() for b in train_loader(beton, r, 2, **options)] for r in range(2)]
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
    stages = loader.pipeline.stages
    loader.set_epoch(1, resolution=48)
    images, _ = collect(loader)
    assert images.shape[1:3] == (48, 48)
    assert loader.resolution == 48
    assert loader.pipeline.stages is stages


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
    monkeypatch.setattr(loader.pipeline, "run", fail)
    with pytest.raises(OSError, match="disk on fire"):
        list(loader)


@pytest.fixture(scope="module")
def damaged_beton(tmp_path_factory):
    """JPEGs; samples 5, 17 and 18 have no header any more."""
    path = tmp_path_factory.mktemp("damaged") / "damaged.beton"
    fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(Gradients())
    pointers = read_tables(path).pointers
    with path.open("r+b") as file:
        for sample in DAMAGED:
            file.seek(int(pointers[sample]))
            file.write(b"\0" * 20)
    return path


@pytest.mark.parametrize("make", [train_loader, val_loader])
def test_undecodable_sample_is_named(damaged_beton, make):
    message = r"damaged\.beton: sample (5|17|18): .*header is damaged"
    with pytest.raises(BetonError, match=message) as info:
        list(make(damaged_beton))
    assert info.value.is_local


def test_skipped_samples_are_replaced_and_counted(damaged_beton, capsys):
    loader = train_loader(damaged_beton, on_error="skip", copy=True)
    order = epoch_permutation(NUM_SAMPLES, 5, 0)[:36]
    is_damaged = np.isin(order, DAMAGED)
    for _ in range(2):  # damaged samples are found, then known
        batches = list(loader)
        samples = np.concatenate([batch.samples for batch in batches])
        labels = torch.cat([batch.labels for batch in batches])
        blue = torch.cat([batch.images for batch in batches])[..., 2].float().mean((1, 2))
        assert (samples[~is_damaged] == order[~is_damaged]).all()
        assert not np.isin(samples, DAMAGED).any()
        assert labels.tolist() == samples.tolist()
        assert (blue - 6 * labels).abs().max() < 4
        assert loader.num_skipped == is_damaged.sum()
    assert loader.pipeline.damaged.keys() == set(order[is_damaged])
    loader.set_epoch(1)
    assert loader.num_skipped == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert len(lines) == is_damaged.sum()
    assert "damaged.beton: sample" in lines[0]


def test_replacements_are_the_same_for_any_ranks_and_threads(damaged_beton):
    alone = train_loader(damaged_beton, on_error="skip", copy=True)
    shares = [
        train_loader(damaged_beton, rank, 2, num_threads=3, on_error="skip", copy=True)
        for rank in range(2)
    ]
    for whole, *parts in zip(alone, *shares, strict=True):
        assert (torch.cat([part.images for part in parts]) == whole.images).all()
        assert (torch.cat([part.labels for part in parts]) == whole.labels).all()
    assert sum(share.num_skipped for share in shares) == alone.num_skipped > 0


def test_a_beton_of_damaged_images_alone_is_refused(damaged_beton, tmp_path):
    path = tmp_path / "ruin.beton"
    tables = read_tables(damaged_beton)
    ruin = bytearray(damaged_beton.read_bytes())
    for pointer in tables.pointers.tolist():
        ruin[pointer : pointer + 20] = bytes(20)
    path.write_bytes(ruin)
    with pytest.raises(BetonError, match="too many samples cannot be decoded"):
        list(train_loader(path, on_error="skip"))


def test_lack_of_memory_is_no_damaged_sample(beton, monkeypatch):
    loader = train_loader(beton, on_error="skip")
    monkeypatch.setattr(loader.decoder, "failures", lambda: {3: OUT_OF_MEMORY})

    def fail(*_):
        raise JpegError

    monkeypatch.setattr(loader.pipeline, "_decode", fail)
    with pytest.raises(MemoryError, match="sample 3"):
        list(loader)


def test_a_decoder_that_never_succeeds_is_an_error(beton, monkeypatch):
    loader = train_loader(beton, on_error="skip")

    def fail(*_):
        raise JpegError

    monkeypatch.setattr(loader.pipeline, "_decode", fail)
    with pytest.raises(BetonError, match="too many samples cannot be decoded"):
        list(loader)


def test_batches_say_which_samples_they_are(beton):
    for loader in (train_loader(beton), val_loader(beton)):
        assert all(batch.samples.tolist() == batch.labels.tolist() for batch in loader)


@pytest.mark.parametrize("copy", [False, True])
def test_kept_batches_stay_only_as_copies(beton, copy):
    loader = val_loader(beton, batch_size=3, copy=copy)
    labels = torch.cat([batch.labels for batch in list(loader)])
    assert (labels.tolist() == list(range(NUM_SAMPLES))) == copy


@pytest.mark.parametrize(
    ("option", "value"),
    [("order", "shuffled"), ("on_error", "ignore"), ("watchdog_s", -1.0), ("window_gib", 0.0)],
)
def test_options_out_of_their_range_are_refused(beton, option, value):
    with pytest.raises(ConfigError, match=f"data.{option}={value}: expected"):
        train_loader(beton, **{option: value})


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
    for batches in zip(first, second, strict=False):
        for batch in batches:
            assert (batch.images[..., 2] == 6 * batch.labels[:, None, None]).all()
