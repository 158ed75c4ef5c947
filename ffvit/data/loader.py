"""Batches of images from betons, in an explicit order, with errors that arrive.

What differs from ffcv's Loader: the order is a pure function of seed and epoch (order.py); what
goes wrong in the loader's thread is raised in the training loop, and so is a thread that stands
still; a sample that cannot be decoded is an error that names it, or is skipped and counted; leaving
an epoch early leaves no thread behind; the place in the epoch can be saved.
"""

import math
import weakref
from collections.abc import Callable, Mapping

import torch

from ffvit.data.beton import BetonInfo
from ffvit.data.blocks import Blocks
from ffvit.data.epoch_iterator import Batch, EpochIterator, Progress
from ffvit.data.order import (
    Order,
    epoch_permutation,
    exact_cover_order,
    repeat_samples,
    train_order,
)
from ffvit.data.pipeline import Pipeline
from ffvit.data.storage import Storage
from ffvit.errors import ConfigError, check_option
from ffvit.jpeg.decoders import EPOCH, CenterCropDecoder, CropDecoder, RandomResizedCropDecoder
from ffvit.jpeg.kernel import FILTERS
from ffvit.options import DataSection, ValidationSection

__all__ = ["Batch", "Loader", "create_train_loader", "create_val_loader"]

# How `data.order` may be.
ORDERS = ("random", "blocks")


