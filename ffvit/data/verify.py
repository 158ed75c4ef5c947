"""Verifying a beton: every byte compared with its manifest, every image decoded.

Loading notices an image that cannot be decoded; a flipped bit that still decodes, in a JPEG or in
raw pixels, only a checksum tells. The file is read once, from its begin to its end, in pieces of a
few MB, on all cores.
"""

import collections
import dataclasses
import os
import sys
import zlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ffvit.cpus import available_cpus
from ffvit.data.beton import BetonInfo, open_beton
from ffvit.data.manifest import load_manifest
from ffvit.data.progress import Progress
from ffvit.data.tables import JPG, Tables, read_tables
from ffvit.errors import BetonError, printable
from ffvit.jpeg.decoders import decode_status
from ffvit.jpeg.kernel import STATUS_TEXT

# What a thread reads at once, unless a single image is larger; and pieces under way per thread.
_PIECE_BYTES = 4 << 20
_RUN_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        sample: Its index; None: it is about bytes outside of all images.
        reason: What is wrong, for people.
    """

    sample: int | None
    reason: str


@dataclasses.dataclass(frozen=True)
class Verification:
    """What became of verifying a beton whose tables are sound.

    Attributes:
        info: The beton.
        labels: (num_samples,).
        num_jpegs: Images that were decoded; the others hold pixels.
        has_manifest: Bytes were compared with checksums.
        findings: What is wrong: at most one for each sample, then those outside of all images.
    """

    info: BetonInfo
    labels: npt.NDArray[np.int64]
    num_jpegs: int
    has_manifest: bool
    findings: list[Finding]

    @property
    def num_bad(self) -> int:
        """Count the bad samples."""
        return sum(finding.sample is not None for finding in self.findings)


@dataclasses.dataclass(frozen=True)
class _Piece:
    """Bytes of the file: images that follow each other without a gap, or, without any, padding."""

    begin: int
    end: int
    samples: npt.NDArray[np.int64]


def verify_betons(paths: Sequence[Path]) -> None:
    """Verify betons one after the other and print what is wrong with each.

    Raises:
        BetonError: One of them at least is bad.
    """
    bad = []
    for path in paths:
        try:
            verification = verify_beton(path)
        except BetonError as error:
            text = printable(str(error))
            bad.append(path)
        else:
            text = describe(verification)
            if verification.findings:
                bad.append(path)
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    if bad:
        raise BetonError(
            f"bad: {', '.join(map(str, bad))} ({len(bad)} of {len(paths)} betons); copy again from "
            "where they are sound, or write again with write_imagenet.py."
        )


def verify_beton(path: Path) -> Verification:
    """Read a whole beton, compare it with its manifest if it has one, and decode all images.

    Raises:
        BetonError: `open_beton` refuses it: header, tables or manifest are damaged; or it cannot be
            read.
    """
    info = open_beton(path)
    tables, manifest = read_tables(path), load_manifest(path)
    checksums = None if manifest is None else manifest.checksums()
    with (
        closing(_check_pieces(path, tables, checksums)) as pieces,
        Progress(info.num_samples, path.name) as progress,
    ):
        try:
            findings = [found for found in progress.count(pieces) if found is not None]
        except OSError as error:
            raise BetonError(f"{path}: cannot read it ({error.strerror}).") from None
    findings.sort(key=lambda finding: np.inf if finding.sample is None else finding.sample)
    return Verification(
        info=info,
        labels=tables.labels,
        num_jpegs=int(np.count_nonzero(tables.modes == JPG)),
        has_manifest=manifest is not None,
        findings=findings,
    )


def describe(verification: Verification) -> str:
    """Lay out the result as lines for a terminal, each bad sample on one."""
    info, findings = verification.info, verification.findings
    num_samples, num_bad, num_jpegs = info.num_samples, verification.num_bad, verification.num_jpegs
    num_raw = num_samples - num_jpegs
    state = "no image is bad"
    if num_bad:
        state = f"{num_bad:,} of {num_samples:,} images {'is' if num_bad == 1 else 'are'} bad"
    decoded = f"{num_jpegs:,} JPEGs decoded" if num_jpegs else ""
    pixels = f"{num_raw:,} images of raw pixels" if num_raw else ""
    lines = [
        f"{info.path}: {state}",
        f"  read         {' and '.join(part for part in (decoded, pixels) if part)}",
    ]
    if verification.has_manifest:
        lines.append("  compared     header, tables and every image with the manifest's checksums")
    else:
        lines += [
            "  not checked  there is no manifest, so nothing tells whether labels,"
            + (" raw pixels," if num_raw else ""),
            "               or JPEGs that still decode are those that were written",
        ]
    for finding in findings:
        if finding.sample is None:
            lines.append(f"  padding      {finding.reason}")
            continue
        label = int(verification.labels[finding.sample])
        name = f" ({info.label_names[label]})" if info.label_names else ""
        lines.append(f"  sample {finding.sample}, label {label}{name}: {finding.reason}")
    return "\n".join(printable(line) for line in lines)


def _check_pieces(
    path: Path, tables: Tables, checksums: npt.NDArray[np.uint32] | None
) -> Generator[Finding | None, None, None]:
    """Check all pieces on all cores; give one item for each sample, and one for bad padding."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    num_threads = available_cpus()
    executor = ThreadPoolExecutor(num_threads)

    def check(piece: _Piece) -> list[Finding | None]:
        data = os.pread(file, piece.end - piece.begin, piece.begin)
        if len(data) != piece.end - piece.begin:
            raise BetonError(f"{path}: became shorter while it was read; is it being written?")
        if not len(piece.samples):
            return _check_padding(data, piece.begin)
        return [_check_sample(data, piece.begin, i, tables, checksums) for i in piece.samples]

    try:
        under_way: collections.deque[Future[list[Finding | None]]] = collections.deque()
        for piece in _pieces(tables):
            under_way.append(executor.submit(check, piece))
            if len(under_way) > _RUN_AHEAD * num_threads:
                yield from under_way.popleft().result()
        for results in under_way:
            yield from results.result()
    finally:
        executor.shutdown(cancel_futures=True)
        os.close(file)


