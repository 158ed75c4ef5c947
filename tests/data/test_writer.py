"""Betons hold every sample once, in the same bytes each time; a failed write leaves nothing."""

import io
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import MARK_COLORS, NUM_CLASSES, NUM_TRAIN, encode, gradient
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.pipeline.compiler import Compiler
from ffcv.types import HeaderType
from memory_source import make_source
from PIL import Image

from ffvit.data.beton import load_manifest, open_beton, read_sample, read_tables
from ffvit.data.images import encode_image
from ffvit.data.sources import open_sources
from ffvit.data.writer import check_options, storage_order, write_beton
from ffvit.errors import ConfigError
from ffvit.options import WriteSection

SCRIPT = Path(__file__).resolve().parents[2] / "write_imagenet.py"


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_every_sample_is_stored_once_with_its_label_in_the_seeded_order(tmp_path, mode):
    source, section = make_source(), WriteSection(mode=mode, num_workers=2, seed=5)
    write_beton(source, tmp_path / "a.beton", section)
    order = storage_order(source, section)
    assert sorted(order) == list(range(23))
    assert list(order) != list(range(23))
    for position, index in enumerate(order):
        data, label = read_sample(tmp_path / "a.beton", position)
        stored = encode_image(source.read(index), "image", section)
        assert bytes(data) == stored.data
        assert label == source.labels[index]


def test_images_stay_in_the_source_order_without_shuffle(tmp_path):
    write_beton(make_source(), tmp_path / "a.beton", WriteSection(shuffle=False, num_workers=2))
    labels = [read_sample(tmp_path / "a.beton", i)[1] for i in range(23)]
    assert labels == [i % 5 for i in range(23)]


def test_file_is_the_same_for_any_number_of_workers_and_changes_with_the_seed(tmp_path):
    source = make_source()
    files = []
    for num_workers, seed in ((1, 0), (3, 0), (3, 1)):
        section = WriteSection(num_workers=num_workers, seed=seed)
        write_beton(source, tmp_path / "a.beton", section)
        files.append((tmp_path / "a.beton").read_bytes())
    assert files[0] == files[1] != files[2]


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_file_is_the_same_for_any_start_method(tmp_path, start_method):
    source, section = make_source(), WriteSection(num_workers=2)
    write_beton(source, tmp_path / "a.beton", section)
    write_beton(source, tmp_path / "b.beton", section, start_method=start_method)
    assert (tmp_path / "a.beton").read_bytes() == (tmp_path / "b.beton").read_bytes()


def read_stock(path: Path, os_cache: bool) -> list[np.ndarray]:
    """Decode a beton with stock ffcv alone, one image per batch, as they differ in size."""
    Compiler.set_enabled(False)  # compiling takes longer than reading
    try:
        pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]}
        order = OrderOption.SEQUENTIAL
        loader = Loader(
            str(path), 1, num_workers=1, os_cache=os_cache, order=order, pipelines=pipelines
        )
        return [images[0].copy() for images, _ in loader]
    finally:
        Compiler.set_enabled(True)


@pytest.mark.parametrize("mode", ["jpg", "raw", "passthrough"])
def test_stock_ffcv_reads_what_we_write(tmp_path, mode):
    source, path = make_source(), tmp_path / "a.beton"
    write_beton(source, path, WriteSection(mode=mode, num_workers=2))
    Compiler.set_enabled(False)  # compiling takes longer than reading
    try:
        pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]}
        loader = Loader(
            str(path),
            4,
            num_workers=1,
            order=OrderOption.SEQUENTIAL,
            drop_last=False,
            pipelines=pipelines,
        )
        batches = [(images.copy(), labels.copy()) for images, labels in loader]
    finally:
        Compiler.set_enabled(True)
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches]).reshape(-1)
    assert len(images) == 23
    for position, image in enumerate(images):
        data, label = read_sample(path, position)
        assert labels[position] == label
        if mode == "raw":
            assert np.array_equal(image, data)
        else:
            expected = np.asarray(Image.open(io.BytesIO(data))).astype(int)
            # Stock ffcv asks libjpeg-turbo for its fast, less accurate DCT.
            assert np.abs(image - expected).max() <= 6
            assert np.abs(image - expected).mean() < 1.5


