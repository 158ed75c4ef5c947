"""Batches of images from a beton: FFCV's Loader with an explicit order and errors that arrive.

What differs from ffcv's: the order is a pure function of seed and epoch (order.py), an exception in
the loader's thread is raised in the training loop, a sample that cannot be decoded is an error that
names it, leaving an epoch early leaves no thread behind, and the place in the epoch can be saved.
"""

import math
import queue
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from ffcv.fields.basics import IntDecoder
from ffcv.loader import Loader as FfcvLoader
from ffcv.loader import OrderOption
from ffcv.loader.epoch_iterator import EpochIterator as FfcvEpochIterator
from ffcv.transforms import Squeeze, ToDevice, ToTensor

from ffvit.data.beton import BetonInfo, open_beton
from ffvit.data.order import Order, exact_cover_order, train_order
from ffvit.errors import BetonError, ConfigError, check_option
from ffvit.jpeg.decoders import (
    EPOCH,
    FAILED_SAMPLE,
    FAILED_STATUS,
    POSITION,
    CenterCropDecoder,
    CropDecoder,
    JpegError,
    RandomResizedCropDecoder,
)
from ffvit.jpeg.kernel import FILTERS, STATUS_TEXT

# Between two looks at whether the other side is still there, seconds.
POLL_S = 0.5


class Batch(NamedTuple):
    """One rank's share of a step.

    Attributes:
        images: (B, S, S, 3) uint8 RGB on the loader's device.
        labels: (B,) int64.
    """

    images: torch.Tensor
    labels: torch.Tensor


