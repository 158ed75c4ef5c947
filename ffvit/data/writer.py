"""Sources -> beton: options, order, projected size and manifest; the same bytes each time.

Images are encoded by supervised workers (encoding.py), and stored by one process in the order of
the samples (engine.py), so the same source and options give the same bytes for any number of
workers.
"""

import dataclasses
import platform
import sys
from contextlib import closing
from importlib import metadata
from pathlib import Path

import numpy as np
import PIL.features

from ffvit.data.encoding import available_cpus, encode_in_order
from ffvit.data.engine import (
    PAGE_BYTES,
    SMALL_BETON_BYTES,
    SMALL_PAGE_BYTES,
    WrittenBeton,
    check_room,
    say,
    store_images,
)
from ffvit.data.images import CHROMA, LARGEST_SIDE_PX
from ffvit.data.manifest import FORMAT_VERSION, Manifest, encode_checksums
from ffvit.data.sources import Indices, Source, take_evenly
from ffvit.errors import ConfigError
from ffvit.options import WriteSection

MODES = ("jpg", "raw", "passthrough")

# Images encoded beforehand to estimate the size of the whole.
_ESTIMATE_SAMPLES = 50
# For images without a limit to their size.
_LARGE_PAGE_BYTES = 128 << 20


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
    images = encode_in_order(source, order, section, num_workers, start_method)
    manifest = store_images(
        path,
        _page_bytes(projected_bytes, section),
        images,
        source.labels[order],
        split,
        lambda written: _describe(written, source, section, split),
    )
    assert manifest is not None
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
    free = check_room(path, projected_bytes, "free some, or lower --max_side or --jpeg_quality")
    say(
        f"{split or path.stem}: {len(order):,} images of {len(source.label_names)} classes, about "
        f"{projected_bytes / 1e6:,.1f} MB to {path} ({free})"
    )
    return projected_bytes


def _page_bytes(projected_bytes: int, section: WriteSection) -> int:
    """Choose a page size that holds the largest image, and many of the usual ones."""
    largest = 3 * (section.max_side or LARGEST_SIDE_PX) ** 2
    if largest > PAGE_BYTES:
        return _LARGE_PAGE_BYTES
    is_small = projected_bytes < SMALL_BETON_BYTES and largest <= SMALL_PAGE_BYTES
    return SMALL_PAGE_BYTES if is_small and section.mode != "raw" else PAGE_BYTES


def _describe(written: WrittenBeton, source: Source, section: WriteSection, split: str) -> Manifest:
    num_classes = len(source.label_names)
    return Manifest(
        format_version=FORMAT_VERSION,
        split=split,
        source=source.description,
        options=dataclasses.asdict(section),
        num_samples=len(source),
        num_originals=written.num_originals,
        class_counts=tuple(np.bincount(source.labels, minlength=num_classes).tolist()),
        label_names=source.label_names,
        skipped=(),
        versions={
            "ffvit": metadata.version("ffvit"),
            "ffcv": metadata.version("ffcv"),
            "pillow": metadata.version("pillow"),
            "libjpeg_turbo": PIL.features.version("libjpeg_turbo") or "none",
            "numpy": metadata.version("numpy"),
            "python": platform.python_version(),
        },
        beton_bytes=written.num_bytes,
        tables_crc32=written.tables_crc32,
        sample_crc32=encode_checksums(written.checksums),
    )
