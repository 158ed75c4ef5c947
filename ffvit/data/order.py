"""Which sample is seen when: pure functions of (seed, epoch, rank, world size).

A position is a place in the epoch's global order. Ranks and micro-batches only cut that order into
pieces, so the same global batch is seen whatever their number.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from ffvit.jpeg.crops import PURPOSE_BLOCK, PURPOSE_ORDER, PURPOSE_REPLACEMENT, random_bits

Indices = npt.NDArray[np.int64]


class Order(NamedTuple):
    """What one rank sees in an epoch, in batches of `batch_size`, of which the last may be short.

    Attributes:
        samples: (num_samples,) int32 indices into the data set.
        positions: (num_batches,) int64 position of each batch's first sample in the global order;
            the others follow one by one.
    """

    samples: npt.NDArray[np.int32]
    positions: Indices


@nb.njit(nogil=True)
def _keys(numbers: Indices, seed: int, epoch: int, purpose: int) -> npt.NDArray[np.uint64]:
    keys = np.empty(len(numbers), dtype=np.uint64)
    for k in range(len(numbers)):
        keys[k] = random_bits(seed, epoch, numbers[k], purpose, 0)
    return keys


def _shuffle(numbers: Indices, seed: int, epoch: int, purpose: int) -> Indices:
    """Sort numbers by a hash, which no library version can change."""
    return numbers[np.argsort(_keys(numbers, seed, epoch, purpose), kind="stable")]


def epoch_permutation(num_samples: int, seed: int, epoch: int) -> Indices:
    """Shuffle the samples, each as likely at each position.

    Returns:
        (num_samples,) int64, each index once.
    """
    return _shuffle(np.arange(num_samples, dtype=np.int64), seed, epoch, PURPOSE_ORDER)


def shuffled_blocks(num_samples: int, seed: int, epoch: int, block_size: int) -> Indices:
    """Shuffle the blocks of `block_size` samples into which a data set falls; the last is shorter.

    Returns:
        (num_blocks,) int64, each block once.
    """
    num_blocks = -(-num_samples // block_size)
    return _shuffle(np.arange(num_blocks, dtype=np.int64), seed, epoch, PURPOSE_BLOCK)


def block_permutation(
    num_samples: int, seed: int, epoch: int, block_size: int, window_blocks: int
) -> Indices:
    """Shuffle blocks, and samples within windows of consecutive shuffled blocks.

    So an epoch reads whole blocks, and only those of one window are needed at a time.

    Args:
        num_samples: In the data set, counted in the order in which they are stored.
        seed: Of the run.
        epoch: Pass over the data.
        block_size: Samples that are stored side by side and read together.
        window_blocks: Blocks whose samples are mixed.

    Returns:
        (num_samples,) int64 places in the storage, each once.
    """
    blocks = shuffled_blocks(num_samples, seed, epoch, block_size)
    windows = []
    for first in range(0, len(blocks), window_blocks):
        begins = blocks[first : first + window_blocks] * block_size
        places = (begins[:, None] + np.arange(block_size)).reshape(-1)
        windows.append(_shuffle(places[places < num_samples], seed, epoch, PURPOSE_ORDER))
    return np.concatenate(windows)


def repeat_samples(permutation: Indices, repeats: int, global_batch_size: int) -> Indices:
    """Show each sample `repeats` times, in an epoch that is as long as without.

    As DeiT's RASampler, which gives the copies of a sample to different processes: here they lie
    in one global batch, about a `repeats`-th of it apart, so that the images that are mixed with
    each other are different ones. Source: repeated augmentation, Hoffer et al., arXiv:1901.09335.

    Args:
        permutation: (num_samples,) int64, the shuffled samples; the last ones are left out.
        repeats: Copies of each.
        global_batch_size: Samples per optimizer update.

    Returns:
        (num_samples // global_batch_size * global_batch_size,) int64, the global order.
    """
    num_seen = len(permutation) // global_batch_size * global_batch_size
    copies = np.repeat(permutation[: -(-num_seen // repeats)], repeats)[:num_seen]
    apart = np.argsort(np.arange(global_batch_size) % repeats, kind="stable")
    return copies.reshape(-1, global_batch_size)[:, apart].reshape(-1)


def train_order(
    permutation: Indices, global_batch_size: int, batch_size: int, rank: int, world_size: int
) -> Order:
    """Deal the epoch's shuffled samples to the ranks, batch by batch.

    Args:
        permutation: (num_samples,) int64, the epoch's samples in their global order.
        global_batch_size: Samples per optimizer update, over all ranks and micro-batches; a
            multiple of batch_size * world_size. Samples of a last, partial one are left out.
        batch_size: Samples per rank and micro-batch.
        rank: Of this process.
        world_size: Number of processes.
    """
    num_seen = len(permutation) // global_batch_size * global_batch_size
    shares = permutation[:num_seen].reshape(-1, world_size, batch_size)
    positions = (np.arange(len(shares), dtype=np.int64) * world_size + rank) * batch_size
    return Order(shares[:, rank].reshape(-1).astype(np.int32), positions)


def exact_cover_order(num_samples: int, batch_size: int, rank: int, world_size: int) -> Order:
    """Split the samples into contiguous shares that differ by at most one: each sample once."""
    begin = num_samples * rank // world_size
    end = num_samples * (rank + 1) // world_size
    positions = np.arange(begin, end, batch_size, dtype=np.int64)
    return Order(np.arange(begin, end, dtype=np.int32), positions)


def replacement(num_samples: int, seed: int, epoch: int, position: int, attempt: int) -> int:
    """Draw a sample that is shown at a position whose own cannot be decoded.

    Args:
        num_samples: In the data set.
        seed: Of the run.
        epoch: Pass over the data.
        position: In the epoch's global order.
        attempt: From 0; counts on while what was drawn cannot be decoded either.
    """
    bits = random_bits(seed, epoch, position, PURPOSE_REPLACEMENT, attempt)
    return int(bits % np.uint64(num_samples))
