"""Sound betons, ours and stock ffcv's, are described; every other file is one clear error."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import NUM_TRAIN, gradient
from ffcv.fields import FloatField, IntField, RGBImageField
from ffcv.types import ALLOC_TABLE_TYPE, HeaderType
from ffcv.writer import DatasetWriter
from PIL import Image

from ffvit.data.beton import load_manifest, manifest_path, open_beton, read_sample
from ffvit.data.inspect import describe_beton
from ffvit.errors import BetonError, one_line_errors

BETONS_BY_OTHERS = Path(__file__).resolve().parents[3] / "shared" / "data" / "betons_by_others"
# Where the parts of a file with two fields begin.
RECORDS_AT = 24 + 2 * 1041
RECORD_BYTES = 24


class Images:
    """Arrays and labels, as stock ffcv's users hand them over."""

    def __init__(self, num_images: int, first_label: int) -> None:
        self.images = [
            np.asarray(gradient(20 + i, 37 - i, mark=(9 * i, 0, 0))) for i in range(num_images)
        ]
        self.first_label = first_label

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return self.images[index], self.first_label + index


def write_stock(path: Path, fields, num_images: int = 7, first_label: int = 2) -> Images:
    """Write a beton with stock ffcv alone."""
    images = Images(num_images, first_label)
    DatasetWriter(str(path), fields, page_size=1 << 21, num_workers=1).from_indexed_dataset(images)
    return images


@pytest.fixture(scope="module")
def stock_beton(tmp_path_factory) -> tuple[Path, Images]:
    path = tmp_path_factory.mktemp("stock") / "stock.beton"
    return path, write_stock(path, {"image": RGBImageField("raw"), "label": IntField()})


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_beton_of_stock_ffcv_is_read(stock_beton):
    path, images = stock_beton
    info = open_beton(path)
    assert (info.num_samples, info.num_classes, info.label_names) == (7, 9, None)
    assert (info.max_height, info.max_width) == (26, 37)
    for index in range(7):
        pixels, label = read_sample(path, index)
        assert np.array_equal(pixels, images.images[index])
        assert label == 2 + index


def test_jpeg_beton_of_stock_ffcv_is_read(tmp_path):
    field = RGBImageField("jpg", jpeg_quality=95)
    images = write_stock(tmp_path / "a.beton", {"image": field, "label": IntField()})
    open_beton(tmp_path / "a.beton")
    for index in range(7):
        data, _ = read_sample(tmp_path / "a.beton", index)
        decoded = np.asarray(Image.open(io.BytesIO(data)))
        assert decoded.shape == images.images[index].shape
        assert np.abs(decoded.astype(int) - images.images[index]).mean() < 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"beton", "5 bytes"),
        (b"\x02\x00" + bytes(22), "aborted"),
        (b"\x03\x00" + bytes(5000), "version 2, got 3"),
        (b"PK\x03\x04" + bytes(5000), "not a beton"),
        (b"\x02\x00\xff\xff" + bytes(12) + b"\x01" + bytes(99), "cut off"),
    ],
)
def test_what_is_no_beton_is_refused(tmp_path, content, message):
    (tmp_path / "a.beton").write_bytes(content)
    with pytest.raises(BetonError, match=message):
        open_beton(tmp_path / "a.beton")


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(BetonError, match="no file"):
        open_beton(tmp_path / "a.beton")
    with pytest.raises(BetonError, match="folder"):
        open_beton(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"image": RGBImageField("raw"), "target": IntField()},
        {"image": RGBImageField("raw"), "label": FloatField()},
    ],
)
def test_other_fields_are_refused_and_named(tmp_path, fields):
    write_stock(tmp_path / "a.beton", fields)
    other = next(f"{n}: {type(f).__name__}" for n, f in list(fields.items())[1:])
    with pytest.raises(BetonError, match=other):
        open_beton(tmp_path / "a.beton")


