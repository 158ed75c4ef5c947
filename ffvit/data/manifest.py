"""The manifest beside a beton, `X.beton.json`: where its images come from, and their labels."""

import base64
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ffvit.errors import BetonError

FORMAT_VERSION = 2


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All that is known about a beton beside its bytes.

    Attributes:
        format_version: Of this record.
        split: train or val.
        source: Layout and origin of the images, one line.
        source_crc32: zlib.crc32 of all their names and labels, in the order of storing.
        options: Those that the beton was written with.
        num_samples: Images.
        num_originals: Images whose source file was kept byte by byte.
        class_counts: Images of each class.
        label_names: Name of each class.
        skipped: Name of each image that was left out, and why.
        versions: Of the programs that wrote it.
        beton_bytes: Size of the beton.
        tables_crc32: zlib.crc32 of everything before the first page's padding (header, field
            descriptors, records), continued over the allocation table.
        sample_crc32: zlib.crc32 of each stored image's bytes; base64 of little-endian uint32.
    """

    format_version: int
    split: str
    source: str
    source_crc32: int
    options: Mapping[str, Any]
    num_samples: int
    num_originals: int
    class_counts: tuple[int, ...]
    label_names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    versions: Mapping[str, str]
    beton_bytes: int
    tables_crc32: int
    sample_crc32: str

    def checksums(self) -> npt.NDArray[np.uint32]:
        """Decode `sample_crc32`: (num_samples,) uint32, in the order of the samples."""
        return np.frombuffer(base64.b64decode(self.sample_crc32, validate=True), dtype="<u4")


def encode_checksums(checksums: npt.NDArray[np.uint32]) -> str:
    """Make a manifest's `sample_crc32` of (num_samples,) checksums."""
    return base64.b64encode(checksums.astype("<u4").tobytes()).decode("ascii")


def manifest_path(beton: Path) -> Path:
    """Return where a beton's manifest lies."""
    return beton.with_name(beton.name + ".json")


def load_manifest(beton: Path) -> Manifest | None:
    """Read the manifest beside a beton; None where there is none (a beton that stock ffcv wrote).

    Raises:
        BetonError: It is damaged, of another version, or belongs to another beton.
    """
    path = manifest_path(beton)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        for key in ("class_counts", "label_names"):
            record[key] = tuple(record[key])
        record["skipped"] = tuple((str(name), str(reason)) for name, reason in record["skipped"])
        manifest = Manifest(**record)
        sound = (
            manifest.format_version == FORMAT_VERSION
            and all(isinstance(name, str) for name in manifest.label_names)
            and len(manifest.label_names) == len(manifest.class_counts)
            and isinstance(manifest.tables_crc32, int)
            and len(manifest.checksums()) == manifest.num_samples
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BetonError(f"{path}: cannot read this manifest ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise BetonError(
            f"{path}: expected a manifest of version {FORMAT_VERSION} as write_imagenet.py makes "
            "it; write the beton again, or remove the manifest to do without label names."
        )
    size = beton.stat().st_size
    if manifest.beton_bytes != size:
        raise BetonError(
            f"{path}: describes a beton of {manifest.beton_bytes} bytes, but {beton.name} has "
            f"{size}; put the right one beside it, or remove it to do without label names."
        )
    return manifest


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest to exactly this path and see it onto the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(manifest), file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
