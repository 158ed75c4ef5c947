"""FFCV operations that decode an RGBImageField: random crop, centre crop, whole image.

They take the place of ffcv's own decoders in any pipeline. What differs: only the crop is decoded,
crops and flips come from counters and can be repeated, a sample that cannot be decoded raises
`JpegError`, the threads are the kernel's, and a batch needs no full-size scratch memory. The random
choices are crops.py's, the pixels the kernel's.

Give ffcv's Loader `num_workers=1`, and the decoder the threads.
"""

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numba as nb
import numpy as np
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.state import State
from numba import carray  # type: ignore[attr-defined]
from numba.extending import intrinsic

from ffvit.jpeg import crops
from ffvit.jpeg.kernel import FILTERS, JOB_FIELDS, ThreadPool, check_jpeg, decode_batch

# Slots of `ImageDecoder.progress`; from FAILED_SAMPLE on, a pair for each sample that failed.
SEED, EPOCH, POSITION, NUM_FAILED, FAILED_SAMPLE, FAILED_STATUS = range(6)
# Failed samples of a batch that are told apart; more are only counted.
MAX_FAILURES = 64


class JpegError(Exception):
    """A sample that cannot be decoded; `ImageDecoder.failures` says which ones and why."""


Crop = tuple[int, int, int, int, int]  # top, left, height, width, flip
CropFunction = Callable[[int, int, int, int, int], Crop]


_checking = threading.local()


def _checking_pool() -> ThreadPool:
    """Return this thread's pool: one pool serves one caller at a time."""
    if getattr(_checking, "pid", None) != os.getpid():
        _checking.pid, _checking.pool = os.getpid(), ThreadPool(1)
    return cast("ThreadPool", _checking.pool)


def decode_status(data: bytes, height: int, width: int) -> int:
    """Decode a whole JPEG image, and return its status: 0, or of `STATUS_TEXT`.

    Where it is 0 any crop of the image can be decoded. Threads may call it side by side.

    Args:
        data: The encoded image.
        height: That it should have, pixels.
        width: That it should have, pixels.
    """
    return int(check_jpeg(_checking_pool().address, data, len(data), height, width))


