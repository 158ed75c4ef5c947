"""Tar archives, indexed once and then read by byte range."""

import dataclasses
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ffvit.data.sources.base import ByteRangeStore, is_image
from ffvit.errors import SourceError

_BLOCK_BYTES = 512
_COMPRESSED_SUFFIXES = frozenset({".gz", ".tgz", ".bz2", ".xz", ".zst"})


@dataclasses.dataclass(frozen=True)
class Member:
    """One regular file inside a tar archive: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


def iterate_members(archive: Path, start: int = 0) -> Iterator[Member]:
    """List the regular files of an uncompressed tar archive, in their order.

    Args:
        archive: Path.
        start: Byte at which the tar begins: a tar may lie inside a tar.

    Raises:
        SourceError: Compressed, cut off, damaged, not a tar archive, or an image that is a link, a
            sparse file.
    """
    try:
        with archive.open("rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    # tarfile keeps every member for look-ups; a million of them is a gigabyte.
                    tar.members.clear()  # type: ignore[attr-defined]
                    name = member.name.removeprefix("./")
                    if (member.islnk() or member.issym()) and is_image(name):
                        raise SourceError(
                            f"{archive}:{name}: a link inside the archive; "
                            "pack it again with --dereference --hard-dereference."
                        )
                    if member.issparse():
                        raise SourceError(
                            f"{archive}:{name}: a sparse file, which cannot be read by position; "
                            "pack it again without --sparse."
                        )
                    if member.isreg():
                        yield Member(name, member.offset_data, member.size)
                # tarfile takes a damaged header for the end of the archive.
                file.seek(tar.offset)
                if file.read(_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
                    raise SourceError(
                        f"{archive}: cut off or damaged at byte {tar.offset}; fetch it again."
                    )
    except tarfile.TarError as error:
        if archive.suffix in _COMPRESSED_SUFFIXES:
            raise SourceError(
                f"{archive}: a compressed archive cannot be read by position; decompress it first."
            ) from None
        raise SourceError(f"{archive}: expected a tar archive, but {error}.") from None
    except OSError as error:
        raise SourceError(f"{archive}: cannot read it ({error.strerror}).") from None


def read_member(archive: Path, member: Member) -> bytes:
    """Read one member's bytes."""
    with archive.open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


def byte_range_store(
    archives: Sequence[Path], members: Sequence[tuple[int, Member]]
) -> ByteRangeStore:
    """Make a store of (archive number, member) pairs, numbered in the given order."""
    return ByteRangeStore(
        archives,
        np.array([archive for archive, _ in members], dtype=np.int32),
        np.array([member.offset for _, member in members], dtype=np.int64),
        np.array([member.size for _, member in members], dtype=np.int64),
        [member.name for _, member in members],
    )
