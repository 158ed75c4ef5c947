"""ffcv's file format and engine, fed by one process in order; a beton appears only when whole.

What becomes of a source's images is writer.py's business, of another beton's repack.py's.
"""

import dataclasses
import os
import shutil
import sys
import time
import types
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ffcv.fields import IntField, RGBImageField
from ffcv.memory_allocator import MemoryAllocator
from ffcv.writer import DatasetWriter, handle_sample
from tqdm import tqdm

from ffvit.data.beton import JPG, RAW, read_tables
from ffvit.data.images import StoredImage
from ffvit.data.manifest import Manifest, manifest_path, write_manifest
from ffvit.data.sources import Indices
from ffvit.errors import BetonError

ENGINE_VERSION = "1.0.2"
# An image must fit a page. Small pages keep small betons small; ffcv's default is 8 MiB.
SMALL_PAGE_BYTES = 2 << 20
PAGE_BYTES = 8 << 20
SMALL_BETON_BYTES = 256 << 20

_LINE_INTERVAL_S = 10.0

# Images, in the order in which they are stored; closed when no more are wanted.
Images = Generator[StoredImage, None, None]


@dataclasses.dataclass(frozen=True)
class WrittenBeton:
    """What a manifest says about the bytes of a beton.

    Attributes:
        num_bytes: Of the file.
        num_originals: Images that are their source's own file.
        tables_crc32: As in the manifest.
        checksums: (num_samples,) uint32, zlib.crc32 of each stored image.
    """

    num_bytes: int
    num_originals: int
    tables_crc32: int
    checksums: npt.NDArray[np.uint32]


def store_images(
    path: Path,
    page_bytes: int,
    images: Images,
    labels: Indices,
    name: str,
    describe: Callable[[WrittenBeton], Manifest | None],
) -> Manifest | None:
    """Write a beton and its manifest; they appear under their names when they are whole.

    An existing beton at `path` is replaced only by a whole one; a failed or interrupted write
    leaves nothing behind.

    Args:
        path: The beton to make; missing folders are made.
        page_bytes: Size of a page, a power of 2; no image may be larger.
        images: As they are stored; closed at the end.
        labels: (num_samples,) int64, in the same order.
        name: For the progress line.
        describe: Makes the manifest; it is called once the beton has been read back and found
            right. None: there will be no manifest.

    Returns:
        The manifest.

    Raises:
        BetonError: The file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    manifest_temporary = manifest_path(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = Engine(temporary, page_bytes)
        with closing(images), Progress(len(labels), name) as progress:
            written = engine.write(progress.count(images), labels)
        _flush_to_disk(temporary)
        _verify(temporary, written)
        manifest = describe(written)
        if manifest is not None:
            write_manifest(manifest, manifest_temporary)
        # In this order no beton is ever seen beside another one's manifest.
        manifest_path(path).unlink(missing_ok=True)
        temporary.replace(path)
        if manifest is not None:
            manifest_temporary.replace(manifest_path(path))
        _flush_to_disk(path.parent)
    except OSError as error:
        raise BetonError(
            f"{path}: cannot write it ({error.strerror or error}); check the disk's space and "
            "rights."
        ) from None
    finally:
        for leftover in (temporary, manifest_temporary):
            with suppress(OSError):  # mostly there is none
                leftover.unlink()
    return manifest


def check_room(path: Path, num_bytes: int, advice: str) -> str:
    """Check that the disk has room for a beton; returns what is free, for a message.

    Raises:
        BetonError: It has not; ends with the advice.
    """
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    free_bytes = shutil.disk_usage(existing).free
    if num_bytes > free_bytes:
        raise BetonError(
            f"{path}: needs about {num_bytes / 1e9:,.1f} GB, {existing} has "
            f"{free_bytes / 1e9:,.1f} GB free; {advice}."
        )
    return f"{free_bytes / 1e9:,.1f} GB free"


class Engine(DatasetWriter):  # type: ignore[misc]
    """ffcv's writer without its worker processes: one process fills the pages, in order."""

    def __init__(self, path: Path, page_bytes: int) -> None:
        installed = metadata.version("ffcv")
        if installed != ENGINE_VERSION:
            raise BetonError(
                f"expected ffcv {ENGINE_VERSION}, found {installed}, whose file format is not "
                f"known; install ffcv=={ENGINE_VERSION}."
            )
        image_field = RGBImageField()
        # On the instance: a subclass would be stored as a custom field, which stock ffcv cannot
        # read.
        image_field.encode = _store_image
        super().__init__(
            str(path), {"image": image_field, "label": IntField()}, page_bytes, num_workers=1
        )

    def prepare(self) -> None:
        """Write the header; keep the records in this process's memory."""
        super().prepare()
        self.metadata_sm: Any
        # A shared segment would outlive a killed process, and does not fit a container's /dev/shm.
        self.metadata_sm.close()
        self.metadata_sm.unlink()
        self.metadata_sm = types.SimpleNamespace(
            buf=bytearray(self.num_samples * self.metadata_type.itemsize)
        )

    def write(self, images: Iterable[StoredImage], labels: Indices) -> WrittenBeton:
        """Write the whole file."""
        self.num_samples = len(labels)
        self.prepare()
        records = np.frombuffer(self.metadata_sm.buf, dtype=self.metadata_type)
        allocator = MemoryAllocator(self.fname, self.data_region_start, self.page_size)
        checksums = np.zeros(self.num_samples, dtype=np.uint32)
        num_originals = 0
        try:
            with allocator:
                for position, (image, label) in enumerate(zip(images, labels, strict=True)):
                    self._check_size(image)
                    sample, names = (image, label), self.metadata_type.names
                    handle_sample(sample, position, names, records, allocator, self.fields)
                    checksums[position] = image.crc32
                    num_originals += image.is_original
        finally:
            allocator.fp.close()  # it stays open when its last page cannot be written
        # The engine does not look at how much of a page the system took.
        expected = allocator.offset + allocator.next_page_written.value * self.page_size
        if Path(self.fname).stat().st_size != expected:
            raise OSError("the system took only a part of the data; is the disk or a quota full?")
        self.finalize(allocator.allocations)
        return WrittenBeton(
            num_bytes=Path(self.fname).stat().st_size,
            num_originals=num_originals,
            tables_crc32=self._tables_crc32(),
            checksums=checksums,
        )

    def _tables_crc32(self) -> int:
        with Path(self.fname).open("rb") as file:
            checksum = zlib.crc32(file.read(self.data_region_start))
            file.seek(int(self.header["alloc_table_ptr"]))
            return zlib.crc32(file.read(), checksum)

    def _check_size(self, image: StoredImage) -> None:
        """Refuse an image that no page can hold."""
        if len(image.data) > self.page_size:
            raise BetonError(
                f"{self.fname}: expected images of up to {self.page_size >> 20} MB, one page, got "
                f"{image.width} x {image.height} pixels in {len(image.data) >> 20} MB; write "
                "it with a --max_side."
            )


