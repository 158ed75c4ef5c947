"""Sources -> beton: options, order, projected size and manifest; the same bytes each time.

Images are encoded by supervised workers (encoding.py), and stored by one process in the order of
the samples (engine.py), so the same source and options give the same bytes for any number of
workers, and for any number of interruptions.
"""

import dataclasses
import platform
import sys
import zlib
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import PIL.features

from ffvit.cpus import available_cpus
from ffvit.data.beton import open_beton
from ffvit.data.encoding import encode_in_order
from ffvit.data.engine import WriteJob, check_room, page_bytes, store_images
from ffvit.data.images import CHROMA, LARGEST_SIDE_PX, SkippedImage
from ffvit.data.manifest import FORMAT_VERSION, Manifest, load_manifest
from ffvit.data.progress import say
from ffvit.data.sources import Indices, Source, take_evenly
from ffvit.errors import BetonError, ConfigError, SourceError
from ffvit.jpeg.transcode import libjpeg_turbo_version
from ffvit.options import WriteSection

MODES = ("jpg", "raw", "passthrough")
ON_ERROR = ("stop", "skip")

# Images encoded beforehand to estimate the size of the whole.
_ESTIMATE_SAMPLES = 50
# Options that a resumed write may change. Where the images are is told by their names.
_FREE_OPTIONS = ("data_dir", "out_dir", "split", "num_workers", "max_pixels", "on_error", "resume")
# Programs that do not change what is stored.
_FREE_VERSIONS = ("numpy", "python")


def write_beton(
    source: Source,
    path: Path,
    section: WriteSection,
    split: str = "",
    start_method: str = "fork",
) -> Manifest:
    """Write the images of one split into a beton, and its manifest beside it.

    An existing beton at `path` is replaced only by a whole one. A failed or interrupted write
    leaves nothing behind; with `section.resume` it leaves what the next one goes on with, and
    nothing is written where all is done.

    Args:
        source: The images.
        path: The beton to make; missing folders are made.
        section: How to encode, order and choose.
        split: Name of the split, for the manifest.
        start_method: Of the worker processes: fork, spawn or forkserver.

    Returns:
        The manifest.

    Raises:
        ConfigError: An option with an impossible value.
        SourceError: An image that cannot be read or encoded and may not be skipped, or whose worker
            died.
        BetonError: The file cannot be written, the disk is too small, or an interrupted write of
            it was of something else.
    """
    check_options(section)
    if section.subset:
        source = take_evenly(source, section.subset, section.seed)
    order = storage_order(source, section)
    name = path.stem
    manifest = _draft_manifest(source, order, section, split)
    if section.resume and (finished := _find_finished(path, manifest)):
        say(f"{name}: {path} holds these images already, encoded with these options")
        return finished
    num_workers = section.num_workers or available_cpus()
    job = WriteJob(
        path=path,
        name=name,
        labels=source.labels[order],
        page_bytes=page_bytes(_announce(source, order, path, section, name, start_method)),
        manifest=manifest,
        identity=_identity(manifest),
        resume=section.resume,
    )
    written = store_images(
        job,
        lambda first: encode_in_order(source, order[first:], section, num_workers, start_method),
    )
    assert written is not None
    return written


