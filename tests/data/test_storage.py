"""Several betons as one data set, and the block order that reads a file in pieces."""

import numpy as np
import pytest
import torch
from conftest import NUM_TRAIN, NUM_VAL
from ffcv.fields import IntField, RGBImageField
from ffcv.types import ALLOC_TABLE_TYPE, HeaderType, get_metadata_type
from ffcv.writer import DatasetWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from ffvit.data import blocks as blocks_module
from ffvit.data.blocks import Blocks
from ffvit.data.loader import create_train_loader
from ffvit.data.order import block_permutation, epoch_permutation, train_order
from ffvit.data.storage import Storage, find_betons
from ffvit.errors import BetonError, ConfigError
from ffvit.options import DataSection

CPU = torch.device("cpu")


class Squares:
    """Images of one colour: blue is 5 times the index, red tells the file."""

    def __init__(self, red, first_label, num_samples):
        self.red, self.first_label, self.num_samples = red, first_label, num_samples

    def __len__(self):
        return self.num_samples

    def __getitem__(self, index):
        image = np.zeros((20, 20, 3), dtype=np.uint8)
        image[..., 0], image[..., 2] = self.red, 5 * index
        return image, self.first_label + index


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three betons of 11, 7 and 13 images; labels 0.., 100.. and 300.."""
    folder = tmp_path_factory.mktemp("several")
    for number, (first_label, num_samples) in enumerate([(0, 11), (100, 7), (300, 13)]):
        fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
        writer = DatasetWriter(str(folder / f"part-{number}.beton"), fields, num_workers=1)
        writer.from_indexed_dataset(Squares(50 * number, first_label, num_samples))
    return folder


def train_loader(path, rank=0, world_size=1, batch_size=6, **options):
    return create_train_loader(
        DataSection(train_path=str(path), **options),
        resolution=16,
        global_batch_size=batch_size * world_size,
        batch_size=batch_size,
        seed=3,
        rank=rank,
        world_size=world_size,
        num_threads=1,
        device=CPU,
        copy=True,
    )


def test_several_betons_are_one_data_set(folder):
    loader = train_loader(folder / "part-*.beton", batch_size=31)
    (batch,) = loader
    assert sorted(batch.labels.tolist()) == [*range(11), *range(100, 107), *range(300, 313)]
    part = batch.labels // 100
    part[part == 3] = 2
    assert (batch.images[:, 0, 0, 0] == 50 * part).all()
    assert (batch.images[:, 0, 0, 2] == 5 * (batch.labels % 100)).all()
    assert (loader.info.num_samples, loader.info.num_classes) == (31, 313)
    storage = loader.pipeline.storage
    assert (storage.labels[batch.samples] == batch.labels.numpy()).all()
    assert storage.describe(11) == f"{folder}/part-1.beton: sample 0"
    assert storage.describe(30) == f"{folder}/part-2.beton: sample 12"


def test_patterns_are_sorted_and_lists_keep_their_order(folder):
    names = [path.name for path in find_betons(f"{folder}/part-2.beton, {folder}/part-[01].beton")]
    assert names == ["part-2.beton", "part-0.beton", "part-1.beton"]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ("{0}/none-*.beton", "no file fits this pattern"),
        ("{0}/part-0.beton,{0}/part-*.beton", "names .*part-0.beton twice"),
        (" , ", "names no file"),
        ("{0}/part-0.beton,{0}/missing.beton", "missing.beton: expected a beton, found no file"),
    ],
)
def test_lists_that_name_no_sound_betons_are_refused(folder, paths, message):
    with pytest.raises(BetonError, match=message):
        Storage(paths.format(folder))


def test_betons_of_other_classes_are_refused(tiny_beton, tiny_val_beton, folder):
    assert Storage(f"{tiny_beton},{tiny_val_beton}").num_samples == NUM_TRAIN + NUM_VAL
    with pytest.raises(BetonError, match=r"part-1\.beton: expected labels of the 8 classes"):
        Storage(f"{tiny_beton},{folder}/part-1.beton")


def test_a_label_outside_the_models_classes_is_named(folder):
    storage = Storage(str(folder / "part-*.beton"))
    storage.check_labels(313)
    with pytest.raises(BetonError, match=r"part-1\.beton: sample 5 has the label 105.*15 of 31"):
        storage.check_labels(105)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 3 images of 20 x 20 pixels."""
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 3 * 1200)


@pytest.mark.usefixtures("small_blocks")
def test_block_order_shows_each_sample_once_and_whole_blocks_together(folder):
    window_gib = 2 * 3 * 1200 / 2**30  # two blocks
    loader = train_loader(folder / "part-*.beton", order="blocks", window_gib=window_gib)
    for epoch in range(2):
        loader.set_epoch(epoch)
        batches = list(loader)
        samples = np.concatenate([batch.samples for batch in batches])
        assert samples.tolist() == block_permutation(31, 3, epoch, 3, 2)[:30].tolist()
        assert (batches[0].images[:, 0, 0, 2] == 5 * (batches[0].labels % 100)).all()


@pytest.mark.usefixtures("small_blocks")
def test_block_order_is_the_same_on_any_number_of_ranks(folder):
    options = {"order": "blocks", "window_gib": 1e-5}
    alone = train_loader(folder / "part-*.beton", batch_size=12, **options)
    shares = [train_loader(folder / "part-*.beton", r, 2, 6, **options) for r in range(2)]
    for whole, *parts in zip(alone, *shares, strict=True):
        assert (torch.cat([part.images for part in parts]) == whole.images).all()