def test_passthrough_keeps_the_source_files(tmp_path, image_folder):
    section = WriteSection(data_dir=str(image_folder), mode="passthrough", num_workers=2)
    source = open_sources(section)["train"]
    manifest = write_beton(source, tmp_path / "a.beton", section)
    stored = {read_sample(tmp_path / "a.beton", i)[0] for i in range(NUM_TRAIN)}
    assert stored == {path.read_bytes() for path in image_folder.glob("train/*/*.jpg")}
    assert manifest.num_originals == NUM_TRAIN


def test_tiny_beton_has_the_right_class_for_every_image(tiny_beton):
    info = open_beton(tiny_beton)
    assert (info.num_samples, info.num_classes) == (NUM_TRAIN, NUM_CLASSES)
    assert info.label_names == tuple(f"class_{label}" for label in range(NUM_CLASSES))
    sizes = []
    for index in range(info.num_samples):
        data, label = read_sample(tiny_beton, index)
        pixels = np.asarray(Image.open(io.BytesIO(data)))
        sizes.append(pixels.shape[:2])
        corner = pixels[4:10, 4:10].mean(axis=(0, 1))
        distances = [np.abs(corner - color).sum() for color in MARK_COLORS]
        assert np.argmin(distances) == label
    assert (info.max_height, info.max_width) == tuple(np.max(sizes, axis=0))


def test_manifest_tells_counts_names_options_and_checksums(tmp_path):
    path = tmp_path / "a.beton"
    section = WriteSection(num_workers=2, jpeg_quality=77)
    manifest = write_beton(make_source(), path, section, "train")
    assert load_manifest(path) == manifest
    assert manifest.class_counts == (5, 5, 5, 4, 4)
    assert manifest.label_names == tuple(f"class {label}" for label in range(5))
    assert manifest.options["jpeg_quality"] == 77
    data = path.read_bytes()
    assert manifest.beton_bytes == len(data)
    images = [read_sample(path, index)[0] for index in range(23)]
    assert manifest.checksums().tolist() == [zlib.crc32(image) for image in images]
    # Header, two field descriptors and 23 records; the allocation table at the end.
    tables = data[: 24 + 2 * 1041 + 23 * 24] + data[-23 * 24 :]
    assert manifest.tables_crc32 == zlib.crc32(tables)
    assert (manifest.split, manifest.versions["ffcv"]) == ("train", "1.0.2")


def test_parquet_rows_are_written_by_several_workers(tmp_path):
    images = [encode(gradient(20, 30, mark=(i, 0, 0)), "PNG") for i in range(37)]
    rows = {"image": [{"bytes": image, "path": None} for image in images], "label": [*range(37)]}
    pq.write_table(pa.table(rows), tmp_path / "train.parquet", row_group_size=5)
    section = WriteSection(data_dir=str(tmp_path), val_fraction=0.0, mode="raw", num_workers=3)
    write_beton(open_sources(section)["train"], tmp_path / "a.beton", section)
    for position in range(37):
        pixels, label = read_sample(tmp_path / "a.beton", position)
        assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(images[label]))))


def test_subset_is_spread_over_the_classes(tmp_path):
    manifest = write_beton(make_source(), tmp_path / "a.beton", WriteSection(subset=12))
    assert sorted(manifest.class_counts) == [2, 2, 2, 3, 3]