def take_share(
    source: Source, section: WriteSection, rank: int, world_size: int
) -> tuple[Source, WriteSection]:
    """Take one process's share of a split that several processes write, each as a shard.

    Together the shares are what one process would have written; each is a contiguous part of its
    order, so shuffled images are spread over all shards.

    Args:
        source: The images, the same in all processes.
        section: The options, the same in all processes.
        rank: Of this process.
        world_size: Number of processes.

    Returns:
        The share, and the options to write it with.

    Raises:
        SourceError: There are more processes than images.
    """
    if section.subset:
        source = take_evenly(source, section.subset, section.seed)
    if len(source) < world_size:
        raise SourceError(
            f"{source.description}: expected an image or more for each of {world_size} processes, "
            f"got {len(source)}; use fewer."
        )
    begin, end = (len(source) * place // world_size for place in (rank, rank + 1))
    share = source.select(np.sort(storage_order(source, section)[begin:end]))
    return share, dataclasses.replace(section, subset=0)


def check_options(section: WriteSection) -> None:
    """Check the options that say how to encode, order and choose.

    Raises:
        ConfigError: A value out of range; names the option.
    """
    if section.mode not in MODES:
        raise ConfigError(f"--mode={section.mode}: expected {', '.join(MODES)}.")
    if section.chroma not in CHROMA:
        raise ConfigError(f"--chroma={section.chroma}: expected {', '.join(CHROMA)}.")
    if section.on_error not in ON_ERROR:
        raise ConfigError(f"--on_error={section.on_error}: expected {', '.join(ON_ERROR)}.")
    for name, value, lowest, highest in (
        ("jpeg_quality", section.jpeg_quality, 1, 100),
        ("max_side", section.max_side, 0, LARGEST_SIDE_PX),
        ("short_side", section.short_side, 0, LARGEST_SIDE_PX),
        ("restart_interval", section.restart_interval, 0, 65_535),
        ("max_pixels", section.max_pixels, 1, sys.maxsize),
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
    source: Source, order: Indices, path: Path, section: WriteSection, name: str, start_method: str
) -> int:
    """Encode a few images, print the projected size, and refuse what the disk has no room for."""
    picks = order[np.linspace(0, len(order) - 1, min(len(order), _ESTIMATE_SAMPLES)).astype(int)]
    num_workers = section.num_workers or available_cpus()
    sizes = []
    with closing(encode_in_order(source, picks, section, num_workers, start_method)) as images:
        for image in images:
            if isinstance(image, SkippedImage):
                skipped = image
            else:
                sizes.append(len(image.data))
    if not sizes:
        raise SourceError(
            f"{skipped.name}: {skipped.reason} And so all of the {len(picks)} images looked at "
            "first; is this the right source?"
        )
    projected_bytes = int(np.mean(sizes) * len(order))
    free = check_room(path, projected_bytes, "free some, or lower --max_side or --jpeg_quality")
    say(
        f"{name}: {len(order):,} images of {len(source.label_names)} classes, about "
        f"{projected_bytes / 1e6:,.1f} MB to {path} ({free})"
    )
    return projected_bytes


def _draft_manifest(source: Source, order: Indices, section: WriteSection, split: str) -> Manifest:
    """Make the manifest as far as it is known beforehand."""
    return Manifest(
        format_version=FORMAT_VERSION,
        split=split,
        source=source.description,
        source_crc32=_source_crc32(source, order),
        options=dataclasses.asdict(section),
        num_samples=0,
        num_originals=0,
        class_counts=(),
        label_names=source.label_names,
        skipped=(),
        versions={
            "ffvit": metadata.version("ffvit"),
            "ffcv": metadata.version("ffcv"),
            "pillow": metadata.version("pillow"),
            "libjpeg_turbo": libjpeg_turbo_version(),
            "pillow_libjpeg_turbo": PIL.features.version("libjpeg_turbo") or "none",
            "numpy": metadata.version("numpy"),
            "python": platform.python_version(),
        },
        beton_bytes=0,
        tables_crc32=0,
        sample_crc32="",
    )


def _source_crc32(source: Source, order: Indices) -> int:
    checksum = zlib.crc32(source.labels[order].astype("<i8").tobytes())
    for index in order.tolist():
        checksum = zlib.crc32(source.name(index).encode("utf-8", "surrogateescape"), checksum)
    return checksum


def _identity(manifest: Manifest) -> dict[str, Any]:
    """Say what a beton's bytes depend on, as far as it can be told without reading all images."""
    options, versions = dict(manifest.options), dict(manifest.versions)
    for name in _FREE_OPTIONS:
        options.pop(name, None)
    for name in _FREE_VERSIONS:
        versions.pop(name, None)
    return {
        "options": options,
        "source": manifest.source,
        "source_crc32": manifest.source_crc32,
        "versions": versions,
    }


def _find_finished(path: Path, manifest: Manifest) -> Manifest | None:
    """Return the manifest of a beton that need not be written again, if it is there."""
    try:
        open_beton(path)
        finished = load_manifest(path)
    except BetonError:
        return None
    is_same = finished is not None and _identity(finished) == _identity(manifest)
    return finished if is_same else None
