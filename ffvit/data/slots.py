"""Memory that worker processes share with the one that stores: images need not go through pipes.

It has no name, so it cannot outlive its processes, and a container's small /dev/shm does not limit
it. Pages that no image has touched cost nothing.
"""

import mmap
import os
from multiprocessing import reduction
from typing import Any

import numpy as np
import numpy.typing as npt

# Larger images go through the pipe; a raw one of 590 x 590 pixels does not.
SLOT_BYTES = 1 << 20


class Slots:
    """Room for one image per slot, and a note of what each worker has in hand.

    Args:
        num_slots: Images that may wait at a time.
        num_workers: Processes that fill them.
        is_inherited: The processes are forks. Others get it as an argument; it is a file in memory
            then, which a limit to the size of files holds for.

    Attributes:
        in_hand: (num_workers,) int64, shared: what each worker is at; the caller defines it.
    """

    def __init__(self, num_slots: int, num_workers: int, is_inherited: bool) -> None:
        self._num_workers = num_workers
        self._head_bytes = -(-8 * num_workers // mmap.PAGESIZE) * mmap.PAGESIZE
        num_bytes = self._head_bytes + num_slots * SLOT_BYTES
        self._file = -1 if is_inherited else os.memfd_create("ffvit-images", os.MFD_CLOEXEC)
        if not is_inherited:
            os.ftruncate(self._file, num_bytes)
        self._map(num_bytes)

    def _map(self, num_bytes: int) -> None:
        self._memory = memoryview(mmap.mmap(self._file, num_bytes))
        self.in_hand: npt.NDArray[np.int64] = np.frombuffer(
            self._memory, dtype=np.int64, count=self._num_workers
        )

    def __getstate__(self) -> tuple[int, int, int, Any]:
        file = reduction.DupFd(self._file)
        return self._num_workers, self._head_bytes, len(self._memory), file

    def __setstate__(self, state: tuple[int, int, int, Any]) -> None:
        self._num_workers, self._head_bytes, num_bytes, file = state
        self._file = file.detach()
        self._map(num_bytes)

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)

    def put(self, slot: int, data: bytes | memoryview) -> None:
        """Copy up to `SLOT_BYTES` into a slot."""
        begin = self._head_bytes + slot * SLOT_BYTES
        self._memory[begin : begin + len(data)] = data

    def get(self, slot: int, num_bytes: int) -> memoryview:
        """Show what lies in a slot; it changes when the slot is filled again."""
        begin = self._head_bytes + slot * SLOT_BYTES
        return self._memory[begin : begin + num_bytes]
