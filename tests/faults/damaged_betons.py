"""Betons of 24 images of one size and every way to damage them by hand."""

import base64
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from conftest import MARK_COLORS, gradient
from ffcv.fields import IntField, RGBImageField
from ffcv.types import ALLOC_TABLE_TYPE, HeaderType
from ffcv.writer import DatasetWriter
from PIL import Image

from ffvit.data.manifest import manifest_path
from ffvit.data.tables import Tables, read_tables

NUM_SAMPLES, HEIGHT, WIDTH = 24, 48, 64
# Where the records of two fields begin, how far they are apart, and the places in one.
RECORDS_AT, RECORD_BYTES = 24 + 2 * 1041, 24
RECORD = {"mode": (0, 1), "width": (1, 2), "height": (3, 2), "data_ptr": (5, 8), "label": (16, 8)}

Damage = Callable[[bytearray, Tables], bytes | bytearray]


class _Images:
    """Arrays and labels, as stock ffcv's users hand them over."""

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, number: int):
        return np.asarray(make_image(number)), number % 8


def make_image(number: int) -> Image.Image:
    """Make one of the images, no two of which are alike."""
    return gradient(HEIGHT, WIDTH, MARK_COLORS[number % 8]).rotate(7 * number)


def write_padded(beton: Path, like: Path) -> Path:
    """Write a beton by stock ffcv, which fills up pages with zeros; with a manifest for it."""
    fields = {"image": RGBImageField("jpg"), "label": IntField()}
    writer = DatasetWriter(str(beton), fields, page_size=1 << 21, num_workers=1)
    writer.from_indexed_dataset(_Images())
    data, tables = beton.read_bytes(), read_tables(beton)
    images = zip(tables.pointers.tolist(), tables.sizes.tolist(), strict=True)
    checksums = np.array([zlib.crc32(data[begin : begin + size]) for begin, size in images])
    record = json.loads(manifest_path(like).read_text())
    record |= {
        "beton_bytes": len(data),
        "tables_crc32": zlib.crc32(data[: tables.data_begin] + data[tables.data_end :]),
        "sample_crc32": base64.b64encode(checksums.astype("<u4").tobytes()).decode(),
    }
    manifest_path(beton).write_text(json.dumps(record))
    return beton


def write_sound(folder: Path) -> dict[str, Path]:
    """Write betons of JPEGs and of pixels, and one with padding: jpg, raw and padded."""
    from ffvit.data.sources import open_sources  # noqa: PLC0415 - ffcv takes seconds to import
    from ffvit.data.writer import write_beton  # noqa: PLC0415
    from ffvit.options import WriteSection  # noqa: PLC0415

    for number in range(NUM_SAMPLES):
        path = folder / "images" / f"class_{number % 8}" / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_image(number).save(path, quality=95)
    betons = {}
    for mode in ("jpg", "raw"):
        betons[mode] = folder / f"{mode}.beton"
        data_dir = str(folder / "images")
        section = WriteSection(data_dir=data_dir, mode=mode, num_workers=2, val_fraction=0)
        write_beton(open_sources(section)["train"], betons[mode], section, "train")
    betons["padded"] = write_padded(folder / "padded.beton", like=betons["jpg"])
    return betons


def copy_damaged(sound: Path, path: Path, damage: Damage, with_manifest: bool) -> Path:
    """Copy a beton and damage the copy."""
    path.write_bytes(damage(bytearray(sound.read_bytes()), read_tables(sound)))
    if with_manifest:
        manifest_path(path).write_bytes(manifest_path(sound).read_bytes())
    return path


def _set(data: bytearray, at: int, num_bytes: int, value: int) -> bytearray:
    data[at : at + num_bytes] = value.to_bytes(num_bytes, "little")
    return data


def header(field: str, value: int) -> Damage:
    """Set a number of the header."""
    dtype, offset = HeaderType.fields[field][:2]
    return lambda data, _: _set(data, offset, dtype.itemsize, value)


def record(sample: int, field: str, value: int) -> Damage:
    """Set a number of a sample's record."""
    offset, num_bytes = RECORD[field]
    at = RECORDS_AT + sample * RECORD_BYTES + offset
    return lambda data, _: _set(data, at, num_bytes, value)


def table(row: int, field: str, value: int) -> Damage:
    """Set a number of the allocation table."""
    dtype, offset = ALLOC_TABLE_TYPE.fields[field][:2]
    place = row * ALLOC_TABLE_TYPE.itemsize + offset
    return lambda data, tables: _set(data, tables.data_end + place, dtype.itemsize, value)