def test_blocks_are_shuffled_and_stay_together():
    blocks = np.repeat([0, 1, 2, 3, 4, 5], [5, 3, 1, 6, 4, 4])
    source = make_source(blocks=blocks)
    order = storage_order(source, WriteSection(seed=1))
    stored = blocks[order]
    assert sorted(order) == list(range(23))
    assert np.count_nonzero(np.diff(stored)) == 5
    assert list(dict.fromkeys(stored)) != [0, 1, 2, 3, 4, 5]
    assert any(np.any(np.diff(order[stored == block]) < 0) for block in range(6))


@pytest.mark.parametrize("os_cache", [True, False])
def test_pages_grow_with_the_largest_image(tmp_path, os_cache):
    noise = np.random.default_rng(0).integers(0, 256, (1100, 1100, 3), dtype=np.uint8)
    plain, large = encode(gradient(1100, 1100), "PNG"), encode(Image.fromarray(noise), "PNG")
    source = make_source(6)
    source.store.files[:] = [plain, large, plain, large, large, plain]
    section = WriteSection(max_side=0, shuffle=False, jpeg_quality=100, chroma="444")
    path = tmp_path / "a.beton"
    write_beton(source, path, section)
    tables = read_tables(path)
    page_bytes = int(np.fromfile(path, dtype=HeaderType, count=1)[0]["page_size"])
    begins, sizes = tables.pointers.astype(np.int64), tables.sizes.astype(np.int64)
    assert (4 << 20) < max(sizes) <= page_bytes == (8 << 20)
    assert np.array_equal(begins // page_bytes, (begins + sizes - 1) // page_bytes)
    for position, image in enumerate(read_stock(path, os_cache)):
        stored = np.asarray(Image.open(io.BytesIO(read_sample(path, position)[0]))).astype(int)
        # Stock ffcv's fast DCT is 11 off on noise; another image would be 50.
        assert np.abs(image - stored).mean() < 20


def test_small_beton_is_hardly_larger_than_its_images(tmp_path):
    section = WriteSection(mode="raw", max_side=0)
    manifest = write_beton(make_source(), tmp_path / "a.beton", section)
    assert manifest.beton_bytes == 24 + 2 * 1041 + 23 * (48 * 64 * 3 + 24 + 24)


def test_projected_size_is_printed_first_and_about_right(tmp_path, capsys):
    manifest = write_beton(
        make_source(61), tmp_path / "val.beton", WriteSection(mode="raw", num_workers=2), "val"
    )
    line = capsys.readouterr().err.splitlines()[0]
    assert line.startswith("val: 61 images of 5 classes, about 0.6 MB")
    assert manifest.num_samples * 48 * 64 * 3 == 562_176


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "smart"},
        {"chroma": "411"},
        {"jpeg_quality": 0},
        {"jpeg_quality": 101},
        {"max_side": -1},
        {"restart_interval": -1},
        {"subset": -5},
        {"seed": -1},
        {"num_workers": -1},
    ],
)
def test_impossible_option_is_refused_by_name(change):
    with pytest.raises(ConfigError, match=f"--{next(iter(change))}="):
        check_options(WriteSection(**change))


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "IMAGENET_DIR"}
        | environment,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jpg_quality=9"], "did you mean 'jpeg_quality'"),
        ([], "--data_dir"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, message):
    result = run_script(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.slow
def test_script_reads_imagenet_dir_and_writes_both_betons(tmp_path, image_folder):
    result = run_script(f"--out_dir={tmp_path}", IMAGENET_DIR=str(image_folder))
    assert result.returncode == 0, result.stderr
    assert open_beton(tmp_path / "train.beton").num_samples == NUM_TRAIN
    assert open_beton(tmp_path / "val.beton").label_names is not None
    assert "next: python train_imagenet.py" in result.stdout


def test_manifest_is_readable_json(tmp_path):
    write_beton(make_source(3), tmp_path / "a.beton", WriteSection(num_workers=1))
    record = json.loads((tmp_path / "a.beton.json").read_text())
    assert record["num_samples"] == 3
