"""One pass over an epoch's batches, made by a thread that runs ahead of the training loop.

The thread knows nothing of the iterator, so that one which nobody holds any more is collected and
ends its thread. What goes wrong in the thread is raised where the next batch is asked for.
"""

import contextlib
import faulthandler
import os
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ffvit.data.order import Order
from ffvit.data.pipeline import Pipeline, Samples
from ffvit.errors import StallError

# Between two looks at whether the other side is still there, seconds.
POLL_S = 0.5
# Batches that wait to be taken; besides, one is with the consumer and one is being made.
BATCHES_AHEAD = 3
# Longest wait for a thread when the process ends, seconds.
_EXIT_S = 10.0

ReadAhead = Callable[[int], None] | None


class Batch(NamedTuple):
    """One rank's share of a step.

    Attributes:
        images: (B, S, S, 3) uint8 RGB on the loader's device.
        labels: (B,) int64, there too.
        samples: (B,) int32 array on the host: which samples of the data set these are.
        position: Of the first of them in the epoch's global order.
    """

    images: torch.Tensor
    labels: torch.Tensor
    samples: Samples
    position: int


@dataclass
class Progress:
    """What the consumer has taken of an epoch.

    Attributes:
        next_batch: Index of the batch that comes next.
        num_skipped: Images so far that stood in for a sample that cannot be decoded.
    """

    next_batch: int = 0
    num_skipped: int = 0