def pointer_of(sample: int, other: int) -> Damage:
    """Let a sample's record point at another sample's image."""
    return lambda data, tables: record(sample, "data_ptr", int(tables.pointers[other]))(
        data, tables
    )


def too_large(sample: int, num_bytes: int) -> Damage:
    """Claim so many bytes for an image, and let the file have them."""

    def damage(data: bytearray, tables: Tables) -> bytearray:
        table(sample, "size", num_bytes)(data, tables)
        header("alloc_table_ptr", tables.data_end + num_bytes)(data, tables)
        data[tables.data_end : tables.data_end] = bytes(num_bytes)
        return data

    return damage


def erase_begin(sample: int) -> Damage:
    """Set the first bytes of an image to 0."""

    def damage(data: bytearray, tables: Tables) -> bytearray:
        return _set(data, int(tables.pointers[sample]), 300, 0)

    return damage


def flip_middle(sample: int) -> Damage:
    """Flip a bit in the middle of an image."""

    def damage(data: bytearray, tables: Tables) -> bytearray:
        data[int(tables.pointers[sample]) + int(tables.sizes[sample]) // 2] ^= 16
        return data

    return damage


def aborted(num_bytes: int) -> Damage:
    """Leave the header as a write of ffcv does that was killed, with so many bytes of images."""

    def damage(data: bytearray, tables: Tables) -> bytearray:
        header("alloc_table_ptr", 0)(data, tables)
        images = np.random.default_rng(0).bytes(num_bytes)
        return data[: tables.data_begin] + images

    return damage


def truncated(length: Callable[[Tables], int]) -> Damage:
    """Cut the file."""
    return lambda data, tables: data[: length(tables)]


# Name: which of the two betons, and what is done to it; all of these must be refused at open, with
# and without a manifest.
HOSTILE: dict[str, tuple[str, Damage]] = {
    "empty": ("jpg", lambda *_: b""),
    "foreign": ("jpg", lambda *_: b"\x89PNG\r\n\x1a\n" + bytes(5000)),
    "aborted write": ("jpg", aborted(150 << 20)),
    "cut within the images": ("jpg", truncated(lambda tables: int(tables.pointers[12]) + 100)),
    "cut within the table": ("jpg", truncated(lambda tables: tables.data_end + 19 * 24)),
    "bytes behind the end": ("jpg", lambda data, _: data + bytes(24)),
    "10 samples promised": ("jpg", header("num_samples", 10)),
    "100 samples promised": ("jpg", header("num_samples", 100)),
    "2^40 samples promised": ("jpg", header("num_samples", 1 << 40)),
    "2^62 samples promised": ("jpg", header("num_samples", 1 << 62)),
    "65535 fields promised": ("jpg", header("num_fields", 65535)),
    "pages of 0 bytes": ("jpg", header("page_size", 0)),
    "pages of 3 MiB": ("jpg", header("page_size", 3 << 20)),
    "table behind the end": ("jpg", header("alloc_table_ptr", 1 << 62)),
    "table within the header": ("jpg", header("alloc_table_ptr", 8)),
    "pointer at another image": ("jpg", pointer_of(3, 7)),
    "pointer outside the file": ("jpg", record(3, "data_ptr", 1 << 40)),
    "pointer of 2^63": ("raw", record(3, "data_ptr", 1 << 63)),
    "size of 2^62": ("jpg", table(3, "size", 1 << 62)),
    "size of 0": ("jpg", table(3, "size", 0)),
    "raw image too large": ("raw", too_large(3, 12 << 20)),
    "raw image too high": ("raw", record(3, "height", 60000)),
    "raw image of no width": ("raw", record(3, "width", 0)),
    "unknown mode": ("jpg", record(3, "mode", 9)),
    "jpeg called raw": ("jpg", record(3, "mode", 1)),
    "label of 2^40": ("jpg", record(3, "label", 1 << 40)),
    "label of -1": ("jpg", record(3, "label", (1 << 64) - 1)),
}


def special_files(folder: Path) -> dict[str, Path]:
    """Make what is no regular file."""
    (folder / "folder.beton").mkdir()
    os.mkfifo(folder / "pipe.beton")
    return {
        "folder": folder / "folder.beton",
        "pipe": folder / "pipe.beton",
        "device": Path("/dev/zero"),
    }
