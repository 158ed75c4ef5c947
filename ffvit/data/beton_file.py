"""A beton while it is written: ffcv's file format (docs/data_format.md), without ffcv's processes.

Images come one after the other and go into pages; header and tables are written last, so a file
whose write ended early has none.
"""

import contextlib
import dataclasses
import os
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from ffcv.types import (
    ALLOC_TABLE_TYPE,
    CURRENT_VERSION,
    TYPE_ID_HANDLER,
    FieldDescType,
    HeaderType,
)

from ffvit.data.images import StoredImage
from ffvit.data.sources import Indices
from ffvit.data.tables import FIELDS, JPG, RAW, RECORD_TYPE
from ffvit.errors import BetonError

_FFCV_VERSION = "1.0.2"
# The header's field is 32 bits wide.
_LARGEST_PAGE_BYTES = 1 << 31
_BUFFER_BYTES = 1 << 18


class ImageRecord(NamedTuple):
    """What is noted of a stored image besides its bytes."""

    is_jpeg: bool
    height: int
    width: int
    num_bytes: int
    crc32: int
    is_original: bool


@dataclasses.dataclass(frozen=True)
class WrittenBeton:
    """What a manifest says about the bytes of a beton.

    Attributes:
        num_bytes: Of the file.
        head_bytes: Of header, field descriptors and records.
        table_at: Where the allocation table begins.
        num_originals: Images that are their source's own file.
        labels: (num_samples,) int64.
        tables_crc32: As in the manifest.
        checksums: (num_samples,) uint32, zlib.crc32 of each stored image.
    """

    num_bytes: int
    head_bytes: int
    table_at: int
    num_originals: int
    labels: Indices
    tables_crc32: int
    checksums: npt.NDArray[np.uint32]


class BetonFile:
    """An unfinished beton.

    No image crosses a page. A page that turns out too small for an image is doubled: whoever does
    not cross the borders of small pages crosses none of larger ones. Page by page is how stock ffcv
    reads a beton that it does not map; to all others the size of a page means nothing.

    Args:
        path: The file; what it holds stays until `begin`.
        capacity: Most images that will come; there is room for that many records.
        page_bytes: Size of a page to begin with, a power of 2.

    Raises:
        BetonError: Another ffcv is installed.
        OSError: From every method: the file cannot be written.
    """

    def __init__(self, path: Path, capacity: int, page_bytes: int) -> None:
        installed = metadata.version("ffcv")
        if installed != _FFCV_VERSION:
            raise BetonError(
                f"expected ffcv {_FFCV_VERSION}, found {installed}, whose file format is not "
                f"known; install ffcv=={_FFCV_VERSION}."
            )
        self._page_bytes = page_bytes
        self._records = np.zeros(capacity, dtype=RECORD_TYPE)
        self._table = np.zeros(capacity, dtype=ALLOC_TABLE_TYPE)
        self._checksums = np.zeros(capacity, dtype=np.uint32)
        self._num_samples = 0
        self._num_originals = 0
        self._descriptors = _field_descriptors()
        self._end = HeaderType.itemsize + len(self._descriptors) + self._records.nbytes
        # Not truncated: it may hold what an earlier process wrote.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, 0o666), "wb", buffering=_BUFFER_BYTES)

    def take_over(self, record: ImageRecord, label: int) -> bool:
        """Count in an image that an earlier process wrote; returns whether its bytes are there."""
        pointer = self._place(record.num_bytes)[0]
        data = os.pread(self._file.fileno(), record.num_bytes, pointer)
        is_there = len(data) == record.num_bytes and zlib.crc32(data) == record.crc32
        if is_there:
            self._note(record, label)
        return is_there

    def begin(self) -> None:
        """Cut off what was not taken over; to be called before the first `append`."""
        self._file.truncate(self._end if self._num_samples else 0)
        self._file.seek(self._end)

    def append(self, image: StoredImage, label: int) -> ImageRecord:
        """Store an image.

        Raises:
            BetonError: It is larger than any page can be.
        """
        data = memoryview(image.data)
        if len(data) > _LARGEST_PAGE_BYTES:
            raise BetonError(
                f"expected images of up to {_LARGEST_PAGE_BYTES >> 30} GB, got one of "
                f"{image.width} x {image.height} pixels in {len(data):,} bytes; set --max_side."
            )
        record = ImageRecord(
            image.is_jpeg, image.height, image.width, len(data), image.crc32, image.is_original
        )
        pointer = self._place(len(data))[0]
        if pointer != self._end:
            self._file.seek(pointer)  # what is left of the page reads as zeros
        self._file.write(data)
        self._note(record, label)
        return record

    def _place(self, num_bytes: int) -> tuple[int, int]:
        """Return where an image goes, and the size of a page that holds it."""
        page_bytes = self._page_bytes
        while num_bytes > page_bytes:
            page_bytes *= 2
        room = -self._end % page_bytes
        return self._end if num_bytes <= room else self._end + room, page_bytes

    def _note(self, record: ImageRecord, label: int) -> None:
        pointer, self._page_bytes = self._place(record.num_bytes)
        index = self._num_samples
        mode = JPG if record.is_jpeg else RAW
        self._records[index] = ((mode, record.width, record.height, pointer), label)
        self._table[index] = (index, pointer, record.num_bytes)
        self._checksums[index] = record.crc32
        self._end = pointer + record.num_bytes
        self._num_samples += 1
        self._num_originals += record.is_original

    @property
    def num_samples(self) -> int:
        """Images stored so far."""
        return self._num_samples

    def flush(self) -> None:
        """Hand everything to the system, from where other processes can read it."""
        self._file.flush()

    def finish(self) -> WrittenBeton:
        """Write header and tables, and wait until the whole file is on the disk."""
        header = np.zeros(1, dtype=HeaderType)
        header["version"], header["num_fields"] = CURRENT_VERSION, len(FIELDS)
        header["page_size"], header["num_samples"] = self._page_bytes, self._num_samples
        header["alloc_table_ptr"] = self._end
        records = self._records[: self._num_samples]
        head = header.tobytes() + self._descriptors + records.tobytes()
        table = self._table[: self._num_samples].tobytes()
        self._file.seek(self._end)
        self._file.write(table)
        self._file.seek(0)
        self._file.write(head)
        self._file.flush()
        os.fsync(self._file.fileno())
        return WrittenBeton(
            num_bytes=self._end + len(table),
            head_bytes=len(head),
            table_at=self._end,
            num_originals=self._num_originals,
            labels=np.ascontiguousarray(records["f1"]),
            tables_crc32=zlib.crc32(table, zlib.crc32(head)),
            checksums=self._checksums[: self._num_samples],
        )

    def close(self) -> None:
        """Close the file, finished or not."""
        with contextlib.suppress(OSError):  # the write has failed before, and was reported
            self._file.close()


def _field_descriptors() -> bytes:
    """Name and type of each field; the arguments of these types are all 0."""
    type_ids: dict[Any, int] = {kind: number for number, kind in TYPE_ID_HANDLER.items()}
    descriptors = np.zeros(len(FIELDS), dtype=FieldDescType)
    for descriptor, (name, kind) in zip(descriptors, FIELDS.items(), strict=True):
        descriptor["type_id"] = type_ids[kind]
        descriptor["name"][: len(name)] = np.frombuffer(name.encode("ascii"), dtype=np.uint8)
    return bytes(descriptors.tobytes())
