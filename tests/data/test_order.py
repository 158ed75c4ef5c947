import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data.distributed_sampler import RepeatAugSampler

from ffvit.data.order import (
    block_permutation,
    epoch_permutation,
    exact_cover_order,
    repeat_samples,
    shuffled_blocks,
    train_order,
)


@settings(max_examples=30)
@given(num_samples=st.integers(1, 400), seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
def test_permutation_holds_each_sample_once(num_samples, seed, epoch):
    assert sorted(epoch_permutation(num_samples, seed, epoch)) == list(range(num_samples))


def test_permutation_depends_on_seed_and_epoch():
    first = epoch_permutation(97, 0, 0)
    assert (first == epoch_permutation(97, 0, 0)).all()
    assert (first != epoch_permutation(97, 1, 0)).any()
    assert (first != epoch_permutation(97, 0, 1)).any()


def test_permutation_never_changes():
    """Golden values: a change here changes every published run."""
    assert epoch_permutation(11, 3, 5).tolist() == [9, 5, 2, 1, 6, 3, 7, 10, 0, 4, 8]


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_global_batches_are_the_same_for_any_number_of_ranks(world_size, accumulation_steps):
    global_batch_size, num_samples = 24, 131
    batch_size = global_batch_size // (world_size * accumulation_steps)
    permutation = epoch_permutation(num_samples, 7, 2)
    orders = [
        train_order(permutation, global_batch_size, batch_size, rank, world_size)
        for rank in range(world_size)
    ]
    shape = (-1, accumulation_steps, batch_size)
    samples = np.stack([order.samples.reshape(shape) for order in orders], axis=2)
    firsts = np.stack([order.positions.reshape(shape[:2]) for order in orders], axis=2)
    num_seen = num_samples // global_batch_size * global_batch_size
    positions = firsts[..., None] + np.arange(batch_size)
    assert (positions.reshape(-1) == np.arange(num_seen)).all()
    assert (samples.reshape(-1) == permutation[:num_seen]).all()


@settings(max_examples=60)
@given(
    num_samples=st.integers(1, 300),
    block_size=st.integers(1, 40),
    window_blocks=st.integers(1, 12),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 1000),
)
def test_blocks_hold_each_sample_once_and_stay_in_their_window(
    num_samples, block_size, window_blocks, seed, epoch
):
    places = block_permutation(num_samples, seed, epoch, block_size, window_blocks)
    assert sorted(places) == list(range(num_samples))
    blocks = shuffled_blocks(num_samples, seed, epoch, block_size).tolist()
    begin = 0
    for first in range(0, len(blocks), window_blocks):
        window = blocks[first : first + window_blocks]
        size = sum(min(block_size, num_samples - block * block_size) for block in window)
        assert set(places[begin : begin + size] // block_size) == set(window)
        begin += size


def test_block_order_never_changes():
    """Golden values: a change here changes every published run."""
    places = block_permutation(11, 3, 5, block_size=2, window_blocks=2)
    assert places.tolist() == [2, 1, 3, 0, 9, 5, 4, 8, 6, 7, 10]
    assert (places != block_permutation(11, 3, 6, 2, 2)).any()


def test_block_order_mixes_classes_almost_as_a_random_one_does():
    """50 classes stored one after the other: the worst case, as the writer shuffles."""
    num_samples, num_classes, batch_size = 20_000, 50, 100
    labels = np.arange(num_samples) * num_classes // num_samples
    seen = labels[block_permutation(num_samples, 0, 0, block_size=20, window_blocks=250)]
    sequential = labels[block_permutation(num_samples, 0, 0, block_size=20, window_blocks=1)]

    def classes_per_batch(values):
        return np.mean([len(set(batch)) for batch in values.reshape(-1, batch_size)])

    random = classes_per_batch(labels[epoch_permutation(num_samples, 0, 0)])
    assert classes_per_batch(seen) > 0.95 * random
    assert classes_per_batch(sequential) < 0.2 * random


def test_samples_move_between_windows_from_epoch_to_epoch():
    def windows(epoch):
        window = np.empty(5000, dtype=np.int64)
        window[block_permutation(5000, 0, epoch, block_size=10, window_blocks=50)] = (
            np.arange(5000) // 500
        )
        return window

    stayed = (windows(0) == windows(1)).mean()
    assert stayed < 0.2  # 0.1 by chance


@settings(max_examples=60)
@given(
    num_samples=st.integers(1, 300),
    repeats=st.integers(1, 5),
    global_batch_size=st.integers(1, 60),
)
def test_repeated_samples_fill_an_epoch_of_the_same_length(num_samples, repeats, global_batch_size):
    permutation = epoch_permutation(num_samples, 1, 0)
    order = repeat_samples(permutation, repeats, global_batch_size)
    num_seen = num_samples // global_batch_size * global_batch_size
    assert len(order) == num_seen
    counts = np.bincount(order, minlength=num_samples)[permutation]  # in the permutation's order
    whole, rest = divmod(num_seen, repeats)
    assert counts.tolist() == ([repeats] * whole + [rest] + [0] * num_samples)[:num_samples]
    if repeats == 1:
        assert (order == permutation[:num_seen]).all()


def test_copies_share_a_global_batch_but_no_group_that_is_mixed():
    order = repeat_samples(epoch_permutation(5000, 0, 0), repeats=3, global_batch_size=1024)
    for batch in order.reshape(-1, 1024):
        samples, counts = np.unique(batch, return_counts=True)
        assert len(samples) <= 343
        assert (counts == 3).sum() >= 340
        for begin in range(0, 1024, 128):
            assert len(set(batch[begin : begin + 128])) == 128


def test_repeats_give_imagenets_epoch_the_length_that_deits_sampler_gives():
    sampler = RepeatAugSampler(range(1_281_167), num_replicas=8, rank=0)
    order = repeat_samples(np.arange(1_281_167), repeats=3, global_batch_size=1024)
    assert len(order) == 8 * len(sampler) == 1_281_024
    assert len(np.unique(order)) == 1_281_024 // 3


def test_a_global_batch_of_repeats_holds_the_samples_that_deits_sampler_deals_out():
    """With the sampler's own shuffling in place of ours, and as many processes as it likes."""
    shares = []
    for rank in range(4):
        sampler = RepeatAugSampler(range(512), num_replicas=4, rank=rank)
        sampler.set_epoch(2)
        shares.append(list(sampler))
    permutation = torch.randperm(512, generator=torch.Generator().manual_seed(2)).numpy()
    ours = repeat_samples(permutation, repeats=3, global_batch_size=64).reshape(-1, 64)
    theirs = np.array(shares).reshape(4, -1, 16).transpose(1, 0, 2).reshape(-1, 64)
    assert (np.sort(ours) == np.sort(theirs)).all()


@given(
    num_samples=st.integers(1, 300),
    batch_size=st.integers(1, 20),
    world_size=st.integers(1, 9),
)
def test_exact_cover_shows_each_sample_once_over_all_ranks(num_samples, batch_size, world_size):
    shares = [
        exact_cover_order(num_samples, batch_size, rank, world_size) for rank in range(world_size)
    ]
    together = np.concatenate([share.samples for share in shares])
    assert together.tolist() == list(range(num_samples))
    lengths = [len(share.samples) for share in shares]
    assert max(lengths) - min(lengths) <= 1
    for share in shares:
        assert share.positions.tolist() == share.samples[::batch_size].tolist()
