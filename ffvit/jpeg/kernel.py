"""The C functions of the kernel, typed so that numba calls them from nopython code without the GIL.

This file knows the C interface (kernel.h) and nothing else; decoders.py knows what a batch is.
"""

import ctypes
import importlib
import weakref

# Keep in step with `Status` of kernel.h.
STATUS_TEXT = {
    0: "decoded",
    -1: "not a JPEG, or its header is damaged",
    -2: "its image data are damaged",
    -3: "its stored width and height are not the image's",
    -4: "the crop does not lie inside the image",
    -5: "it has fewer bytes than its raw pixels need",
    -6: "out of memory",
    -7: "its mode is neither JPEG nor raw",
    -8: "its colours are of a kind that has no conversion to RGB (CMYK, YCCK)",
}

# Not the sample's fault.
OUT_OF_MEMORY = -6

# Columns of the job array, one int64 each: `Job` of kernel.h.
JOB_FIELDS = (
    "data",
    "size",
    "mode",
    "height",
    "width",
    "top",
    "left",
    "crop_height",
    "crop_width",
    "flip",
)

# How crops are resized: `Filter` of kernel.h.
FILTERS = {"area": 0, "bicubic": 1}

# Importing the module tells where an install put the library; it has no Python functions.
_library = ctypes.CDLL(str(importlib.import_module("ffvit.jpeg._kernel").__file__))

_target_name = _library.ffvit_target_name
_target_name.argtypes = [ctypes.c_int64]
_target_name.restype = ctypes.c_char_p

_pool_create = _library.ffvit_pool_create
_pool_create.argtypes = [ctypes.c_int64, ctypes.c_int64]
_pool_create.restype = ctypes.c_int64

_pool_destroy = _library.ffvit_pool_destroy
_pool_destroy.argtypes = [ctypes.c_int64]
_pool_destroy.restype = None

_pool_fallbacks = _library.ffvit_pool_fallbacks
_pool_fallbacks.argtypes = [ctypes.c_int64]
_pool_fallbacks.restype = ctypes.c_int64

# decode_batch(pool, num_jobs, jobs, filter, height, width, out, statuses) -> number of failures.
decode_batch = _library.ffvit_decode_batch
decode_batch.argtypes = [
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_void_p,
]
decode_batch.restype = ctypes.c_int64

# check_jpeg(pool, data, size, height, width) -> status.
check_jpeg = _library.ffvit_check_jpeg
check_jpeg.argtypes = [
    ctypes.c_int64,
    ctypes.c_char_p,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_int64,
]
check_jpeg.restype = ctypes.c_int64


def targets() -> list[str]:
    """Name the instruction sets whose inner loops this machine can run, the fastest first."""
    names: list[str] = []
    while name := _target_name(len(names)):
        names.append(name.decode())
    return names


def target_index(name: str | None) -> int:
    """Find one of `targets()`; the fastest for None."""
    return targets().index(name) if name else 0


class ThreadPool:
    """Decoding threads of one loader, idle between batches; freed with this object.

    Args:
        num_threads: Threads that work on a batch, the caller's among them; at least 1.
        target: One of `targets()`; all compute the same pixels. Default: the fastest.

    Raises:
        OSError: The system refuses that many threads.
    """

    def __init__(self, num_threads: int, target: str | None = None) -> None:
        self.num_threads = num_threads
        self.address: int = _pool_create(num_threads, target_index(target))
        if self.address == 0:
            raise OSError(f"cannot start {num_threads} decoding threads")
        # Not at exit: a daemon thread of ffcv may still be decoding then.
        weakref.finalize(self, _pool_destroy, self.address).atexit = False

    @property
    def num_fallbacks(self) -> int:
        """Count the images that libjpeg-turbo decoded, as the kernel's own decoder could not."""
        return int(_pool_fallbacks(self.address))
