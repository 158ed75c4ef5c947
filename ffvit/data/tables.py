"""A beton's header and tables, read and checked as a whole before any of it is believed.

Layout (ffcv 1.0.2, version 2): header, field descriptors, one record per sample, pages of image
data, and an allocation table of (sample, pointer, size) at the end. What is mapped or decoded later
lies where these say; so nothing here is taken on trust, and no amount of memory is asked for that
the file has not got.
"""

import dataclasses
import os
import stat
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from ffcv.fields import IntField, RGBImageField
from ffcv.types import (
    ALLOC_TABLE_TYPE,
    CURRENT_VERSION,
    TYPE_ID_HANDLER,
    FieldDescType,
    HeaderType,
    get_metadata_type,
)
from ffcv.writer import MAX_PAGE_SIZE, MIN_PAGE_SIZE

from ffvit.errors import BetonError

# Names and types of the fields, as ffcv-imagenet writes them, in this order.
FIELDS = {"image": RGBImageField, "label": IntField}
# How an image is stored.
JPG, RAW = 0, 1
# A damaged label must not become a model of 10^15 outputs. ImageNet-21k has 21,841 classes.
MAX_CLASSES = 1 << 24
ADVICE = "write it again with write_imagenet.py."

RECORD_TYPE = get_metadata_type([RGBImageField(), IntField()])
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


@dataclasses.dataclass(frozen=True)
class Tables:
    """A beton's records, checked; sizes[i] is the number of bytes of image i.

    Attributes:
        modes: (num_samples,), JPG or RAW.
        heights: (num_samples,), pixels.
        widths: (num_samples,), pixels.
        pointers: (num_samples,), where in the file each image begins.
        sizes: (num_samples,), bytes of each image.
        labels: (num_samples,).
        page_size: Bytes; a power of 2.
        data_begin: Byte at which the records end; all images lie from here on.
        data_end: Byte at which the allocation table begins; all images end up to here.
        crc32: Of all bytes outside of [data_begin, data_end).
    """

    modes: npt.NDArray[np.uint8]
    heights: npt.NDArray[np.uint16]
    widths: npt.NDArray[np.uint16]
    pointers: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint64]
    labels: npt.NDArray[np.int64]
    page_size: int
    data_begin: int
    data_end: int
    crc32: int


def open_regular_file(path: Path, expected: str) -> BinaryIO:
    """Open a file to read, unless it is a pipe or a device, which may never end.

    Raises:
        BetonError: It is no regular file.
        OSError: It is not there or cannot be opened.
    """
    mode = path.stat().st_mode
    for is_kind, kind in _KINDS:
        if is_kind(mode):
            raise BetonError(f"{path}: expected {expected}, got {kind}; name a regular file.")
    return path.open("rb")


def read_tables(path: Path) -> Tables:
    """Read and check everything in a beton but its images and its manifest.

    Raises:
        BetonError: Missing, not a regular file, empty, not a beton, another version, an aborted
            write, cut off, other fields, or records that cannot be true. Labels pass, whatever
            they are.
    """
    try:
        with open_regular_file(path, "a beton") as file:
            size = os.fstat(file.fileno()).st_size
            head, header = _read_header(file, path, size)
            return _read_tables(file, path, size, head, header)
    except FileNotFoundError:
        raise BetonError(
            f"{path}: expected a beton, found no file; make it with write_imagenet.py, or check "
            "the path."
        ) from None
    except OSError as error:
        raise BetonError(f"{path}: cannot read it ({error.strerror}).") from None


def _read_header(file: BinaryIO, path: Path, size: int) -> tuple[bytes, Any]:
    """Read and check header and field descriptors; return their bytes and the header."""
    if size == 0:
        raise BetonError(f"{path}: expected a beton, got an empty file; {ADVICE}")
    if size < HeaderType.itemsize:
        raise BetonError(f"{path}: expected a beton, got a file of {size} bytes; {ADVICE}")
    head = _read(file, path, HeaderType.itemsize)
    header = np.frombuffer(head, dtype=HeaderType)[0]
    version = int(header["version"])
    if version != CURRENT_VERSION:
        raise BetonError(
            f"{path}: expected a beton of version {CURRENT_VERSION}, got {version}: "
            f"not a beton, or written by another ffcv; {ADVICE}"
        )
    if header["alloc_table_ptr"] == 0:
        raise BetonError(f"{path}: its write was aborted (there is no table of images); {ADVICE}")
    num_fields = int(header["num_fields"])
    if size < HeaderType.itemsize + num_fields * FieldDescType.itemsize:
        raise BetonError(f"{path}: cut off within its header at {size} bytes; {ADVICE}")
    fields = _read(file, path, num_fields * FieldDescType.itemsize)
    _check_fields(path, np.frombuffer(fields, dtype=FieldDescType))
    page_size = int(header["page_size"])
    if not MIN_PAGE_SIZE <= page_size < MAX_PAGE_SIZE or page_size & (page_size - 1):
        raise BetonError(
            f"{path}: expected pages of a power of 2 from 2 MiB to 2 GiB, got {page_size:,} bytes; "
            f"it is damaged; {ADVICE}"
        )
    return head + fields, header


