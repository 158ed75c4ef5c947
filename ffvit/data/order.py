"""Which sample is seen when: pure functions of (seed, epoch, rank, world size).

A position is a place in the epoch's global order. Ranks and micro-batches only cut that order into
pieces, so the same global batch is seen whatever their number.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from ffvit.jpeg.crops import PURPOSE_ORDER, random_bits

Indices = npt.NDArray[np.int64]


class Order(NamedTuple):
    """What one rank sees in an epoch, in batches of `batch_size`.

    Attributes:
        samples: (num_samples,) int64 indices into the data set.
        positions: (num_samples,) int64 positions in the global order; consecutive in each batch.
    """

    samples: Indices
    positions: Indices


@nb.njit(nogil=True)
def _keys(num_samples: int, seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    keys = np.empty(num_samples, dtype=np.uint64)
    for sample in range(num_samples):
        keys[sample] = random_bits(seed, epoch, sample, PURPOSE_ORDER, 0)
    return keys


def epoch_permutation(num_samples: int, seed: int, epoch: int) -> Indices:
    """Shuffle the samples: sort them by a hash, which no library version can change.

    Returns:
        (num_samples,) int64, each index once.
    """
    return np.argsort(_keys(num_samples, seed, epoch), kind="stable").astype(np.int64)


def train_order(
    num_samples: int,
    seed: int,
    epoch: int,
    global_batch_size: int,
    batch_size: int,
    rank: int,
    world_size: int,
) -> Order:
    """Deal the epoch's shuffled samples to the ranks, batch by batch.

    Args:
        num_samples: In the data set.
        seed: Of the run.
        epoch: Pass over the data.
        global_batch_size: Samples per optimizer update, over all ranks and micro-batches; a
            multiple of batch_size * world_size. Samples of a last, partial one are left out.
        batch_size: Samples per rank and micro-batch.
        rank: Of this process.
        world_size: Number of processes.
    """
    num_seen = num_samples // global_batch_size * global_batch_size
    positions = np.arange(num_seen, dtype=np.int64)
    mine = positions.reshape(-1, world_size, batch_size)[:, rank].reshape(-1)
    return Order(epoch_permutation(num_samples, seed, epoch)[mine], mine)


def exact_cover_order(num_samples: int, rank: int, world_size: int) -> Order:
    """Split the samples into contiguous shares that differ by at most one: each sample once."""
    begin = num_samples * rank // world_size
    end = num_samples * (rank + 1) // world_size
    mine = np.arange(begin, end, dtype=np.int64)
    return Order(mine, mine)
