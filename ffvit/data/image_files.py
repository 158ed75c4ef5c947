"""Batches of images read through Pillow, one file at a time: for evaluation and prediction.

Slower than betons, and independent of them: nothing of the kernel is used.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from PIL.Image import Image
from torch.utils.data import DataLoader, Dataset

from ffvit.data.images import decode_image
from ffvit.data.sources.base import Indices, Store
from ffvit.errors import SourceError

# Pillow's own limit.
MAX_PIXELS = 89_478_485
# Longer side over shorter one. The shorter is resized to some 256 px, which makes a sheet of memory
# out of a hair.
MAX_ASPECT = 100
_BATCHES_AHEAD = 2


class PreparedBatch(NamedTuple):
    """Some images, prepared.

    Attributes:
        keys: Of the store; those that could be read.
        pixels: (B, 3, S, S) uint8 RGB, B the number of keys.
        failures: Key of each image that could not be read, and the error's text.
    """

    keys: list[int]
    pixels: torch.Tensor
    failures: list[tuple[int, str]]


def prepared_batches(
    store: Store,
    keys: Sequence[int] | Indices,
    transform: Callable[[Image], torch.Tensor],
    batch_size: int,
    num_workers: int,
) -> Iterator[PreparedBatch]:
    """Read and prepare images in worker processes, in the order of the keys.

    Args:
        store: Where the files are.
        keys: Which of them.
        transform: Upright RGB image -> (3, S, S) uint8.
        batch_size: Images at once.
        num_workers: Processes; none are started for a single batch.
    """
    num_batches = math.ceil(len(keys) / batch_size)
    num_workers = min(num_workers, num_batches) if num_batches > 1 else 0
    yield from DataLoader(
        _Images(store, keys, transform),
        batch_size=batch_size,
        num_workers=num_workers,
        prefetch_factor=_BATCHES_AHEAD if num_workers else None,
        collate_fn=_collate,
    )


class _Images(Dataset[tuple[int, torch.Tensor | str]]):
    """Image number i: its key, and its pixels or what went wrong."""

    def __init__(
        self,
        store: Store,
        keys: Sequence[int] | Indices,
        transform: Callable[[Image], torch.Tensor],
    ) -> None:
        self._store = store
        self._keys = keys
        self._transform = transform

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor | str]:
        key = int(self._keys[index])
        name = self._store.name(key)
        try:
            image = decode_image(self._store.read(key), name, MAX_PIXELS)
        except SourceError as error:
            return key, str(error)
        if max(image.size) > MAX_ASPECT * min(image.size):
            return key, (
                f"{name}: expected a longer side of up to {MAX_ASPECT} times the shorter, got "
                f"{image.width} x {image.height} pixels; cut it."
            )
        return key, self._transform(image)


def _collate(items: Sequence[tuple[int, torch.Tensor | str]]) -> PreparedBatch:
    read = [(key, item) for key, item in items if isinstance(item, torch.Tensor)]
    failures = [(key, item) for key, item in items if isinstance(item, str)]
    pixels = torch.stack([item for _, item in read]) if read else torch.empty(0, 3, 0, 0)
    return PreparedBatch([key for key, _ in read], pixels, failures)
