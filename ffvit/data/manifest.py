"""The manifest beside a beton, `X.beton.json`: where its images come from, and their labels."""

import base64
import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ffvit.data.tables import open_regular_file
from ffvit.errors import BetonError

FORMAT_VERSION = 2
# Nothing in a name may steer a terminal or break a line; halves of a surrogate pair are no text.
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# A manifest is 6 bytes per image and a few per class; JSON takes up to 20 times that when read.
_SMALL_BYTES, _MAX_BYTES = 16 << 20, 1 << 30
_PLAIN = (str, int, float, bool, type(None))


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

    Nothing in it is a path that is opened: it only describes. Class names have no control
    characters; of other texts only `printable` makes sure.

    Raises:
        BetonError: It is damaged, of another version, or belongs to another beton.
    """
    path = manifest_path(beton)
    try:
        size = beton.stat().st_size
        limit = min(_MAX_BYTES, _SMALL_BYTES + size // 4)
        with open_regular_file(path, "a manifest") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BetonError(f"{path}: cannot read this manifest ({error.strerror}).") from None
    try:
        manifest = _parse(content, limit)
    # A record of another shape raises one of these; a deeply nested one exhausts the stack.
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise BetonError(
            f"{path}: expected a manifest of version {FORMAT_VERSION} as write_imagenet.py makes "
            f"it, got {str(error) or type(error).__name__:.100}; write the beton again, or remove "
            "the manifest to do without label names and checksums."
        ) from None
    if manifest.beton_bytes != size:
        raise BetonError(
            f"{path}: describes a beton of {manifest.beton_bytes} bytes, but {beton.name} has "
            f"{size}; put the right one beside it, or remove it to do without label names."
        )
    return manifest


def _parse(content: bytes, limit: int) -> Manifest:
    """Read a manifest's text, and refuse what no writer would have written."""
    if len(content) > limit:
        raise ValueError(f"more than {limit} bytes")
    record = json.loads(content, parse_constant=_refuse_constant)
    if record["format_version"] != FORMAT_VERSION:
        raise ValueError(f"version {record['format_version']!r:.20}")
    for key in ("class_counts", "label_names"):
        record[key] = tuple(record[key])
    record["skipped"] = tuple((str(name), str(reason)) for name, reason in record["skipped"])
    manifest = Manifest(**record)
    if problem := _find_problem(manifest):
        raise ValueError(problem)
    return manifest


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the number {name}")


def _find_problem(manifest: Manifest) -> str:
    """Name what no writer would have written; empty: nothing."""
    if not (isinstance(manifest.options, dict) and isinstance(manifest.versions, dict)):
        return "options or versions that are no records"
    counts = (manifest.num_samples, manifest.num_originals, manifest.beton_bytes)
    texts = (manifest.split, manifest.source, manifest.sample_crc32, *manifest.label_names)
    checks = {
        "a text that is none": all(
            isinstance(text, str) for text in (*texts, *manifest.versions.values())
        ),
        "an option that is no plain value": all(
            isinstance(value, _PLAIN) for value in manifest.options.values()
        ),
        "a count that is none": all(
            type(count) is int and count >= 0 for count in (*counts, *manifest.class_counts)
        ),
        "a checksum that is none": all(
            type(checksum) is int and 0 <= checksum < 1 << 32
            for checksum in (manifest.tables_crc32, manifest.source_crc32)
        ),
    }
    for problem, is_sound in checks.items():
        if not is_sound:
            return problem
    steering = next((name for name in manifest.label_names if CONTROL_CHARACTERS.search(name)), "")
    if steering:
        return f"a class name with control characters, {steering!r:.60}"
    if len(manifest.class_counts) != len(manifest.label_names):
        return f"{len(manifest.class_counts)} classes and {len(manifest.label_names)} names"
    if sum(manifest.class_counts) != manifest.num_samples:
        return f"{manifest.num_samples} images and {sum(manifest.class_counts)} in all classes"
    if len(manifest.checksums()) != manifest.num_samples:
        return f"{manifest.num_samples} images and {len(manifest.checksums())} checksums"
    return ""


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest to exactly this path and see it onto the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(manifest), file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