def test_every_cut_is_refused(beton_copy):
    manifest_path(beton_copy).unlink()
    data = beton_copy.read_bytes()
    rng = np.random.default_rng(0)
    lengths = [24, RECORDS_AT, len(data) - 1, *rng.integers(0, len(data), 50)]
    for length in lengths:
        beton_copy.write_bytes(data[:length])
        with pytest.raises(BetonError, match=r"copy\.beton"):
            open_beton(beton_copy)


def test_flipped_bits_in_header_and_tables_never_do_harm(beton_copy):
    manifest_path(beton_copy).unlink()
    data = beton_copy.read_bytes()
    table_at = int(np.frombuffer(data[:24], HeaderType)[0]["alloc_table_ptr"])
    rng = np.random.default_rng(0)
    records = range(RECORDS_AT, RECORDS_AT + NUM_TRAIN * RECORD_BYTES)
    harmless = [8 * (i % RECORD_BYTES // 8) == 16 for i in range(len(records))]  # labels
    places = [p for p, skip in zip(records, harmless, strict=True) if not skip]
    places += [*range(2, 24), *range(table_at, len(data))]
    opened = 0
    for place in rng.choice(places, 300):
        byte = data[place] ^ (1 << rng.integers(0, 8))
        patch(beton_copy, int(place), bytes([byte]))
        try:
            open_beton(beton_copy)
            opened += 1  # a JPEG's stored size, or a padding byte, may change unnoticed
        except BetonError:
            pass
        patch(beton_copy, int(place), data[place : place + 1])
    assert opened < 100
    open_beton(beton_copy)


@pytest.mark.parametrize(
    ("field", "value"), [("ptr", 2**63), ("size", 2**63), ("size", 0), ("ptr", 8), ("sample_id", 5)]
)
def test_hostile_table_is_refused(beton_copy, field, value):
    manifest_path(beton_copy).unlink()
    data = beton_copy.read_bytes()
    table_at = int(np.frombuffer(data[:24], HeaderType)[0]["alloc_table_ptr"])
    offset = table_at + 3 * ALLOC_TABLE_TYPE.itemsize + ALLOC_TABLE_TYPE.fields[field][1]
    patch(beton_copy, offset, int(value).to_bytes(8, "little"))
    with pytest.raises(BetonError):
        open_beton(beton_copy)


def test_raw_image_of_the_wrong_size_is_refused(tmp_path, stock_beton):
    path = tmp_path / "a.beton"
    path.write_bytes(stock_beton[0].read_bytes())
    patch(path, RECORDS_AT + 4 * RECORD_BYTES + 1, (999).to_bytes(2, "little"))
    with pytest.raises(BetonError, match=r"sample 4 .* 999 x"):
        open_beton(path)


def test_negative_label_is_refused(tmp_path):
    fields = {"image": RGBImageField("raw"), "label": IntField()}
    write_stock(tmp_path / "a.beton", fields, first_label=-1)
    with pytest.raises(BetonError, match="sample 0 has the label -1"):
        open_beton(tmp_path / "a.beton")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beton_bytes": 1}, "describes a beton of 1 bytes"),
        (
            {"num_samples": 63, "sample_crc32": 84 * "AAAA", "class_counts": [63] + 7 * [0]},
            "63 images",
        ),
        ({"label_names": ["a"], "class_counts": [64]}, "1 classes"),
        ({"label_names": ["a", "b"]}, "8 classes and 2 names"),
        ({"tables_crc32": 0}, "expected header and tables with the CRC-32 00000000"),
        ({"format_version": 9}, "version 2"),
        ({"num_samples": 63}, "63 images and 64 in all classes"),
        ({"sample_crc32": "?"}, "expected a manifest"),
        ({"skipped": ["a.jpg"]}, "expected a manifest"),
        ({"unknown": 0}, "expected a manifest"),
    ],
)
def test_manifest_of_another_beton_is_refused(beton_copy, change, message):
    record = json.loads(manifest_path(beton_copy).read_text()) | change
    manifest_path(beton_copy).write_text(json.dumps(record))
    with pytest.raises(BetonError, match=message):
        open_beton(beton_copy)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "null",
        '{"label_names": 3}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "\x00",
        "9" * 5000,
    ],
)
def test_damaged_manifest_is_refused(beton_copy, text):
    manifest_path(beton_copy).write_text(text)
    with pytest.raises(BetonError, match="expected a manifest"):
        load_manifest(beton_copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format_version", [2]),
        ("split", 7),
        ("source", None),
        ("options", []),
        ("options", {"out_dir": {"a": [1]}}),
        ("num_samples", -64),
        ("num_samples", "64"),
        ("num_samples", True),
        ("num_originals", 0.5),
        ("class_counts", {"a": 64}),
        ("class_counts", [float("nan")] * 8),
        ("class_counts", [-8, 16, 8, 8, 8, 8, 8, 16]),
        ("class_counts", [[8]] * 8),
        ("label_names", ["a"] * 7 + ["\x1b[2J"]),
        ("label_names", ["a"] * 7 + ["two\nlines"]),
        ("label_names", ["a"] * 7 + ["\ud800"]),
        ("label_names", ["a"] * 7 + [8]),
        ("skipped", 5),
        ("versions", {"ffcv": 1}),
        ("beton_bytes", None),
        ("tables_crc32", -1),
        ("tables_crc32", float("inf")),
        ("source_crc32", 1 << 32),
        ("sample_crc32", ""),
        ("sample_crc32", "AAAA"),
        ("sample_crc32", "no base64!"),
        ("sample_crc32", ["A"]),
    ],
)
def test_hostile_value_in_manifest_is_refused_in_one_line(beton_copy, capsys, key, value):
    record = json.loads(manifest_path(beton_copy).read_text())
    assert key in record
    manifest_path(beton_copy).write_text(json.dumps(record | {key: value}))
    with pytest.raises(SystemExit), one_line_errors():
        load_manifest(beton_copy)
    message = capsys.readouterr().err
    assert message.startswith(f"error: {manifest_path(beton_copy)}: expected a manifest")
    assert message[:-1].isprintable()
    assert len(message) < 600


