"""Opening a beton: its tables, its manifest, and whether they fit each other and the run.

The images themselves are not decoded here; verify.py does that. The tables are tables.py's.
"""

import dataclasses
import itertools
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ffvit.data.manifest import Manifest, load_manifest, manifest_path
from ffvit.data.tables import ADVICE, JPG, MAX_CLASSES, RAW, Tables, read_tables
from ffvit.errors import BetonError

__all__ = [
    "JPG",
    "RAW",
    "BetonInfo",
    "Manifest",
    "Tables",
    "load_manifest",
    "manifest_path",
    "open_beton",
    "read_sample",
    "read_tables",
]


@dataclasses.dataclass(frozen=True)
class BetonInfo:
    """What a run needs to know of a beton.

    Attributes:
        path: The file.
        num_samples: Images.
        num_classes: Length of label_names; without them the highest label + 1.
        label_names: From the manifest, if there is one.
        max_height: Of all images, pixels.
        max_width: Of all images, pixels.
    """

    path: Path
    num_samples: int
    num_classes: int
    label_names: tuple[str, ...] | None
    max_height: int
    max_width: int


def open_beton(path: str | os.PathLike[str]) -> BetonInfo:
    """Check a beton and its manifest and describe them.

    Raises:
        BetonError: Missing, empty, not a beton, another version, an aborted write, cut off, other
            fields, records that cannot be true, or a manifest that does not belong to it or says
            that header and tables are not those that were written.
    """
    path = Path(path)
    tables = read_tables(path)
    _check_plausible(path, tables)
    num_classes = int(tables.labels.max()) + 1
    manifest = load_manifest(path)
    if manifest is not None:
        if manifest.num_samples != len(tables.labels) or len(manifest.label_names) < num_classes:
            raise BetonError(
                f"{manifest_path(path)}: describes {manifest.num_samples} images of "
                f"{len(manifest.label_names)} classes, but the beton has {len(tables.labels)} of "
                f"at least {num_classes}; put the right one beside it, or remove it."
            )
        if manifest.tables_crc32 != tables.crc32:
            raise BetonError(
                f"{path}: expected header and tables with the CRC-32 {manifest.tables_crc32:08x} "
                f"that its manifest has, got {tables.crc32:08x}: damaged or changed since it was "
                f"written; {ADVICE}"
            )
        num_classes = len(manifest.label_names)
    return BetonInfo(
        path=path,
        num_samples=len(tables.labels),
        num_classes=num_classes,
        label_names=manifest.label_names if manifest else None,
        max_height=int(tables.heights.max()),
        max_width=int(tables.widths.max()),
    )


def _check_plausible(path: Path, tables: Tables) -> None:
    """Refuse labels that no data set has: a damaged one would ask for a model of that size."""
    outside = np.flatnonzero((tables.labels < 0) | (tables.labels >= MAX_CLASSES))
    if len(outside):
        raise BetonError(
            f"{path}: sample {outside[0]} has the label {tables.labels[outside[0]]}, expected 0 to "
            f"{MAX_CLASSES - 1}; {ADVICE}"
        )


def check_same_classes(train: BetonInfo, val: BetonInfo) -> None:
    """Check that two betons number the same classes, as far as their manifests tell.

    Raises:
        BetonError: Their label names differ; names the first difference.
    """
    if train.label_names is None or val.label_names is None:
        return
    pairs = itertools.zip_longest(train.label_names, val.label_names, fillvalue="none")
    for label, (ours, theirs) in enumerate(pairs):
        if ours != theirs:
            raise BetonError(
                f"{val.path}: expected the classes of {train.path}, but label {label} is "
                f"{theirs!r} there and {ours!r} here; write both from one source."
            )


def read_sample(
    path: str | os.PathLike[str], index: int
) -> tuple[bytes | npt.NDArray[np.uint8], int]:
    """Read one sample as it is stored.

    Returns:
        The image, as a JPEG file or (height, width, 3) uint8 pixels, and its label.

    Raises:
        BetonError: Not a whole beton.
    """
    tables = read_tables(Path(path))
    with Path(path).open("rb") as file:
        file.seek(int(tables.pointers[index]))
        data = file.read(int(tables.sizes[index]))
    label = int(tables.labels[index])
    if tables.modes[index] == JPG:
        return data, label
    shape = int(tables.heights[index]), int(tables.widths[index]), 3
    return np.frombuffer(data, dtype=np.uint8).reshape(shape), label