@intrinsic
def _as_pointer(typing_context: Any, address: Any) -> Any:  # noqa: ARG001
    """Turn an address into a pointer that `carray` takes.

    numba freezes the arrays that a function closes over; what changes between batches is read by
    address instead.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return nb.types.CPointer(nb.types.int64)(nb.types.int64), codegen  # type: ignore[no-untyped-call]


# ffcv takes for an image decoder only what derives from its own.
class ImageDecoder(SimpleRGBImageDecoder, ABC):  # type: ignore[misc]
    """Decode a part of each sample to one size; subclasses say which part and size.

    Args:
        num_threads: Threads that decode a batch.
        filter_name: How crops are resized, a key of `kernel.FILTERS`.
        seed: Of every random choice.

    Attributes:
        progress: (4 + 2 * MAX_FAILURES,) int64, read and written by the compiled code: the seed,
            the epoch and the position of the next batch's first sample in the epoch's global
            order; and, after a batch, how many samples failed, and index and status of each. The
            position counts on by itself; who needs another one (`ffvit.data.loader`) sets it.
    """

    def __init__(self, num_threads: int, filter_name: str, seed: int = 0) -> None:
        super().__init__()
        self.num_threads = num_threads
        self.progress = np.zeros(FAILED_SAMPLE + 2 * MAX_FAILURES, dtype=np.int64)
        self.progress[SEED] = seed
        self._filter = FILTERS[filter_name]
        self._pool = ThreadPool(num_threads)

    @property
    def num_fallbacks(self) -> int:
        """Count the samples so far that only libjpeg-turbo could decode, several times slower."""
        return self._pool.num_fallbacks

    def failures(self) -> dict[int, int]:
        """Give the last batch's failed samples and their status; `MAX_FAILURES` at most."""
        count = min(int(self.progress[NUM_FAILED]), MAX_FAILURES)
        return dict(self.progress[FAILED_SAMPLE:].reshape(-1, 2)[:count].tolist())

    @abstractmethod
    def output_size(self) -> tuple[int, int]:
        """Return height and width of what comes out, pixels."""

    @abstractmethod
    def crop_function(self) -> CropFunction:
        """Return a nopython function (height, width, seed, epoch, position) -> crop and flip."""

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """Tell ffcv what comes out: (height, width, 3) uint8 RGB per sample."""
        shape = (*self.output_size(), 3)
        dtype = np.dtype("<u1")
        state = replace(previous_state, jit_mode=True, shape=shape, dtype=dtype)
        return state, AllocationQuery(shape, dtype)

    def generate_code(self) -> Callable[..., Any]:
        """Return the function that ffcv compiles into its pipeline."""
        locate = self._locate_function()
        crop_function = self.crop_function()
        pool = self._pool.address
        filter_index = self._filter
        progress_address = self.progress.ctypes.data
        num_progress = len(self.progress)
        num_fields = len(JOB_FIELDS)

        def decode(batch_indices, destination, metadata, storage_state):  # type: ignore[no-untyped-def]
            address: Any = _as_pointer(progress_address)  # type: ignore[call-arg]
            progress = carray(address, (num_progress,))
            num_samples = len(batch_indices)
            jobs = np.empty((num_samples, num_fields), dtype=np.int64)
            statuses = np.empty(num_samples, dtype=np.int32)
            for k in range(num_samples):
                field = metadata[batch_indices[k]]
                address, size = locate(field, storage_state)
                height = np.int64(field["height"])
                width = np.int64(field["width"])
                top, left, crop_height, crop_width, flip = crop_function(
                    height, width, progress[SEED], progress[EPOCH], progress[POSITION] + k
                )
                job = jobs[k]
                job[0] = address
                job[1] = size
                job[2] = field["mode"]
                job[3] = height
                job[4] = width
                job[5] = top
                job[6] = left
                job[7] = crop_height
                job[8] = crop_width
                job[9] = flip
            progress[POSITION] += num_samples
            progress[NUM_FAILED] = decode_batch(
                pool,
                num_samples,
                jobs.ctypes.data,
                filter_index,
                destination.shape[1],
                destination.shape[2],
                destination.ctypes.data,
                statuses.ctypes.data,
            )
            # numba may free an array after its last use, which the address inside the call is not.
            jobs[:, 0] = 0
            if progress[NUM_FAILED] > 0:
                slot = FAILED_SAMPLE
                for k in range(num_samples):
                    if statuses[k] != 0 and slot < num_progress:
                        progress[slot] = np.int64(batch_indices[k])
                        progress[slot + 1] = statuses[k]
                        slot += 2
                raise JpegError("a sample cannot be decoded")
            return destination[:num_samples]

        return decode

    def _locate_function(self) -> Callable[[Any, Any], tuple[Any, Any]]:
        """Return a nopython function (field, storage_state) -> address and size of a sample."""
        if "size" in self.metadata.dtype.names:  # `ffvit.data.storage` has looked them up

            @nb.njit(nogil=True)
            def locate(field: Any, storage_state: Any) -> tuple[Any, Any]:  # noqa: ARG001
                return np.int64(field["address"]), np.int64(field["size"])

        else:
            memory_read = self.memory_read

            @nb.njit(nogil=True)
            def locate(field: Any, storage_state: Any) -> tuple[Any, Any]:
                sample = memory_read(field["data_ptr"], storage_state)
                return sample.ctypes.data, sample.size

        return locate


