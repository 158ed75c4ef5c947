"""Sources -> beton: ffcv's file format and engine, with supervised workers and an atomic end.

The file appears under its name only when it is whole. Pages are filled by one process in the order
of the samples, so the same source and options give the same bytes for any number of workers.
"""

import dataclasses
import hashlib
import os
import platform
import shutil
import sys
import time
import types
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import PIL.features
from ffcv.fields import IntField, RGBImageField
from ffcv.memory_allocator import MemoryAllocator
from ffcv.writer import DatasetWriter, handle_sample
from tqdm import tqdm

from ffvit.config import WriteSection
from ffvit.data.beton import open_beton
from ffvit.data.encoding import available_cpus, encode_in_order
from ffvit.data.images import CHROMA, LARGEST_SIDE_PX, StoredImage
from ffvit.data.manifest import FORMAT_VERSION, Manifest, manifest_path, write_manifest
from ffvit.data.sources import Indices, Source, take_evenly
from ffvit.errors import BetonError, ConfigError

MODES = ("jpg", "raw", "passthrough")
ENGINE_VERSION = "1.0.2"

_JPG, _RAW = 0, 1
# Images encoded beforehand to estimate the size of the whole.
_ESTIMATE_SAMPLES = 50
# An image must fit a page. Small pages keep small betons small; ffcv's default is 8 MiB.
_SMALL_PAGE_BYTES = 2 << 20
_PAGE_BYTES = 8 << 20
_LARGE_PAGE_BYTES = 128 << 20
_SMALL_BETON_BYTES = 256 << 20
_LINE_INTERVAL_S = 10.0
_HASH_CHUNK_BYTES = 1 << 22


