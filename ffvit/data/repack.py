"""Beton -> beton with restart markers in its JPEGs; samples, their order and pixels stay.

For betons that stock ffcv wrote, or whose `restart_interval` was 0: a decoder that wants a crop can
jump to it. No image is encoded anew (ffvit/jpeg/transcode.py).
"""

import collections
import dataclasses
import os
import zlib
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ffvit.cpus import available_cpus
from ffvit.data.beton import JPG, Tables, open_beton, read_tables
from ffvit.data.engine import WriteJob, check_room, page_bytes, store_images
from ffvit.data.images import StoredImage, stored_image
from ffvit.data.manifest import Manifest, load_manifest
from ffvit.data.progress import say
from ffvit.errors import BetonError, ConfigError
from ffvit.jpeg.transcode import add_restart_markers, libjpeg_turbo_version

# Markers cost 1.1 % of a photograph at quality 90; standard Huffman tables, instead of optimised
# ones, 3.6 %.
_USUAL_GROWTH = 1.1
# Images under way per thread: a slow one must not idle the others.
_RUN_AHEAD = 16


def repack_beton(old: Path, new: Path, restart_interval: int = 4) -> None:
    """Write a beton again with restart markers in every JPEG, and its manifest if it has one.

    An existing beton at `new` is replaced only by a whole one; a failed or interrupted run leaves
    nothing behind. Raw samples are copied.

    Args:
        old: The beton to read.
        new: The beton to make, another file; missing folders are made.
        restart_interval: MCUs between markers, 1 to 65,535.

    Raises:
        ConfigError: An impossible interval.
        BetonError: `old` is not a whole beton, is `new`, or holds a JPEG that cannot be decoded
            (names the sample); or `new` cannot be written.
    """
    if not 1 <= restart_interval <= 65_535:
        raise ConfigError(f"--restart_interval={restart_interval}: expected 1 to 65535.")
    open_beton(old)
    if new.exists() and old.samefile(new):
        raise BetonError(f"{new}: expected another file than the one to read; name a new one.")
    tables, manifest = read_tables(old), load_manifest(old)
    old_bytes = int(tables.sizes.sum())
    free = check_room(new, int(old_bytes * _USUAL_GROWTH), "free some, or name another disk")
    num_jpegs = int(np.count_nonzero(tables.modes == JPG))
    say(
        f"{old}: {len(tables.labels):,} images, {num_jpegs:,} of them JPEGs, of "
        f"{old_bytes / 1e6:,.1f} MB, to {new} ({free})"
    )

    draft = manifest and _draft_manifest(manifest, restart_interval)
    job = WriteJob(new, new.stem, tables.labels, page_bytes(old_bytes), draft, identity={})
    checksums = None if manifest is None else manifest.checksums()
    store_images(job, lambda _: _repacked_images(old, tables, checksums, restart_interval))
    new_bytes = int(read_tables(new).sizes.sum())
    say(
        f"{new}: images of {new_bytes / 1e6:,.1f} MB ({new_bytes / old_bytes - 1:+.1%}), a restart "
        f"marker every {restart_interval} MCUs"
    )


def _repacked_images(
    old: Path,
    tables: Tables,
    checksums: npt.NDArray[np.uint32] | None,
    restart_interval: int,
) -> Generator[StoredImage, None, None]:
    """Read and transcode all samples, in their order, on all cores."""
    file = os.open(old, os.O_RDONLY | os.O_CLOEXEC)
    num_threads = available_cpus()
    executor = ThreadPoolExecutor(num_threads)

    def repack(index: int) -> StoredImage:
        data = _read(old, file, int(tables.sizes[index]), int(tables.pointers[index]))
        if checksums is not None and zlib.crc32(data) != checksums[index]:
            raise BetonError(
                f"{old}: sample {index} is not what its manifest says; write the beton again from "
                "its source."
            )
        height, width = int(tables.heights[index]), int(tables.widths[index])
        is_jpeg = bool(tables.modes[index] == JPG)
        if is_jpeg:
            try:
                data = add_restart_markers(data, height, width, restart_interval)
            except ValueError as error:
                raise BetonError(
                    f"{old}: sample {index} cannot be given restart markers ({error}); write the "
                    "beton again from its source."
                ) from None
        return stored_image(data, (height, width), is_jpeg)

    try:
        under_way: collections.deque[Future[StoredImage]] = collections.deque()
        for index in range(len(tables.labels)):
            under_way.append(executor.submit(repack, index))
            if len(under_way) > _RUN_AHEAD * num_threads:
                yield under_way.popleft().result()
        for image in under_way:
            yield image.result()
    finally:
        executor.shutdown(cancel_futures=True)
        os.close(file)


def _read(old: Path, file: int, num_bytes: int, pointer: int) -> bytes:
    """Read some bytes of the beton to repack; blames it, and not the one that is written."""
    try:
        data = os.pread(file, num_bytes, pointer)
    except OSError as error:
        raise BetonError(f"{old}: cannot read it ({error.strerror}); check its disk.") from None
    if len(data) != num_bytes:
        raise BetonError(f"{old}: it has become shorter while it was read; repack it again.")
    return data


def _draft_manifest(manifest: Manifest, restart_interval: int) -> Manifest:
    versions = {name: metadata.version(name) for name in ("ffvit", "ffcv")}
    versions["libjpeg_turbo"] = libjpeg_turbo_version()
    return dataclasses.replace(
        manifest,
        options={**manifest.options, "restart_interval": restart_interval},
        versions={**manifest.versions, **versions},
    )