def _check_fields(path: Path, descriptors: npt.NDArray[Any]) -> None:
    """Expect the two fields."""
    found = [
        (field["name"].tobytes().split(b"\0")[0].decode("ascii", "replace"), field["type_id"])
        for field in descriptors
    ]
    fields = [(name, TYPE_ID_HANDLER.get(int(type_id))) for name, type_id in found]
    if fields == list(FIELDS.items()):
        return
    shown = [f"{name}: {kind.__name__ if kind else 'custom'}" for name, kind in fields[:5]]
    more = f" and {len(fields) - 5} more" if len(fields) > 5 else ""
    raise BetonError(
        f"{path}: expected the fields image: RGBImageField, label: IntField, got "
        f"{', '.join(shown) or 'none'}{more}; write it again with these."
    )


def _read_tables(file: BinaryIO, path: Path, size: int, head: bytes, header: Any) -> Tables:
    """Read sample records and allocation table, after checking that they lie in the file."""
    num_samples, data_end = int(header["num_samples"]), int(header["alloc_table_ptr"])
    if num_samples == 0:
        raise BetonError(f"{path}: a beton without samples; {ADVICE}")
    records_bytes = num_samples * RECORD_TYPE.itemsize
    table_bytes = num_samples * ALLOC_TABLE_TYPE.itemsize
    data_begin = len(head) + records_bytes
    if data_begin > data_end or data_end + table_bytes != size:
        raise BetonError(
            f"{path}: its header promises {num_samples} samples and {data_end + table_bytes} "
            f"bytes, the file has {size}: cut off, damaged, or not written to its end; {ADVICE}"
        )
    # A sparse file may well be larger than all memory.
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if records_bytes + table_bytes > memory // 2:
        raise BetonError(
            f"{path}: its tables of {num_samples} samples take {records_bytes + table_bytes:,} "
            f"bytes, more than half of this machine's memory; {ADVICE}"
        )
    records = _read(file, path, records_bytes)
    file.seek(data_end)
    table = _read(file, path, table_bytes)
    images, labels, sizes = _check_records(
        path,
        np.frombuffer(records, dtype=RECORD_TYPE),
        np.frombuffer(table, dtype=ALLOC_TABLE_TYPE),
        data_begin,
        data_end,
    )
    return Tables(
        modes=images["mode"],
        heights=images["height"],
        widths=images["width"],
        pointers=images["data_ptr"],
        sizes=sizes,
        labels=labels,
        page_size=int(header["page_size"]),
        data_begin=data_begin,
        data_end=data_end,
        crc32=zlib.crc32(table, zlib.crc32(records, zlib.crc32(head))),
    )


def _check_records(
    path: Path,
    records: npt.NDArray[Any],
    table: npt.NDArray[Any],
    data_begin: int,
    data_end: int,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Match records and table, and check every pointer and size; images, labels and sizes."""
    images = records["f0"]
    table = table[np.argsort(table["ptr"], kind="stable")]
    pointers, sizes = table["ptr"], table["size"]
    if pointers[0] < data_begin:
        raise BetonError(f"{path}: an image lies within the header; it is damaged; {ADVICE}")
    # In this order: no sum can overflow once no size exceeds the file's.
    whole = (
        bool((sizes > 0).all() and (sizes <= data_end).all() and (pointers <= data_end).all())
        and bool((pointers[:-1] + sizes[:-1] <= pointers[1:]).all())
        and int(pointers[-1]) + int(sizes[-1]) <= data_end
    )
    places = np.minimum(np.searchsorted(pointers, images["data_ptr"]), len(pointers) - 1)
    matched = (pointers[places] == images["data_ptr"]) & (
        table["sample_id"][places] == np.arange(len(images))
    )
    if not whole or not matched.all():
        raise BetonError(f"{path}: its tables point at the wrong bytes; it is damaged; {ADVICE}")
    sizes = sizes[places]
    num_pixels = images["height"].astype(np.uint64) * images["width"]
    is_raw = images["mode"] == RAW
    sound = (num_pixels > 0) & (images["mode"] <= RAW) & (~is_raw | (sizes == 3 * num_pixels))
    if not sound.all():
        sample = int(np.argmin(sound))
        image = images[sample]
        raise BetonError(
            f"{path}: sample {sample} claims mode {image['mode']} and {image['width']} x "
            f"{image['height']} pixels in {sizes[sample]} bytes; it is damaged; {ADVICE}"
        )
    return images, records["f1"], sizes


def _read(file: BinaryIO, path: Path, num_bytes: int) -> bytes:
    """Read so many bytes, which were there when the file's size was asked for."""
    data = file.read(num_bytes)
    if len(data) != num_bytes:
        raise BetonError(f"{path}: became shorter while it was read; is it being written?")
    return data
