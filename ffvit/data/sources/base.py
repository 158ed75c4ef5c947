"""What a source is: labelled, named images whose bytes can be read in any order, by any process."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ffvit.errors import SourceError

Indices = npt.NDArray[np.int64]

# What counts as an image file; anything else beside the images is left out and counted.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)


class Store(Protocol):
    """Where the encoded images lie. Picklable; opens its files when a process first reads."""

    def name(self, key: int) -> str:
        """Say where image `key` comes from, for messages."""
        ...

    def read(self, key: int) -> bytes:
        """Read the encoded bytes of image `key`.

        Raises:
            SourceError: The bytes are not there any more.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Source:
    """The images of one split.

    Attributes:
        store: Where the bytes are.
        keys: (num_samples,) int64, the store's number of each image.
        labels: (num_samples,) int64, in [0, num_classes).
        label_names: One per class; folder names, or WordNet ids followed by their words.
        description: Layout and origin in one line.
        blocks: (num_samples,) int64 where one read costs a whole block of neighbours (a Parquet row
            group): the block of each image. None: reading in any order costs the same.
    """

    store: Store
    keys: Indices
    labels: Indices
    label_names: tuple[str, ...]
    description: str
    blocks: Indices | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, index: int) -> str:
        """Say where an image comes from, for messages."""
        return self.store.name(int(self.keys[index]))

    def read(self, index: int) -> bytes:
        """Read one image's file, still encoded (JPEG, PNG, PPM, ...).

        Raises:
            SourceError: It is not there any more.
        """
        return self.store.read(int(self.keys[index]))

    def select(self, indices: Indices) -> "Source":
        """Keep some of the images, in the given order."""
        return dataclasses.replace(
            self,
            keys=self.keys[indices],
            labels=self.labels[indices],
            blocks=None if self.blocks is None else self.blocks[indices],
        )


@dataclasses.dataclass(frozen=True)
class FileStore:
    """Images that are files of their own.

    Attributes:
        root: Folder that all paths are relative to.
        paths: One per image, with forward slashes.
    """

    root: Path
    paths: Sequence[str]

    def name(self, key: int) -> str:
        """Return the file's path."""
        return str(self.root / self.paths[key])

    def read(self, key: int) -> bytes:
        """Read the file."""
        try:
            return (self.root / self.paths[key]).read_bytes()
        except OSError as error:
            raise SourceError(f"{self.name(key)}: cannot read it ({error.strerror}).") from None


@dataclasses.dataclass(frozen=True)
class MemoryStore:
    """Small images that were read at once, each an encoded file of its own."""

    names: Sequence[str]
    files: Sequence[bytes]

    def name(self, key: int) -> str:
        """Return the image's name."""
        return self.names[key]

    def read(self, key: int) -> bytes:
        """Return the image's bytes."""
        return self.files[key]


class ByteRangeStore:
    """Images that are byte ranges of a few large, uncompressed archives."""

    def __init__(
        self,
        archives: Sequence[Path],
        archive_of: npt.NDArray[np.int32],
        offsets: Indices,
        sizes: Indices,
        names: Sequence[str],
    ) -> None:
        self._archives = archives
        self._archive_of = archive_of
        self._offsets = offsets
        self._sizes = sizes
        self._names = names
        self._files: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}  # file descriptors do not travel

    def __del__(self) -> None:
        for file in self._files.values():
            os.close(file)

    def name(self, key: int) -> str:
        """Return the archive's path and the member's name."""
        return f"{self._archives[self._archive_of[key]]}:{self._names[key]}"

    def read(self, key: int) -> bytes:
        """Read the byte range; by position, so that forked processes may share the open file."""
        archive = int(self._archive_of[key])
        size = int(self._sizes[key])
        try:
            if archive not in self._files:
                self._files[archive] = os.open(self._archives[archive], os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(self._files[archive], size, int(self._offsets[key]))
        except OSError as error:
            raise SourceError(f"{self.name(key)}: cannot read it ({error.strerror}).") from None
        if len(data) != size:
            raise SourceError(
                f"{self.name(key)}: expected {size} bytes, got {len(data)}; "
                "the archive was changed or cut since it was indexed."
            )
        return data


def is_image(path: str) -> bool:
    """Tell by its suffix whether a file is an image."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - 5x pathlib, a million calls


def class_labels(class_of: Sequence[str], names: Sequence[str], origin: str) -> Indices:
    """Turn class names into labels: positions in `names`.

    Raises:
        SourceError: A class that is not among the names.
    """
    label_of = {name: label for label, name in enumerate(names)}
    unknown = sorted(set(class_of) - label_of.keys())
    if unknown:
        raise SourceError(
            f"{origin}: expected only the {len(names)} classes of the train split, found "
            f"{shown(unknown)} besides; rename or remove."
        )
    return np.array([label_of[name] for name in class_of], dtype=np.int64)


def shown(names: Sequence[str], limit: int = 5) -> str:
    """List a few names and count the rest."""
    rest = len(names) - limit
    listed = ", ".join(repr(name) for name in names[:limit])
    return f"{listed} and {rest} more" if rest > 0 else listed