def _store_image(destination: Any, image: StoredImage, malloc: Any) -> None:
    """Replace RGBImageField.encode: the image comes encoded."""
    destination["mode"] = JPG if image.is_jpeg else RAW
    destination["height"], destination["width"] = image.height, image.width
    destination["data_ptr"], storage = malloc(len(image.data))
    storage[:] = np.frombuffer(image.data, dtype=np.uint8)


class Progress:
    """A bar with images/s on a terminal, a line every few seconds elsewhere."""

    def __init__(self, total: int, name: str) -> None:
        self._total = total
        self._name = name
        self._bar = tqdm(
            total=total, desc=name, unit=" images", disable=not sys.stderr.isatty(), file=sys.stderr
        )

    def __enter__(self) -> "Progress":  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def count(self, images: Iterator[StoredImage]) -> Iterator[StoredImage]:
        """Pass the images on and count them."""
        begin = last = time.monotonic()
        for number, image in enumerate(images, start=1):
            yield image
            self._bar.update()
            now = time.monotonic()
            if self._bar.disable and now - last >= _LINE_INTERVAL_S:
                last = now
                rate = number / (now - begin)
                say(f"{self._name}: {number:,} of {self._total:,} images, {rate:,.0f} images/s")


def _flush_to_disk(path: Path) -> None:
    """Wait until a file's or folder's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _verify(path: Path, written: WrittenBeton) -> None:
    """Read a beton back: its tables are sound, and every image is what was encoded."""
    tables = read_tables(path)
    with path.open("rb") as file:
        for index, (pointer, size) in enumerate(zip(tables.pointers, tables.sizes, strict=True)):
            data = os.pread(file.fileno(), int(size), int(pointer))
            if zlib.crc32(data) != written.checksums[index]:
                raise BetonError(
                    f"{path}: sample {index} is not what was written; check memory and disk, and "
                    "write it again."
                )


def say(text: str) -> None:
    """Print a line to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
