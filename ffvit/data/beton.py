"""Opening a beton: everything in its header and tables is checked before any of it is believed.

The images themselves are not decoded here. Layout (ffcv 1.0.2, version 2): header, field
descriptors, one record per sample, pages of image data, and an allocation table of (sample,
pointer, size) at the end.
"""

import dataclasses
import itertools
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from ffcv.fields import IntField, RGBImageField
from ffcv.types import (
    ALLOC_TABLE_TYPE,
    CURRENT_VERSION,
    TYPE_ID_HANDLER,
    FieldDescType,
    HeaderType,
    get_metadata_type,
)

from ffvit.data.manifest import Manifest, load_manifest, manifest_path
from ffvit.errors import BetonError

__all__ = [
    "BetonInfo",
    "Manifest",
    "check_labels",
    "load_manifest",
    "manifest_path",
    "open_beton",
    "read_sample",
]

# Names and types of the fields, as ffcv-imagenet writes them, in this order.
FIELDS = {"image": RGBImageField, "label": IntField}

_METADATA_TYPE = get_metadata_type([RGBImageField(), IntField()])
# How an image is stored.
JPG, RAW = 0, 1
_ADVICE = "write it again with write_imagenet.py."


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


@dataclasses.dataclass(frozen=True)
class Tables:
    """A beton's records, checked; sizes[i] is the number of bytes of image i.

    Attributes:
        modes: (num_samples,), JPG or RAW.
        heights: (num_samples,), pixels.
        widths: (num_samples,), pixels.
        pointers: (num_samples,), where in the file each image begins.
        sizes: (num_samples,), bytes of each image.
        labels: (num_samples,).
    """

    modes: npt.NDArray[np.uint8]
    heights: npt.NDArray[np.uint16]
    widths: npt.NDArray[np.uint16]
    pointers: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint64]
    labels: npt.NDArray[np.int64]