def test_huge_manifest_is_not_read(beton_copy, monkeypatch):
    monkeypatch.setattr("ffvit.data.manifest._SMALL_BYTES", 100 - beton_copy.stat().st_size // 4)
    with pytest.raises(BetonError, match="got more than 100 bytes"):
        load_manifest(beton_copy)


def test_manifest_makes_nothing_else_be_opened(beton_copy):
    record = json.loads(manifest_path(beton_copy).read_text())
    record["options"] |= {"data_dir": "/etc/passwd", "out_dir": "../.."}
    record |= {"source": "/etc/passwd", "split": "../../val", "skipped": [["/etc/passwd", ""]]}
    manifest_path(beton_copy).write_text(json.dumps(record))
    opened = set()
    active = True

    def note(event, arguments):
        if active and event == "open":
            opened.add(str(arguments[0]))

    sys.addaudithook(note)  # it cannot be taken away again
    info = open_beton(beton_copy)
    describe_beton(beton_copy)
    active = False
    assert info.num_samples == NUM_TRAIN
    assert opened == {str(beton_copy), str(manifest_path(beton_copy))}


def test_tables_larger_than_memory_are_not_read(beton_copy, monkeypatch):
    for memory_bytes, is_enough in ((96 * NUM_TRAIN, True), (96 * NUM_TRAIN - 1, False)):
        sizes = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": memory_bytes}
        monkeypatch.setattr("ffvit.data.tables.os.sysconf", sizes.get)
        if is_enough:
            open_beton(beton_copy)
            continue
        with pytest.raises(BetonError, match="more than half of this machine's memory"):
            open_beton(beton_copy)


@pytest.mark.data
@pytest.mark.skipif(not BETONS_BY_OTHERS.exists(), reason="needs shared/data")
@pytest.mark.parametrize("name", ["cifar_train.beton", "dataset.beton"])
def test_aborted_writes_found_in_public_are_refused(name):
    with pytest.raises(BetonError, match="aborted"):
        open_beton(BETONS_BY_OTHERS / name)
