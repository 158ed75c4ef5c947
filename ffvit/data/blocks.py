"""The training order of betons that do not fit into memory: pieces of some MB, read ahead.

A random order reads each image from another place. Here the file falls into blocks, which are
shuffled; images are shuffled within a window of as many blocks as fit into memory, and the system
is asked for the blocks of the next window while this one is being decoded.
"""

from collections.abc import Callable

from ffvit.data.order import Indices, block_permutation, shuffled_blocks
from ffvit.data.storage import Storage

BLOCK_BYTES = 8 << 20


class Blocks:
    """The order `blocks`: pieces of `BLOCK_BYTES`, mixed within windows of `window_gib`.

    Args:
        storage: The betons.
        seed: Of the run.
        window_gib: What is mixed.
        repeats: Positions of the epoch that each sample takes up.
    """

    def __init__(self, storage: Storage, seed: int, window_gib: float, repeats: int) -> None:
        self._storage = storage
        self._seed = seed
        self._repeats = repeats
        mean_bytes = float(storage.images["size"].mean())
        self._block_size = max(1, round(BLOCK_BYTES / mean_bytes))
        self._window_blocks = max(1, round(window_gib * (1 << 30) / BLOCK_BYTES))

    def permutation(self, epoch: int) -> Indices:
        """Return the epoch's samples in their global order."""
        places = block_permutation(
            self._storage.num_samples, self._seed, epoch, self._block_size, self._window_blocks
        )
        return self._storage.by_place(places)

    def read_ahead(self, epoch: int) -> Callable[[int], None]:
        """Return what asks, as the position moves on, for the blocks of the next window."""
        storage, block_size, repeats = self._storage, self._block_size, self._repeats
        blocks = shuffled_blocks(storage.num_samples, self._seed, epoch, block_size)
        num_asked = 0

        def ask(position: int) -> None:
            nonlocal num_asked
            done = position // repeats // block_size
            due = min(done + self._window_blocks + 1, len(blocks))
            begin_of_window = done // self._window_blocks * self._window_blocks
            for block in blocks[max(num_asked, begin_of_window) : due].tolist():
                first = block * block_size
                storage.read_ahead(first, min(first + block_size, storage.num_samples))
            num_asked = max(num_asked, due)

        return ask