class _Producer(threading.Thread):
    """Makes the batches of an order.

    Args:
        pipeline: Decodes; one thread at a time may use it.
        order: What is left of the epoch.
        read_ahead: Called with the position of each batch before it is decoded, if anything is.
    """

    def __init__(self, pipeline: Pipeline, order: Order, read_ahead: ReadAhead) -> None:
        super().__init__(name="ffvit-loader", daemon=True)
        self.batches: queue.Queue[Any] = queue.Queue(BATCHES_AHEAD)
        self.stop = threading.Event()
        self.is_given_up = False
        self.position = 0
        self._pipeline = pipeline
        self._order = order
        self._read_ahead = read_ahead
        self._is_cuda = pipeline.device.type == "cuda"
        self.streams: list[torch.cuda.Stream] = []
        if self._is_cuda:
            self.consumer_stream = torch.cuda.current_stream(pipeline.device)
            # Buffers are those of the epoch before: its batches may still be waiting to be read.
            self._start = self.consumer_stream.record_event()
            self.streams = [
                torch.cuda.Stream(pipeline.device)  # type: ignore[no-untyped-call]
                for _ in range(BATCHES_AHEAD + 2)
            ]

    def run(self) -> None:
        """Fill batches until the order ends, the consumer closes, or something goes wrong."""
        try:
            if self._is_cuda:
                # A new thread is on GPU 0, and would make a context there for every rank.
                torch.cuda.set_device(self._pipeline.device)
            self._produce()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the iterator raises it
            self._put(error)

    def _produce(self) -> None:
        batch_size, num_slots = self._pipeline.batch_size, BATCHES_AHEAD + 2
        buffers = self._pipeline.allocate(num_slots)
        events = [self._start if self._is_cuda else None] * num_slots
        for index, position in enumerate(self._order.positions.tolist()):
            slot = index % num_slots
            self.position = position
            if self._read_ahead is not None:
                self._read_ahead(position)
            samples = self._order.samples[index * batch_size : (index + 1) * batch_size]
            with self._on_stream(slot, events[slot]):
                result, shown = self._pipeline.run(samples, position, buffers, slot)
            if not self._put(
                (slot, Batch(*result, shown, position), int((shown != samples).sum()))
            ):
                return
            if self._is_cuda:
                # This batch was taken up, so all work on the one `BATCHES_AHEAD + 1` before is
                # submitted: its slot may be filled again once the device has done that work.
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(self.consumer_stream)
                events[(slot - BATCHES_AHEAD - 1) % num_slots] = event
        self._put(None)

    @contextlib.contextmanager
    def _on_stream(self, slot: int, event: torch.cuda.Event | None) -> Iterator[None]:
        """Copy to the device on the slot's own stream, once the slot may be filled again."""
        if not self._is_cuda:
            yield
            return
        with torch.cuda.stream(self.streams[slot]):
            if event is not None:
                event.wait()
            yield

    def _put(self, item: Any) -> bool:
        while not self.stop.is_set():
            try:
                self.batches.put(item, timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def end(self, timeout_s: float | None) -> bool:
        """Ask the thread to end, and wait for it; return whether it has ended."""
        self.stop.set()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(timeout_s)
        return not self.is_alive()


def _end_at_exit(producer: _Producer, pid: int) -> None:
    """End a thread whose iterator is gone, or whose process ends: nothing decodes after that."""
    if os.getpid() == pid and not producer.is_given_up:  # a forked child has no such thread
        producer.end(_EXIT_S)


class EpochIterator:
    """Iterator over the batches of an epoch; made by `Loader.__iter__`.

    Args:
        pipeline: Decodes.
        order: What is left of the epoch.
        read_ahead: Called with the position of each batch before it is decoded, if anything is.
        progress: Is counted up with each batch taken.
        watchdog_s: Longest wait for a batch, seconds; 0: without end.
        copy: Whether batches are the consumer's to keep; else their tensors are buffers that may
            be filled again as soon as the next batch is asked for, or the next epoch begun.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        order: Order,
        read_ahead: ReadAhead,
        progress: Progress,
        watchdog_s: float,
        copy: bool,
    ) -> None:
        self._pipeline = pipeline
        self._progress = progress
        self._watchdog_s = watchdog_s
        self._copy = copy
        self._is_finished = False
        self._pid = os.getpid()
        if pipeline.user is not None and pipeline.user.is_alive():  # never so in a forked child
            raise StallError(
                f"{pipeline.storage.info.path}: the thread of an earlier pass still stands still.",
                is_local=True,
            )
        self._producer = pipeline.user = _Producer(pipeline, order, read_ahead)
        self._finalize = weakref.finalize(self, _end_at_exit, self._producer, self._pid)
        self._producer.start()

    def __iter__(self) -> "EpochIterator":
        return self

    def __next__(self) -> Batch:
        """Wait for the next batch; what went wrong in the thread is raised here.

        Raises:
            StallError: None came for `watchdog_s` seconds.
        """
        if self._is_finished:
            raise StopIteration
        if os.getpid() != self._pid:
            raise RuntimeError(
                "the loader's thread stayed in the parent process; iterate anew here"
            )
        item = self._wait()
        if item is None or isinstance(item, BaseException):
            self.close()
            if item is None:
                raise StopIteration
            raise item
        slot, batch, num_skipped = item
        if self._producer.streams:
            self._producer.consumer_stream.wait_stream(self._producer.streams[slot])
        self._progress.next_batch += 1
        self._progress.num_skipped += num_skipped
        if self._copy:
            images, labels = batch.images.clone(), batch.labels.clone()
            return Batch(images, labels, batch.samples.copy(), batch.position)
        return batch  # type: ignore[no-any-return]

    def _wait(self) -> Any:
        # Counted in polls and not by a clock: a process that was stopped for long is no stall.
        waited_s = 0.0
        while True:
            try:
                return self._producer.batches.get(timeout=POLL_S)
            except queue.Empty:
                waited_s += POLL_S
            if not self._producer.is_alive() and self._producer.batches.empty():
                self.close()
                raise RuntimeError("the loader's thread ended without a word")
            if 0 < self._watchdog_s <= waited_s:
                raise self._give_up(f"no batch came for {waited_s:g} s")

    def _give_up(self, problem: str) -> StallError:
        """Leave a thread that stands still to itself, and say where everybody is."""
        self._is_finished = self._producer.is_given_up = True
        self._producer.stop.set()
        sys.stderr.flush()
        faulthandler.dump_traceback(2, all_threads=True)
        return StallError(
            f"{self._pipeline.storage.info.path}: {problem}, at position "
            f"{self._producer.position} of the epoch (batch {self._progress.next_batch} of this "
            "process); the stacks of all threads are above. Look at the disk or network that "
            "holds the file; data.watchdog_s sets how long to wait.",
            is_local=True,
        )

    def close(self) -> None:
        """End the thread and wait for it; further batches are StopIteration.

        Raises:
            StallError: The thread does not end within `watchdog_s` seconds.
        """
        self._is_finished = True
        if os.getpid() != self._pid or self._producer.is_given_up:
            return
        if not self._producer.end(self._watchdog_s or None):
            raise self._give_up(f"its thread did not end within {self._watchdog_s:g} s")
