"""Images -> beton: written beside its place, read back, and only then put there, with its manifest.

What becomes of a source's images is writer.py's business, of another beton's repack.py's. While it
is written, `X.beton` is called `X.beton.partial`, and `X.beton.partial.journal` tells what is in it
(journal.py).
"""

import contextlib
import dataclasses
import os
import shutil
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ffvit.data.beton import read_tables
from ffvit.data.beton_file import BetonFile, WrittenBeton
from ffvit.data.images import SkippedImage, StoredImage
from ffvit.data.journal import Journal
from ffvit.data.manifest import Manifest, encode_checksums, manifest_path, write_manifest
from ffvit.data.progress import Progress, say
from ffvit.data.signals import deferred_signals
from ffvit.data.sources import Indices
from ffvit.errors import BetonError, SourceError

# Who does not map a beton reads it page by page; ffcv's own default is 8 MiB.
_PAGE_BYTES, _SMALL_PAGE_BYTES = 8 << 20, 2 << 20
_SMALL_BETON_BYTES = 256 << 20

# What a killed writer loses at most.
_COMMIT_INTERVAL_S = 1.0
# So many damaged images in a row are no damaged images: the source has gone.
_MOST_SKIPPED_IN_A_ROW = 100
# After these a line for each would bury all others.
_SKIPPED_SAID = 10

_RETRY = "check memory and disk, and write it again."

# Images in the order in which they are stored; closed when no more are wanted.
Images = Generator[StoredImage | SkippedImage, None, None]


@dataclasses.dataclass(frozen=True)
class WriteJob:
    """What is to be written, and where.

    Attributes:
        path: The beton to make; missing folders are made.
        name: For messages.
        labels: (num_images,) int64, in the order of storing.
        page_bytes: Size of a page, a power of 2; it grows with the largest image.
        manifest: The beton's, as far as it is known beforehand. None: there will be none.
        identity: All that the beton's bytes depend on, as JSON values: who resumes an interrupted
            write must want the same.
        resume: Go on with an interrupted write, and keep what is written when interrupted.
    """

    path: Path
    name: str
    labels: Indices
    page_bytes: int
    manifest: Manifest | None
    identity: Mapping[str, Any]
    resume: bool = False


def store_images(job: WriteJob, images: Callable[[int], Images]) -> Manifest | None:
    """Write a beton and its manifest; they appear under their names when they are whole.

    An existing beton is replaced only by a whole one. A failed or interrupted write leaves nothing
    behind, or what `job.resume` can go on with.

    Args:
        job: What to write.
        images: Makes the images from a position on; closed at the end.

    Returns:
        The manifest, complete.

    Raises:
        BetonError: The file cannot be written, another process is writing it, or an interrupted
            write was of something else.
        SourceError: None of the images, or none of very many in a row, could be stored.
    """
    partial = partial_path(job.path)
    with _write_errors(job.path):
        job.path.parent.mkdir(parents=True, exist_ok=True)
        journal_path = partial.with_name(f"{partial.name}.journal")
        journal = Journal(journal_path, job.path, job.identity, job.resume)
    with closing(journal):
        try:
            with closing(_open_partial(job, partial)) as beton:
                skipped = _fill(job, beton, journal, images)
                with _write_errors(job.path):
                    written = beton.finish()
            with _write_errors(job.path):
                _verify(partial, written)
            manifest = job.manifest and _complete(job.manifest, written, skipped)
            with _write_errors(job.path), deferred_signals():
                _publish(partial, job.path, manifest)
        except BaseException:
            _leave(job, partial, journal)
            raise
        journal.remove()
    return manifest


def partial_path(path: Path) -> Path:
    """Return what a beton is called while it is written."""
    return path.with_name(f"{path.name}.partial")


def page_bytes(beton_bytes: int) -> int:
    """Choose the size of a page by that of the beton."""
    return _SMALL_PAGE_BYTES if beton_bytes < _SMALL_BETON_BYTES else _PAGE_BYTES