class CropDecoder(ImageDecoder):
    """Decode a square crop of each sample.

    Args:
        resolution: Side of the crops after resizing, pixels. May be changed between epochs, which
            compiles nothing.
        num_threads: As for `ImageDecoder`.
        filter_name: As for `ImageDecoder`.
        seed: As for `ImageDecoder`.
    """

    def __init__(self, resolution: int, num_threads: int, filter_name: str, seed: int = 0) -> None:
        super().__init__(num_threads, filter_name, seed)
        self.resolution = resolution

    def output_size(self) -> tuple[int, int]:
        """Return the square's height and width."""
        return self.resolution, self.resolution


class RandomResizedCropDecoder(CropDecoder):
    """Cut a random box, resize it to a square and mirror half of them: the usual training crop.

    Args:
        resolution: As for `CropDecoder`.
        min_scale: Smallest crop, as a fraction of the image's area.
        flip: Whether to mirror half of the crops.
        num_threads: As for `CropDecoder`.
        filter_name: As for `CropDecoder`.
        seed: As for `CropDecoder`.
    """

    def __init__(
        self,
        resolution: int,
        min_scale: float = 0.08,
        flip: bool = True,
        num_threads: int = 1,
        filter_name: str = "area",
        seed: int = 0,
    ) -> None:
        super().__init__(resolution, num_threads, filter_name, seed)
        self._min_scale = min_scale
        self._flip = flip

    def crop_function(self) -> CropFunction:
        """Return the random box and flip of crops.py."""
        min_scale = self._min_scale
        flip_half = self._flip

        @nb.njit(nogil=True)
        def crop(height: int, width: int, seed: int, epoch: int, position: int) -> Crop:
            top, left, crop_height, crop_width = crops.random_resized_crop(
                height, width, min_scale, 1.0, 3 / 4, 4 / 3, seed, epoch, position
            )
            flip = crops.random_flip(seed, epoch, position) if flip_half else 0
            return top, left, crop_height, crop_width, flip

        return crop


class CenterCropDecoder(CropDecoder):
    """Cut the centred square, for validation.

    Args:
        resolution: As for `CropDecoder`.
        ratio: Side of the square as a fraction of the image's shorter side.
        num_threads: As for `CropDecoder`.
        filter_name: As for `CropDecoder`.
    """

    def __init__(
        self,
        resolution: int,
        ratio: float = 224 / 256,
        num_threads: int = 1,
        filter_name: str = "area",
    ) -> None:
        super().__init__(resolution, num_threads, filter_name)
        self._ratio = ratio

    def crop_function(self) -> CropFunction:
        """Return the centred box of crops.py, never mirrored."""
        ratio = self._ratio

        @nb.njit(nogil=True)
        def crop(height: int, width: int, seed: int, epoch: int, position: int) -> Crop:  # noqa: ARG001
            top, left, crop_height, crop_width = crops.center_crop(height, width, ratio)
            return top, left, crop_height, crop_width, 0

        return crop


@nb.njit(nogil=True)
def _whole_image(height: int, width: int, seed: int, epoch: int, position: int) -> Crop:  # noqa: ARG001
    return 0, 0, height, width, 0


class WholeImageDecoder(ImageDecoder):
    """Decode whole images, not resized; all must have the same size, as for ffcv's own.

    Args:
        num_threads: As for `ImageDecoder`.
    """

    def __init__(self, num_threads: int = 1) -> None:
        super().__init__(num_threads, "area")

    def output_size(self) -> tuple[int, int]:
        """Return the images' height and width.

        Raises:
            TypeError: They are not all of one size.
        """
        heights, widths = (np.unique(self.metadata[side]) for side in ("height", "width"))
        if len(heights) > 1 or len(widths) > 1:
            raise TypeError(
                f"WholeImageDecoder: expected images of one size, got {widths.min()} to "
                f"{widths.max()} x {heights.min()} to {heights.max()} pixels; use a crop decoder."
            )
        return int(heights[0]), int(widths[0])

    def crop_function(self) -> CropFunction:
        """Return the box of the whole image."""
        return _whole_image