def open_beton(path: str | os.PathLike[str]) -> BetonInfo:
    """Check a beton and its manifest and describe them.

    Raises:
        BetonError: Missing, empty, not a beton, another version, an aborted write, cut off, other
        fields,
            records that point outside the file, or a manifest that does not belong to it.
    """
    path = Path(path)
    tables = read_tables(path)
    if tables.labels.min() < 0:
        sample = int(np.argmax(tables.labels < 0))
        raise BetonError(
            f"{path}: sample {sample} has the label {tables.labels[sample]}; {_ADVICE}"
        )
    num_classes = int(tables.labels.max()) + 1
    manifest = load_manifest(path)
    if manifest is not None:
        if manifest.num_samples != len(tables.labels) or len(manifest.label_names) < num_classes:
            raise BetonError(
                f"{manifest_path(path)}: describes {manifest.num_samples} images of "
                f"{len(manifest.label_names)} classes, but the beton has {len(tables.labels)} of "
                f"at least {num_classes}; put the right one beside it, or remove it."
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


def check_labels(path: str | os.PathLike[str], num_classes: int) -> None:
    """Check that a model with `num_classes` outputs can be trained or measured on a beton.

    Raises:
        BetonError: Not a whole beton, or a label outside [0, num_classes); names the first such
        sample.
    """
    labels = read_tables(Path(path)).labels
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(outside):
        raise BetonError(
            f"{path}: sample {outside[0]} has the label {labels[outside[0]]}, expected 0 to "
            f"{num_classes - 1} ({len(outside)} of {len(labels)} samples are outside); set "
            "model.num_classes or use another beton."
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


def read_tables(path: Path) -> Tables:
    """Read and check everything in a beton but its images and its manifest.

    Raises:
        BetonError: As for `open_beton`; negative labels pass.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise BetonError(f"{path}: expected a beton, got a folder; name the .beton file in it.")
        with path.open("rb") as file:
            header = _read_header(file, path, size)
            records, table = _read_records(file, path, size, header)
    except FileNotFoundError:
        raise BetonError(
            f"{path}: expected a beton, found no file; make it with write_imagenet.py, or check "
            "the path."
        ) from None
    except OSError as error:
        raise BetonError(f"{path}: cannot read it ({error.strerror}).") from None
    return _check_records(path, records, table, int(header["alloc_table_ptr"]))


def _read_header(file: BinaryIO, path: Path, size: int) -> Any:
    """Read and check header and field descriptors."""
    if size == 0:
        raise BetonError(f"{path}: expected a beton, got an empty file; {_ADVICE}")
    if size < HeaderType.itemsize:
        raise BetonError(f"{path}: expected a beton, got a file of {size} bytes; {_ADVICE}")
    header = np.frombuffer(file.read(HeaderType.itemsize), dtype=HeaderType)[0]
    version = int(header["version"])
    if version != CURRENT_VERSION:
        raise BetonError(
            f"{path}: expected a beton of version {CURRENT_VERSION}, got {version}: "
            f"not a beton, or written by another ffcv; {_ADVICE}"
        )
    if header["alloc_table_ptr"] == 0:
        raise BetonError(f"{path}: its write was aborted (there is no table of images); {_ADVICE}")
    num_fields = int(header["num_fields"])
    if size < HeaderType.itemsize + num_fields * FieldDescType.itemsize:
        raise BetonError(f"{path}: cut off within its header at {size} bytes; {_ADVICE}")
    descriptors = np.frombuffer(file.read(num_fields * FieldDescType.itemsize), dtype=FieldDescType)
    found = [
        (field["name"].tobytes().split(b"\0")[0].decode("ascii", "replace"), field["type_id"])
        for field in descriptors
    ]
    fields = [(name, TYPE_ID_HANDLER.get(int(type_id))) for name, type_id in found]
    if fields != list(FIELDS.items()):
        got = ", ".join(f"{name}: {kind.__name__ if kind else 'custom'}" for name, kind in fields)
        raise BetonError(
            f"{path}: expected the fields image: RGBImageField, label: IntField, got "
            f"{got or 'none'}; write it again with these."
        )
    return header


def _read_records(
    file: BinaryIO, path: Path, size: int, header: Any
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Read sample records and allocation table, after checking that they lie in the file."""
    num_samples, table_at = int(header["num_samples"]), int(header["alloc_table_ptr"])
    if num_samples == 0:
        raise BetonError(f"{path}: a beton without samples; {_ADVICE}")
    records_end = file.tell() + num_samples * _METADATA_TYPE.itemsize
    table_end = table_at + num_samples * ALLOC_TABLE_TYPE.itemsize
    if records_end > table_at or table_end != size:
        raise BetonError(
            f"{path}: its header promises {num_samples} samples and {table_end} bytes, the file "
            f"has {size}: cut off, damaged, or not written to its end; {_ADVICE}"
        )
    records = np.frombuffer(file.read(num_samples * _METADATA_TYPE.itemsize), dtype=_METADATA_TYPE)
    file.seek(table_at)
    table = np.frombuffer(
        file.read(num_samples * ALLOC_TABLE_TYPE.itemsize), dtype=ALLOC_TABLE_TYPE
    )
    if table["ptr"].min() < records_end:
        raise BetonError(f"{path}: an image lies within the header; the file is damaged; {_ADVICE}")
    return records, table


def _check_records(
    path: Path, records: npt.NDArray[Any], table: npt.NDArray[Any], data_end: int
) -> Tables:
    """Match records and allocation table, and check every pointer and size."""
    images = records["f0"]
    table = table[np.argsort(table["ptr"], kind="stable")]
    pointers, sizes = table["ptr"], table["size"]
    # In this order: no sum can overflow once no size exceeds the file's.
    whole = (
        bool((sizes > 0).all() and (sizes <= data_end).all() and (pointers <= data_end).all())
        and bool((pointers[:-1] + sizes[:-1] <= pointers[1:]).all())
        and int(pointers[-1]) + int(sizes[-1]) <= data_end
    )
    places = np.minimum(np.searchsorted(pointers, images["data_ptr"]), len(pointers) - 1)
    matched = (pointers[places] == images["data_ptr"]) & (
        table["sample_id"][places] == np.arange(len(images))
    )
    if not whole or not matched.all():
        raise BetonError(f"{path}: its tables point at the wrong bytes; it is damaged; {_ADVICE}")
    sizes = sizes[places]
    num_pixels = images["height"].astype(np.uint64) * images["width"]
    is_raw = images["mode"] == RAW
    sound = (num_pixels > 0) & (images["mode"] <= RAW) & (~is_raw | (sizes == 3 * num_pixels))
    if not sound.all():
        sample = int(np.argmin(sound))
        image = images[sample]
        raise BetonError(
            f"{path}: sample {sample} claims mode {image['mode']} and {image['width']} x "
            f"{image['height']} pixels in {sizes[sample]} bytes; it is damaged; {_ADVICE}"
        )
    return Tables(
        modes=images["mode"],
        heights=images["height"],
        widths=images["width"],
        pointers=images["data_ptr"],
        sizes=sizes,
        labels=records["f1"],
    )
