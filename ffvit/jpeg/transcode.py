"""JPEGs made into other JPEGs, encoded by libjpeg-turbo, without Pillow's detour over RGB pixels.

For writing betons. This file knows the C interface (transcode.h, shrink.h) and nothing of
betons. Calls release the GIL.
"""

import ctypes
import importlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ffvit.jpeg.kernel import STATUS_TEXT, target_index

# `kNoRoom` of codec.h.
_NO_ROOM = -100

_library = ctypes.CDLL(str(importlib.import_module("ffvit.jpeg._kernel").__file__))
_int = ctypes.c_int64

_libjpeg_version = _library.ffvit_libjpeg_version
_libjpeg_version.argtypes = []
_libjpeg_version.restype = ctypes.c_char_p

_add_restart_markers = _library.ffvit_add_restart_markers
_add_restart_markers.argtypes = [ctypes.c_char_p, *[_int] * 4, ctypes.c_void_p, _int]
_add_restart_markers.restype = _int

_shrink_jpeg = _library.ffvit_shrink_jpeg
_shrink_jpeg.argtypes = [_int, ctypes.c_char_p, *[_int] * 7, ctypes.c_void_p, _int]
_shrink_jpeg.restype = _int

_shrink_pixels = _library.ffvit_shrink_pixels
_shrink_pixels.argtypes = [ctypes.c_void_p, *[_int] * 4, ctypes.c_void_p]
_shrink_pixels.restype = _int


def libjpeg_turbo_version() -> str:
    """Say for which version of libjpeg-turbo the kernel was compiled."""
    return str(_libjpeg_version().decode())


def add_restart_markers(data: bytes, height: int, width: int, restart_interval: int) -> bytes:
    """Write a JPEG again with restart markers: sequential, with the standard Huffman tables.

    Coefficients, quantisation tables, sampling and colour space stay, so every decoder gives the
    same pixels. Comments and metadata are dropped.

    Args:
        data: A JPEG file of any kind that libjpeg-turbo decodes.
        height: That it must have, pixels.
        width: That it must have, pixels.
        restart_interval: MCUs between markers, 1 to 65,535.

    Raises:
        ValueError: The file is damaged, or of another size; says which.
    """
    return _written(
        lambda out, capacity: _add_restart_markers(
            data, len(data), height, width, restart_interval, out, capacity
        ),
        2 * len(data),
    )


def shrink_jpeg(
    data: bytes,
    size: tuple[int, int],
    new_size: tuple[int, int],
    quality: int,
    restart_interval: int,
    target: str | None = None,
) -> bytes:
    """Encode a YCbCr JPEG anew as 4:2:0, shrunk by exact area coverage, metadata dropped.

    The planes are shrunk as they are. Nothing is rounded to RGB in between and chroma is not
    enlarged first, so that the result is nearer to the source than by way of pixels.

    Args:
        data: A JPEG file of the kind that the kernel decodes itself: baseline, one scan, YCbCr.
        size: Its (height, width), pixels.
        new_size: (height, width) of the result; at most `size`.
        quality: 1 to 100.
        restart_interval: MCUs between markers, 0 (none) to 65,535.
        target: As for `ThreadPool`; the result is the same.

    Raises:
        ValueError: The file is damaged, of another size or another kind; says which.
    """
    index = target_index(target)
    return _written(
        lambda out, capacity: _shrink_jpeg(
            index, data, len(data), *size, *new_size, quality, restart_interval, out, capacity
        ),
        new_size[0] * new_size[1],
    )


def shrink_pixels(
    pixels: npt.NDArray[np.uint8], new_size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Shrink (height, width, 3) uint8 RGB pixels to (height, width) by exact area coverage.

    Raises:
        MemoryError: There is none left.
    """
    pixels = np.ascontiguousarray(pixels)
    out = np.empty((*new_size, 3), dtype=np.uint8)
    if _shrink_pixels(pixels.ctypes.data, *pixels.shape[:2], *new_size, out.ctypes.data) != 0:
        raise MemoryError
    return out


def _written(write: Callable[[int, int], int], capacity: int) -> bytes:
    """Let a function write into a buffer, and into larger ones until one suffices."""
    capacity += 4096
    while True:
        out = np.empty(capacity, dtype=np.uint8)
        result = write(out.ctypes.data, capacity)
        if result >= 0:
            return out[:result].tobytes()
        if result != _NO_ROOM:
            raise ValueError(STATUS_TEXT[result])
        capacity *= 2