class Loader:
    """Iterate over one rank's batches of an epoch.

    Use `set_epoch`, then iterate; one iteration at a time. `close` ends one that was left early; so
    does dropping its iterator. In a forked child it works on, with a new iteration.

    Args:
        pipeline: Decodes batches of the data set.
        order: Epoch -> this rank's samples.
        blocks: What the order keeps together, if anything: is read ahead.
        watchdog_s: Longest wait for a batch, seconds; 0: without end.
        copy: Whether batches are the caller's to keep. Else their tensors are buffers that may be
            filled again as soon as the next batch is asked for, or the next epoch begun: clone what
            is kept.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        order: Callable[[int], Order],
        blocks: Blocks | None,
        watchdog_s: float,
        copy: bool,
    ) -> None:
        expected = "0 (never) or more seconds"
        check_option("data.watchdog_s", watchdog_s, expected, watchdog_s >= 0)
        self.pipeline = pipeline
        self._order_of_epoch = order
        self._blocks = blocks
        self._watchdog_s = watchdog_s
        self._copy = copy
        self._iterator: weakref.ref[EpochIterator] | None = None
        self._progress = Progress()
        self.set_epoch(0)

    @property
    def info(self) -> BetonInfo:
        """What is known of the data set; of several betons together."""
        return self.pipeline.storage.info

    @property
    def decoder(self) -> CropDecoder:
        """What cuts the images."""
        return self.pipeline.decoder

    @property
    def batch_size(self) -> int:
        """Most images of a batch."""
        return self.pipeline.batch_size

    @property
    def resolution(self) -> int:
        """Side of the images, pixels."""
        return self.decoder.resolution

    @property
    def num_skipped(self) -> int:
        """Count this rank's images of the epoch, so far, that stood in for one not decodable."""
        return self._progress.num_skipped

    def check_labels(self, num_classes: int) -> None:
        """Check that a model with `num_classes` outputs can be trained or measured on this.

        Raises:
            BetonError: A label is not below `num_classes`; names the first such sample.
        """
        self.pipeline.storage.check_labels(num_classes)

    def set_epoch(self, epoch: int, resolution: int | None = None) -> None:
        """Go to the start of an epoch, at a new resolution if one is given."""
        self.close()
        self.decoder.progress[EPOCH] = epoch
        if resolution is not None:
            self.decoder.resolution = resolution
        self.epoch = epoch
        self._first_batch = 0
        self._progress = Progress()
        self._order = self._order_of_epoch(epoch)

    def __len__(self) -> int:
        """Count the batches of a whole epoch."""
        return math.ceil(len(self._order.samples) / self.batch_size)

    def __iter__(self) -> EpochIterator:
        """Start the thread at the epoch's first batch, or at the one of a loaded state."""
        self.close()
        first, self._first_batch = self._first_batch, 0
        rest = Order(self._order.samples[first * self.batch_size :], self._order.positions[first:])
        self._progress = Progress(next_batch=first)
        iterator = EpochIterator(
            self.pipeline,
            rest,
            self._blocks.read_ahead(self.epoch) if self._blocks else None,
            self._progress,
            self._watchdog_s,
            self._copy,
        )
        self._iterator = weakref.ref(iterator)
        return iterator

    def close(self) -> None:
        """End an iteration that is under way.

        Raises:
            StallError: Its thread does not end.
        """
        iterator = self._iterator() if self._iterator is not None else None
        if iterator is not None:
            iterator.close()

    def state_dict(self) -> dict[str, int]:
        """Say which batch comes next, and at which resolution."""
        return {
            "epoch": self.epoch,
            "batch": self._progress.next_batch,
            "resolution": self.resolution,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to the batch that a `state_dict` names."""
        self.set_epoch(state["epoch"], state["resolution"])
        self._first_batch = state["batch"]
        self._progress = Progress(next_batch=state["batch"])


def create_train_loader(
    data: DataSection,
    resolution: int,
    global_batch_size: int,
    batch_size: int,
    seed: int,
    rank: int,
    world_size: int,
    num_threads: int,
    device: torch.device,
    copy: bool = False,
) -> Loader:
    """Make the loader of random crops, shuffled anew each epoch.

    Args:
        data: The options of the data, of which `num_workers` is not read.
        resolution: Of the first epoch, pixels.
        global_batch_size: Images per optimizer update, over all ranks and micro-batches.
        batch_size: Images per rank and micro-batch.
        seed: Of order, crops and flips.
        rank: Of this process.
        world_size: Number of processes.
        num_threads: Decoding threads.
        device: Where batches are put.
        copy: As for `Loader`.

    Raises:
        BetonError: A file is not a whole beton, or the classes of several differ.
        ConfigError: There are fewer images than one update needs; an option out of its range.
    """
    in_range = 0 < data.min_scale <= 1
    check_option("data.min_scale", data.min_scale, "a share above 0 and at most 1", in_range)
    check_option("data.num_workers", num_threads, "0 or more threads", num_threads > 0)
    check_option("data.repeats", data.repeats, "1 or more", data.repeats > 0)
    check_option("data.order", data.order, " or ".join(ORDERS), data.order in ORDERS)
    check_option("data.window_gib", data.window_gib, "a number above 0", data.window_gib > 0)
    storage = Storage(data.train_path, data.stage_dir)
    num_samples = storage.num_samples
    if num_samples < global_batch_size:
        raise ConfigError(
            f"training.global_batch_size={global_batch_size} is more than the {num_samples} "
            f"images of {data.train_path}; use {num_samples} or fewer."
        )
    decoder = RandomResizedCropDecoder(
        resolution, data.min_scale, data.flip, num_threads=num_threads, seed=seed
    )
    pipeline = Pipeline(storage, decoder, batch_size, device, data.on_error)
    blocks = None
    if data.order == "blocks":
        blocks = Blocks(storage, seed, data.window_gib, data.repeats)

    def order(epoch: int) -> Order:
        if blocks is None:
            permutation = epoch_permutation(num_samples, seed, epoch)
        else:
            permutation = blocks.permutation(epoch)
        permutation = repeat_samples(permutation, data.repeats, global_batch_size)
        return train_order(permutation, global_batch_size, batch_size, rank, world_size)

    return Loader(pipeline, order, blocks, data.watchdog_s, copy)


def create_val_loader(
    data: DataSection,
    validation: ValidationSection,
    rank: int,
    world_size: int,
    num_threads: int,
    device: torch.device,
    copy: bool = False,
) -> Loader:
    """Make the loader of centre crops: over all ranks each image once, in the beton's order.

    It stops at a sample that cannot be decoded: a figure for fewer images, or for others, would not
    be one of this data set.

    Args:
        data: The options of the data, of which path and watchdog are read.
        validation: The options of the measurement.
        rank: Of this process.
        world_size: Number of processes.
        num_threads: Decoding threads.
        device: Where batches are put.
        copy: As for `Loader`.

    Raises:
        BetonError: A file is not a whole beton, or the classes of several differ.
        ConfigError: No such filter; an option out of its range.
    """
    filter_name, ratio = validation.filter, validation.ratio
    resolution, batch_size = validation.resolution, validation.batch_size
    if filter_name not in FILTERS:
        known = " or ".join(FILTERS)
        raise ConfigError(f"validation.filter={filter_name}: expected {known}.")
    check_option("validation.ratio", ratio, "a share above 0 and at most 1", 0 < ratio <= 1)
    check_option("validation.batch_size", batch_size, "1 or more images", batch_size > 0)
    check_option("validation.resolution", resolution, "1 or more pixels", resolution > 0)
    storage = Storage(data.val_path, data.stage_dir)
    decoder = CenterCropDecoder(resolution, ratio, num_threads, filter_name)
    order = exact_cover_order(storage.num_samples, batch_size, rank, world_size)
    pipeline = Pipeline(storage, decoder, batch_size, device, on_error="stop")
    return Loader(pipeline, lambda _: order, None, data.watchdog_s, copy)