def write_beton(
    source: Source,
    path: Path,
    section: WriteSection,
    split: str = "",
    start_method: str = "fork",
) -> Manifest:
    """Write the images of one split into a beton, and its manifest beside it.

    An existing beton at `path` is replaced only by a whole one; a failed or interrupted write
    leaves nothing behind.

    Args:
        source: The images.
        path: The beton to make; missing folders are made.
        section: How to encode, order and choose.
        split: Name of the split, for messages and the manifest.
        start_method: Of the worker processes: fork, spawn or forkserver.

    Returns:
        The manifest.

    Raises:
        ConfigError: An option with an impossible value.
        SourceError: An image that cannot be read or encoded, or whose worker died.
        BetonError: The file cannot be written, or the disk is too small.
    """
    check_options(section)
    if section.subset:
        source = take_evenly(source, section.subset, section.seed)
    order = storage_order(source, section)
    num_workers = section.num_workers or available_cpus()
    projected_bytes = _announce(source, order, path, section, split, num_workers, start_method)
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    manifest_temporary = manifest_path(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = _Engine(temporary, _page_bytes(projected_bytes, section))
        images = encode_in_order(source, order, section, num_workers, start_method)
        with closing(images), _Progress(len(order), split) as progress:
            num_originals = engine.write(progress.count(images), source.labels[order])
        _flush_to_disk(temporary)
        open_beton(temporary)
        manifest = _describe(temporary, source, section, split, num_originals)
        write_manifest(manifest, manifest_temporary)
        # In this order no beton is ever seen beside another one's manifest.
        manifest_path(path).unlink(missing_ok=True)
        temporary.replace(path)
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


def check_options(section: WriteSection) -> None:
    """Check the options that say how to encode, order and choose.

    Raises:
        ConfigError: A value out of range; names the option.
    """
    if section.mode not in MODES:
        raise ConfigError(f"--mode={section.mode}: expected {', '.join(MODES)}.")
    if section.chroma not in CHROMA:
        raise ConfigError(f"--chroma={section.chroma}: expected {', '.join(CHROMA)}.")
    for name, value, lowest, highest in (
        ("jpeg_quality", section.jpeg_quality, 1, 100),
        ("max_side", section.max_side, 0, LARGEST_SIDE_PX),
        ("short_side", section.short_side, 0, LARGEST_SIDE_PX),
        ("restart_interval", section.restart_interval, 0, 65_535),
        ("subset", section.subset, 0, sys.maxsize),
        ("seed", section.seed, 0, sys.maxsize),
        ("num_workers", section.num_workers, 0, 1024),
    ):
        if not lowest <= value <= highest:
            raise ConfigError(f"--{name}={value}: expected {lowest} to {highest}.")


def storage_order(source: Source, section: WriteSection) -> Indices:
    """Choose the order in which the images are stored.

    Images whose source can only be read in blocks are shuffled block by block, and within their
    block.

    Returns:
        (num_samples,) int64, each index of the source once.
    """
    if not section.shuffle:
        return np.arange(len(source), dtype=np.int64)
    # The second number keeps this permutation apart from the subset's and the held-out split's.
    order = np.random.default_rng([section.seed, 1]).permutation(len(source))
    if source.blocks is not None:
        block_ids, block_of = np.unique(source.blocks, return_inverse=True)
        ranks = np.random.default_rng([section.seed, 2]).permutation(len(block_ids))
        order = order[np.argsort(ranks[block_of[order]], kind="stable")]
    return order.astype(np.int64)


class _Engine(DatasetWriter):  # type: ignore[misc]
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

    def write(self, images: Iterable[StoredImage], labels: Indices) -> int:
        """Write the whole file; returns how many images are their source's own file."""
        self.num_samples = len(labels)
        self.prepare()
        records = np.frombuffer(self.metadata_sm.buf, dtype=self.metadata_type)
        allocator = MemoryAllocator(self.fname, self.data_region_start, self.page_size)
        num_originals = 0
        try:
            with allocator:
                for position, (image, label) in enumerate(zip(images, labels, strict=True)):
                    self._check_size(image)
                    sample, names = (image, label), self.metadata_type.names
                    handle_sample(sample, position, names, records, allocator, self.fields)
                    num_originals += image.is_original
        finally:
            allocator.fp.close()  # it stays open when its last page cannot be written
        # The engine does not look at how much of a page the system took.
        expected = allocator.offset + allocator.next_page_written.value * self.page_size
        if Path(self.fname).stat().st_size != expected:
            raise OSError("the system took only a part of the data; is the disk or a quota full?")
        self.finalize(allocator.allocations)
        return num_originals

    def _check_size(self, image: StoredImage) -> None:
        """Refuse an image that no page can hold."""
        if len(image.data) > self.page_size:
            raise BetonError(
                f"{self.fname}: expected images of up to {self.page_size >> 20} MB, one page, got "
                f"{image.width} x {image.height} pixels in {len(image.data) >> 20} MB; set "
                "--max_side."
            )


def _store_image(destination: Any, image: StoredImage, malloc: Any) -> None:
    """Replace RGBImageField.encode: the image comes encoded."""
    destination["mode"] = _JPG if image.is_jpeg else _RAW
    destination["height"], destination["width"] = image.height, image.width
    destination["data_ptr"], storage = malloc(len(image.data))
    storage[:] = np.frombuffer(image.data, dtype=np.uint8)


class _Progress:
    """A bar with images/s on a terminal, a line every few seconds elsewhere."""

    def __init__(self, total: int, name: str) -> None:
        self._total = total
        self._name = name
        self._bar = tqdm(
            total=total, desc=name, unit=" images", disable=not sys.stderr.isatty(), file=sys.stderr
        )

    def __enter__(self) -> "_Progress":  # noqa: PYI034 - Self needs Python 3.11
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
                _say(f"{self._name}: {number:,} of {self._total:,} images, {rate:,.0f} images/s")


def _announce(
    source: Source,
    order: Indices,
    path: Path,
    section: WriteSection,
    split: str,
    num_workers: int,
    start_method: str,
) -> int:
    """Encode a few images, print the projected size, and refuse what the disk has no room for."""
    picks = order[np.linspace(0, len(order) - 1, min(len(order), _ESTIMATE_SAMPLES)).astype(int)]
    with closing(encode_in_order(source, picks, section, num_workers, start_method)) as images:
        sizes = [len(image.data) for image in images]
    projected_bytes = int(np.mean(sizes) * len(order))
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    free_bytes = shutil.disk_usage(existing).free
    _say(
        f"{split or path.stem}: {len(order):,} images of {len(source.label_names)} classes, about "
        f"{projected_bytes / 1e6:,.1f} MB to {path} ({free_bytes / 1e9:,.1f} GB free)"
    )
    if projected_bytes > free_bytes:
        raise BetonError(
            f"{path}: needs about {projected_bytes / 1e9:,.1f} GB, {existing} has "
            f"{free_bytes / 1e9:,.1f} GB free; free some, or lower --max_side or --jpeg_quality."
        )
    return projected_bytes


def _page_bytes(projected_bytes: int, section: WriteSection) -> int:
    """Choose a page size that holds the largest image, and many of the usual ones."""
    largest = 3 * (section.max_side or LARGEST_SIDE_PX) ** 2
    if largest > _PAGE_BYTES:
        return _LARGE_PAGE_BYTES
    is_small = projected_bytes < _SMALL_BETON_BYTES and largest <= _SMALL_PAGE_BYTES
    return _SMALL_PAGE_BYTES if is_small and section.mode != "raw" else _PAGE_BYTES


def _flush_to_disk(path: Path) -> None:
    """Wait until a file's or folder's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _describe(
    beton: Path, source: Source, section: WriteSection, split: str, num_originals: int
) -> Manifest:
    num_classes = len(source.label_names)
    return Manifest(
        format_version=FORMAT_VERSION,
        split=split,
        source=source.description,
        options=dataclasses.asdict(section),
        num_samples=len(source),
        num_originals=num_originals,
        class_counts=tuple(np.bincount(source.labels, minlength=num_classes).tolist()),
        label_names=source.label_names,
        versions={
            "ffvit": metadata.version("ffvit"),
            "ffcv": metadata.version("ffcv"),
            "pillow": metadata.version("pillow"),
            "libjpeg_turbo": PIL.features.version("libjpeg_turbo") or "none",
            "numpy": metadata.version("numpy"),
            "python": platform.python_version(),
        },
        beton_bytes=beton.stat().st_size,
        sha256=_sha256(beton),
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