def check_room(path: Path, num_bytes: int, advice: str) -> str:
    """Check that the disk has room for a beton; returns what is free, for a message.

    What an interrupted write of it has left counts as free: it is overwritten or gone on with.

    Raises:
        BetonError: It has not; ends with the advice.
    """
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    free_bytes = shutil.disk_usage(existing).free
    with suppress(OSError):  # mostly there is none
        free_bytes += 512 * partial_path(path).stat().st_blocks
    if num_bytes > free_bytes:
        raise BetonError(
            f"{path}: needs about {num_bytes / 1e9:,.1f} GB, {existing} has "
            f"{free_bytes / 1e9:,.1f} GB free; {advice}."
        )
    return f"{free_bytes / 1e9:,.1f} GB free"


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Name the beton when the system fails to write it."""
    try:
        yield
    except OSError as error:
        raise BetonError(
            f"{path}: cannot write it ({error.strerror or error}); check the disk's space and "
            "rights."
        ) from None


def _open_partial(job: WriteJob, partial: Path) -> BetonFile:
    if partial.exists() and not job.resume:
        say(f"{job.name}: removes {partial}, which an interrupted write has left")
    with _write_errors(job.path):
        return BetonFile(partial, len(job.labels), job.page_bytes)


def _fill(
    job: WriteJob, beton: BetonFile, journal: Journal, images: Callable[[int], Images]
) -> list[SkippedImage]:
    """Store all images that are not there yet; returns those that could not be."""
    with _write_errors(job.path):
        skipped = _take_over(job, beton, journal)
        beton.begin()
    first = beton.num_samples + len(skipped)
    labels = job.labels[first:].tolist()
    skipped_in_a_row = 0
    last_commit = time.monotonic()
    with closing(images(first)) as rest, Progress(len(job.labels), job.name, first) as progress:
        for label, image in zip(labels, progress.count(rest), strict=True):
            if isinstance(image, SkippedImage):
                skipped.append(image)
                skipped_in_a_row += 1
                _report_skipped(job, skipped, skipped_in_a_row)
                journal.add(image)
            else:
                skipped_in_a_row = 0
                with _write_errors(job.path):
                    journal.add(beton.append(image, label))
            now = time.monotonic()
            if now - last_commit >= _COMMIT_INTERVAL_S:
                last_commit = now
                with _write_errors(job.path):
                    beton.flush()
                    journal.commit()
    if beton.num_samples == 0:
        raise SourceError(f"{job.path}: none of its {len(job.labels)} images could be stored.")
    return skipped


def _take_over(job: WriteJob, beton: BetonFile, journal: Journal) -> list[SkippedImage]:
    """Count in what an interrupted write has done, up to the first image that is not there."""
    skipped: list[SkippedImage] = []
    for entry, label in zip(journal.entries, job.labels.tolist(), strict=False):
        if isinstance(entry, SkippedImage):
            skipped.append(entry)
        elif not beton.take_over(entry, label):
            journal.cut(beton.num_samples + len(skipped))
            break
    if journal.entries:
        say(
            f"{job.name}: resumes the interrupted write after {beton.num_samples:,} of "
            f"{len(job.labels):,} images, all of them read back"
        )
    return skipped


def _report_skipped(job: WriteJob, skipped: list[SkippedImage], in_a_row: int) -> None:
    name, reason = skipped[-1]
    if in_a_row >= _MOST_SKIPPED_IN_A_ROW:
        raise SourceError(
            f"{name}: {reason} And so the {in_a_row - 1} images before it: expected a few damaged "
            "images among whole ones; is the source still there?"
        )
    if len(skipped) <= _SKIPPED_SAID:
        say(f"{job.name}: skipped {name}: {reason}")
    if len(skipped) == _SKIPPED_SAID:
        say(f"{job.name}: further skipped images are listed in the manifest only")


def _verify(path: Path, written: WrittenBeton) -> None:
    """Read a beton back: its tables are sound, and every image is what was encoded.

    Raises:
        BetonError: Something else is there.
    """
    with path.open("rb", buffering=0) as file:
        # What the disk has, not what the system remembers of it.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        tables = read_tables(path)
        checksum = zlib.crc32(os.pread(file.fileno(), written.head_bytes, 0))
        table = os.pread(file.fileno(), written.num_bytes, written.table_at)
        if zlib.crc32(table, checksum) != written.tables_crc32:
            raise BetonError(f"{path}: its tables are not what was written; {_RETRY}")
        for index, (pointer, size) in enumerate(zip(tables.pointers, tables.sizes, strict=True)):
            data = os.pread(file.fileno(), int(size), int(pointer))
            if zlib.crc32(data) != written.checksums[index]:
                raise BetonError(f"{path}: sample {index} is not what was written; {_RETRY}")


def _complete(manifest: Manifest, written: WrittenBeton, skipped: list[SkippedImage]) -> Manifest:
    class_counts = np.bincount(written.labels, minlength=len(manifest.label_names))
    return dataclasses.replace(
        manifest,
        num_samples=len(written.labels),
        num_originals=written.num_originals,
        class_counts=tuple(class_counts.tolist()),
        skipped=(*manifest.skipped, *((image.name, image.reason) for image in skipped)),
        beton_bytes=written.num_bytes,
        tables_crc32=written.tables_crc32,
        sample_crc32=encode_checksums(written.checksums),
    )


def _publish(partial: Path, path: Path, manifest: Manifest | None) -> None:
    """Put a whole beton and its manifest in their places.

    The beton first: if the machine dies in between, it lies beside the manifest of the one before,
    which does not fit it and is refused, whereas a beton without a manifest would be taken for one
    that never had any.
    """
    if manifest is not None:
        write_manifest(manifest, manifest_path(partial))
    partial.replace(path)
    if manifest is not None:
        manifest_path(partial).replace(manifest_path(path))
    else:
        manifest_path(path).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _leave(job: WriteJob, partial: Path, journal: Journal) -> None:
    """Tidy up after a failure: keep what the next write can go on with, if it may."""
    with suppress(OSError):  # mostly there is none
        manifest_path(partial).unlink()
    if job.resume and journal.num_entries:
        with suppress(OSError):  # images without an entry are made again
            journal.commit()
        say(
            f"{job.name}: kept {partial}, up to {journal.num_entries:,} of {len(job.labels):,} "
            "images; the same command goes on from there"
        )
        return
    with suppress(OSError):
        partial.unlink()
    with suppress(OSError):
        journal.remove()