class EpochIterator(FfcvEpochIterator):  # type: ignore[misc]
    """One pass over the data by a thread that runs ahead; made by `Loader.__iter__`.

    A batch's tensors are buffers that are filled again some batches later: clone what is kept.
    """

    def __init__(self, loader: "Loader", order: Order) -> None:
        self.closed = False
        self._positions = order.positions
        self._finished = False
        super().__init__(loader, order.samples)

    def run(self) -> None:
        """Fill batches until the order ends, the consumer closes, or something goes wrong."""
        try:
            if self.loader.device.type == "cuda":
                # A new thread is on GPU 0, and would make a context there for every rank.
                torch.cuda.set_device(self.loader.device)
            self._produce()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised in `__next__`
            self._put(error)

    def _produce(self) -> None:
        num_slots = self.loader.batches_ahead + 2
        events: list[torch.cuda.Event | None] = [None] * num_slots
        for index, samples in enumerate(self.iter_ixes):
            slot = index % num_slots
            result = self.run_pipeline(index, samples, slot, events[slot])
            if not self._put((slot, result)):
                return
            if self.loader.device.type == "cuda":
                # This batch was taken up, so all work on the one `batches_ahead + 1` before is
                # submitted: its slot may be filled again once the device has done that work.
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(self.current_stream)
                events[(slot - self.loader.batches_ahead - 1) % num_slots] = event
        self._put(None)

    def _put(self, item: Any) -> bool:
        while not self.terminate_event.is_set():
            try:
                self.output_queue.put(item, timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def run_pipeline(self, b_ix: int, batch_indices: Any, batch_slot: int, cuda_event: Any) -> Any:
        """Decode one batch into its slot; raise `BetonError` for a sample that has no image."""
        decoder = self.loader.decoder
        decoder.progress[POSITION] = self._positions[b_ix * self.loader.batch_size]
        try:
            return super().run_pipeline(b_ix, batch_indices, batch_slot, cuda_event)
        except JpegError:
            sample = int(decoder.progress[FAILED_SAMPLE])
            reason = STATUS_TEXT[int(decoder.progress[FAILED_STATUS])]
            error = BetonError(
                f"{self.loader.info.path}: expected an image in sample {sample}, but {reason}; "
                "write the beton again from sound images."
            )
            error.is_local = True
            raise error from None

    def __next__(self) -> Batch:
        """Wait for the next batch; what went wrong in the thread is raised here."""
        if self._finished:
            raise StopIteration
        while True:
            try:
                item = self.output_queue.get(timeout=POLL_S)
                break
            except queue.Empty:
                if not self.is_alive() and self.output_queue.empty():
                    self.close()
                    raise RuntimeError("the loader's thread ended without a word") from None
        if item is None or isinstance(item, BaseException):
            self.close()
            if item is None:
                raise StopIteration
            raise item
        slot, (images, labels) = item
        if self.loader.device.type == "cuda":
            self.current_stream.wait_stream(self.cuda_streams[slot])
        self.loader.next_batch += 1
        return Batch(images, labels)

    def close(self) -> None:
        """End the thread and wait for it; further batches are StopIteration."""
        self._finished = True
        self.terminate_event.set()
        if self.is_alive():
            self.join()
        if not self.closed:
            self.closed = True
            self.memory_context.__exit__(None, None, None)


class Loader(FfcvLoader):  # type: ignore[misc]
    """Iterate over one rank's batches of an epoch.

    Use `set_epoch`, then iterate; one iteration at a time. `close` ends one that was left early.

    Args:
        info: The beton, checked.
        decoder: Cuts the images; its threads do the decoding.
        order: Epoch -> this rank's samples.
        batch_size: Images per batch; a last one may have fewer.
        device: Where batches are put.
    """

    def __init__(
        self,
        info: BetonInfo,
        decoder: CropDecoder,
        order: Callable[[int], Order],
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.info = info
        self.decoder = decoder
        self.device = device
        self.next_batch = 0
        self._first_batch = 0
        self._order_of_epoch = order
        self._iterator: EpochIterator | None = None
        image_pipeline = [decoder, ToTensor()]
        label_pipeline = [IntDecoder(), ToTensor(), Squeeze(1)]
        if device.type == "cuda":
            # Blocking for this thread alone: the pinned source is not refilled under the copy.
            image_pipeline.append(ToDevice(device, non_blocking=False))
            label_pipeline.append(ToDevice(device, non_blocking=False))
        # ffcv sets torch's thread count to its own, for the whole process.
        num_torch_threads = torch.get_num_threads()
        super().__init__(
            str(info.path),
            batch_size=batch_size,
            num_workers=1,  # the kernel has its own threads
            order=OrderOption.SEQUENTIAL,
            pipelines={"image": image_pipeline, "label": label_pipeline},
            drop_last=False,
        )
        torch.set_num_threads(num_torch_threads)
        self.set_epoch(0)

    @property
    def resolution(self) -> int:
        """Side of the images, pixels."""
        return self.decoder.resolution

    def set_epoch(self, epoch: int, resolution: int | None = None) -> None:
        """Go to the start of an epoch, at a new resolution if one is given."""
        self.close()
        self.decoder.progress[EPOCH] = epoch
        if resolution is not None:
            self.decoder.resolution = resolution
        self.epoch = epoch
        self.next_batch = self._first_batch = 0
        self._order = self._order_of_epoch(epoch)

    def __len__(self) -> int:
        """Count the batches of a whole epoch."""
        return math.ceil(len(self._order.samples) / int(self.batch_size))

    def __iter__(self) -> Iterator[Batch]:
        """Start the thread at the epoch's first batch, or at the one of a loaded state."""
        self.close()
        self.next_batch, self._first_batch = self._first_batch, 0
        begin = self.next_batch * self.batch_size
        rest = Order(self._order.samples[begin:], self._order.positions[begin:])
        self._iterator = EpochIterator(self, rest)
        return self._iterator

    def close(self) -> None:
        """End an iteration that is under way."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def state_dict(self) -> dict[str, int]:
        """Say which batch comes next, and at which resolution."""
        return {
            "epoch": self.epoch,
            "batch": self.next_batch,
            "resolution": self.resolution,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to the batch that a `state_dict` names."""
        self.set_epoch(state["epoch"], state["resolution"])
        self.next_batch = self._first_batch = state["batch"]


def create_train_loader(
    path: str,
    resolution: int,
    global_batch_size: int,
    batch_size: int,
    min_scale: float,
    flip: bool,
    seed: int,
    rank: int,
    world_size: int,
    num_threads: int,
    device: torch.device,
) -> Loader:
    """Make the loader of random crops, shuffled anew each epoch.

    Args:
        path: The beton.
        resolution: Of the first epoch, pixels.
        global_batch_size: Images per optimizer update, over all ranks and micro-batches.
        batch_size: Images per rank and micro-batch.
        min_scale: Smallest crop, as a fraction of the image's area.
        flip: Whether to mirror half of the crops.
        seed: Of order, crops and flips.
        rank: Of this process.
        world_size: Number of processes.
        num_threads: Decoding threads.
        device: Where batches are put.

    Raises:
        BetonError: The file is not a whole beton.
        ConfigError: It has fewer images than one update needs; an option out of its range.
    """
    in_range = 0 < min_scale <= 1
    check_option("data.min_scale", min_scale, "a share above 0 and at most 1", in_range)
    check_option("data.num_workers", num_threads, "0 or more threads", num_threads > 0)
    info = open_beton(path)
    if info.num_samples < global_batch_size:
        raise ConfigError(
            f"training.global_batch_size={global_batch_size} is more than the {info.num_samples} "
            f"images of {path}; use {info.num_samples} or fewer."
        )
    decoder = RandomResizedCropDecoder(
        resolution, min_scale=min_scale, flip=flip, num_threads=num_threads, seed=seed
    )

    def order(epoch: int) -> Order:
        return train_order(
            info.num_samples, seed, epoch, global_batch_size, batch_size, rank, world_size
        )

    return Loader(info, decoder, order, batch_size, device)


def create_val_loader(
    path: str,
    resolution: int,
    ratio: float,
    filter_name: str,
    batch_size: int,
    rank: int,
    world_size: int,
    num_threads: int,
    device: torch.device,
) -> Loader:
    """Make the loader of centre crops: over all ranks each image once, in the beton's order.

    Args:
        path: The beton.
        resolution: Side of the crops after resizing, pixels.
        ratio: Side of the crops before it, as a fraction of the image's shorter side.
        filter_name: area or bicubic.
        batch_size: Images per rank and batch.
        rank: Of this process.
        world_size: Number of processes.
        num_threads: Decoding threads.
        device: Where batches are put.

    Raises:
        BetonError: The file is not a whole beton.
        ConfigError: No such filter; an option out of its range.
    """
    if filter_name not in FILTERS:
        known = " or ".join(FILTERS)
        raise ConfigError(f"validation.filter={filter_name}: expected {known}.")
    check_option("validation.ratio", ratio, "a share above 0 and at most 1", 0 < ratio <= 1)
    check_option("validation.batch_size", batch_size, "1 or more images", batch_size > 0)
    check_option("validation.resolution", resolution, "1 or more pixels", resolution > 0)
    info = open_beton(path)
    decoder = CenterCropDecoder(resolution, ratio, num_threads, filter_name)
    order = exact_cover_order(info.num_samples, rank, world_size)
    return Loader(info, decoder, lambda _: order, batch_size, device)