def _pieces(tables: Tables) -> Iterator[_Piece]:
    """Cut the file, from the records' end to the allocation table, into pieces."""
    order = np.argsort(tables.pointers)
    position, first = tables.data_begin, 0
    nothing = order[:0]
    while first < len(order):
        begin = int(tables.pointers[order[first]])
        for start in range(position, begin, _PIECE_BYTES):
            yield _Piece(start, min(start + _PIECE_BYTES, begin), nothing)
        last, position = first, begin
        while last < len(order) and int(tables.pointers[order[last]]) == position:
            end = position + int(tables.sizes[order[last]])
            if last > first and end - begin > _PIECE_BYTES:
                break
            last, position = last + 1, end
        yield _Piece(begin, position, order[first:last])
        first = last
    for start in range(position, tables.data_end, _PIECE_BYTES):
        yield _Piece(start, min(start + _PIECE_BYTES, tables.data_end), nothing)


def _check_padding(data: bytes, begin: int) -> list[Finding | None]:
    """Expect zeros."""
    wrong = np.flatnonzero(np.frombuffer(data, dtype=np.uint8))
    if not len(wrong):
        return []
    many = "1 byte" if len(wrong) == 1 else f"{len(wrong):,} bytes"
    where = f"the first is byte {begin + int(wrong[0]):,} of the file"
    return [Finding(None, f"{many} between images that should be 0; {where}")]


def _check_sample(
    data: bytes,
    begin: int,
    sample: int,
    tables: Tables,
    checksums: npt.NDArray[np.uint32] | None,
) -> Finding | None:
    """Compare one image's bytes with their checksum, and decode them."""
    start = int(tables.pointers[sample]) - begin
    image = data[start : start + int(tables.sizes[sample])]
    reasons = []
    if checksums is not None and zlib.crc32(image) != checksums[sample]:
        reasons.append("its bytes are not those that were written")
    if tables.modes[sample] == JPG:
        status = decode_status(image, int(tables.heights[sample]), int(tables.widths[sample]))
        if status:
            reasons.append(STATUS_TEXT[status])
    return Finding(int(sample), "; ".join(reasons)) if reasons else None