@pytest.mark.usefixtures("small_blocks")
def test_the_next_window_is_read_ahead_once_and_no_further(folder, monkeypatch):
    storage = Storage(str(folder / "part-*.beton"))
    asked = []
    monkeypatch.setattr(storage, "read_ahead", lambda begin, end: asked.append((begin, end)))
    blocks = Blocks(storage, seed=3, window_gib=2 * 3 * 1200 / 2**30, repeats=1)
    ask = blocks.read_ahead(epoch=0)
    counts = []
    for position in range(0, 31, 2):
        ask(position)
        counts.append(len(asked))
    order = blocks.permutation(0)
    in_order = [(min(o, 30) // 3 * 3, min(min(o, 30) // 3 * 3 + 3, 31)) for o in order]
    assert set(asked) == set(in_order)
    assert len(asked) == len(set(asked)) == 11
    assert counts[0] == 3  # this window of two blocks, and one more
    assert all(count <= position * 2 // 3 + 3 for position, count in enumerate(counts))


@pytest.mark.usefixtures("small_blocks")
def test_with_repeats_a_third_of_the_blocks_is_read_ahead(folder, monkeypatch):
    storage = Storage(str(folder / "part-*.beton"))
    asked = []
    monkeypatch.setattr(storage, "read_ahead", lambda begin, end: asked.append((begin, end)))
    window_gib = 2 * 3 * 1200 / 2**30
    ask = Blocks(storage, seed=3, window_gib=window_gib, repeats=3).read_ahead(epoch=0)
    for position in range(0, 31, 2):
        ask(position)
    assert len(asked) == 10 // 3 + 3  # blocks of 10 samples, and a window and a block ahead


def test_any_range_can_be_read_ahead(folder):
    """No more is asserted than that every range is one that the system takes."""
    storage = Storage(str(folder / "part-*.beton"))
    storage.read_ahead(0, 31)
    storage.read_ahead(10, 12)
    storage.read_ahead(30, 31)


def test_samples_that_are_stored_out_of_order_are_read_in_the_files_order(folder, tmp_path):
    """As writers with several processes leave them."""
    path = tmp_path / "swapped.beton"
    data = bytearray((folder / "part-0.beton").read_bytes())
    header = np.frombuffer(data, dtype=HeaderType, count=1)
    kind = get_metadata_type([RGBImageField(), IntField()])
    records = np.frombuffer(data, dtype=kind, count=11, offset=2106)
    table = np.frombuffer(data, dtype=ALLOC_TABLE_TYPE, offset=int(header["alloc_table_ptr"][0]))
    records["f0"]["data_ptr"] = records["f0"]["data_ptr"][::-1].copy()
    table["sample_id"] = 10 - table["sample_id"]
    path.write_bytes(data)
    storage = Storage(str(path))
    assert storage.by_place(np.arange(11)).tolist() == list(range(11))[::-1]


@settings(max_examples=40)
@given(
    num_samples=st.integers(24, 200),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 99),
    is_blocks=st.booleans(),
    micro_batches=st.integers(1, 2),
    first_step=st.integers(0, 4),
)
def test_global_batches_and_positions_are_alike_for_ranks_and_restarts(
    num_samples, seed, epoch, is_blocks, micro_batches, first_step
):
    global_batch_size = 8 * micro_batches
    if is_blocks:
        permutation = block_permutation(num_samples, seed, epoch, 5, 3)
    else:
        permutation = epoch_permutation(num_samples, seed, epoch)

    def global_batches(world_size):
        batch_size = 8 // world_size
        orders = [
            train_order(permutation, global_batch_size, batch_size, rank, world_size)
            for rank in range(world_size)
        ]
        pairs = []
        for index in range(first_step, len(orders[0].positions)):
            for order in orders:
                samples = order.samples[index * batch_size : (index + 1) * batch_size]
                positions = order.positions[index] + np.arange(batch_size)
                pairs += zip(positions.tolist(), samples.tolist(), strict=True)
        return pairs

    alone = global_batches(1)
    assert [position for position, _ in alone] == list(
        range(first_step * 8, num_samples // global_batch_size * global_batch_size)
    )
    assert global_batches(2) == global_batches(4) == alone


@pytest.mark.slow
@pytest.mark.parametrize("order", ["random", "blocks"])
def test_batches_are_alike_for_threads_ranks_and_restarts_at_any_batch(tiny_beton, order):
    def loader(rank, world_size, num_threads):
        return create_train_loader(
            DataSection(train_path=str(tiny_beton), order=order),
            24,
            global_batch_size=16,
            batch_size=16 // world_size,
            seed=1,
            rank=rank,
            world_size=world_size,
            num_threads=num_threads,
            device=CPU,
            copy=True,
        )

    expected = list(loader(0, 1, 1))
    assert len(expected) == 4
    for world_size, num_threads in ((1, 4), (2, 2), (4, 1)):
        loaders = [loader(rank, world_size, num_threads) for rank in range(world_size)]
        for first in range(4):
            for one in loaders:
                one.load_state_dict({"epoch": 0, "batch": first, "resolution": 24})
            for whole, *parts in zip(expected[first:], *loaders, strict=True):
                assert (torch.cat([part.images for part in parts]) == whole.images).all()
                assert (torch.cat([part.labels for part in parts]) == whole.labels).all()


def test_a_global_batch_larger_than_all_betons_is_refused(folder):
    with pytest.raises(ConfigError, match="global_batch_size=32 is more than the 31 images"):
        train_loader(folder / "part-*.beton", batch_size=32)
