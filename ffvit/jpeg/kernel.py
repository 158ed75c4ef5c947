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
}

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

_pool_create = _library.ffvit_pool_create
_pool_create.argtypes = [ctypes.c_int64]
_pool_create.restype = ctypes.c_int64

_pool_destroy = _library.ffvit_pool_destroy
_pool_destroy.argtypes = [ctypes.c_int64]
_pool_destroy.restype = None

# decode_batch(pool, num_jobs, jobs, filter, resolution, out, statuses) -> number of failures.
decode_batch = _library.ffvit_decode_batch
decode_batch.argtypes = [
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_void_p,
]
decode_batch.restype = ctypes.c_int64


class ThreadPool:
    """Decoding threads of one loader, idle between batches; freed with this object.

    Args:
        num_threads: Threads that work on a batch, the caller's among them; at least 1.

    Raises:
        OSError: The system refuses that many threads.
    """

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self.address: int = _pool_create(num_threads)
        if self.address == 0:
            raise OSError(f"cannot start {num_threads} decoding threads")
        weakref.finalize(self, _pool_destroy, self.address)
