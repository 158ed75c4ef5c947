"""The manifest beside a beton, `X.beton.json`: where its images come from, and their labels."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ffvit.errors import BetonError

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All that is known about a beton beside its bytes.

    Attributes:
        format_version: Of this record.
        split: train or val.
        source: Layout and origin of the images, one line.
        options: Those that the beton was written with.
        num_samples: Images.
        num_originals: Images whose source file was kept byte by byte.
        class_counts: Images of each class.
        label_names: Name of each class.
        versions: Of the programs that wrote it.
        beton_bytes: Size of the beton.
        sha256: Of the beton, hexadecimal.
    """

    format_version: int
    split: str
    source: str
    options: Mapping[str, Any]
    num_samples: int
    num_originals: int
    class_counts: tuple[int, ...]
    label_names: tuple[str, ...]
    versions: Mapping[str, str]
    beton_bytes: int
    sha256: str


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
        manifest = Manifest(**record)
        sound = (
            manifest.format_version == FORMAT_VERSION
            and all(isinstance(name, str) for name in manifest.label_names)
            and len(manifest.label_names) == len(manifest.class_counts)
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
