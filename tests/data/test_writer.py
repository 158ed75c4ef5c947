"""Betons hold every sample once, in the same bytes each time; a failed write leaves nothing."""

import dataclasses
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib
from multiprocessing import shared_memory
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
from PIL import Image

from ffvit.data import engine
from ffvit.data.beton import load_manifest, open_beton, read_sample
from ffvit.data.images import encode_image
from ffvit.data.sources import Source, open_sources
from ffvit.data.sources.base import MemoryStore
from ffvit.data.writer import check_options, storage_order, write_beton
from ffvit.errors import BetonError, ConfigError, SourceError
from ffvit.options import WriteSection

SCRIPT = Path(__file__).resolve().parents[2] / "write_imagenet.py"


def make_source(num_images: int = 23, num_classes: int = 5, size=(48, 64), **changes) -> Source:
    """Make a source of lossless images in memory, each different."""
    files = [encode(gradient(*size, mark=(i, 99, 7 * i % 256)), "PNG") for i in range(num_images)]
    source = Source(
        store=MemoryStore([f"folder/{i}.png" for i in range(num_images)], files),
        keys=np.arange(num_images),
        labels=np.arange(num_images) % num_classes,
        label_names=tuple(f"class {label}" for label in range(num_classes)),
        description="images in memory",
    )
    return dataclasses.replace(source, **changes)


class FailingStore(MemoryStore):
    """Images in memory, of which number 17 does something else."""

    def read(self, key: int) -> bytes:
        if key == 17:
            self.fail()
        return super().read(key)

    def fail(self) -> None:
        raise ZeroDivisionError("a bug")


class KillingStore(FailingStore):
    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def failing(kind: type[FailingStore]) -> Source:
    source = make_source()
    return dataclasses.replace(source, store=kind(source.store.names, source.store.files))


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch):
    """No test may leave a process or a shared-memory segment."""
    created = []

    class Recorded(shared_memory.SharedMemory):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            created.append(self.name)

    monkeypatch.setattr(shared_memory, "SharedMemory", Recorded)
    yield
    assert multiprocessing.active_children() == []
    assert [name for name in created if Path("/dev/shm", name).exists()] == []


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


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("kind", ["undecodable", "killed", "bug"])
def test_failed_write_names_the_image_and_changes_nothing(tmp_path, kind, existing, monkeypatch):
    monkeypatch.setattr("ffvit.data.writer._ESTIMATE_SAMPLES", 1)  # so that it fails while writing
    sources = {
        "undecodable": make_source(),
        "killed": failing(KillingStore),
        "bug": failing(FailingStore),
    }
    sources["undecodable"].store.files[17] = b"not an image"
    section = WriteSection(num_workers=2)
    if existing:
        write_beton(make_source(11), tmp_path / "a.beton", section)
    before = listing(tmp_path)
    begin = time.monotonic()
    with pytest.raises(RuntimeError if kind == "bug" else SourceError, match=r"folder/17\.png"):
        write_beton(sources[kind], tmp_path / "a.beton", section)
    assert time.monotonic() - begin < 5
    assert listing(tmp_path) == before


def test_stored_sample_that_differs_from_what_was_encoded_stops_the_write(tmp_path, monkeypatch):
    write_beton(make_source(11), tmp_path / "a.beton", WriteSection(num_workers=1))
    before = listing(tmp_path)
    flush_to_disk = engine._flush_to_disk

    def damage(path: Path) -> None:
        if path.is_file():
            with path.open("r+b") as file:
                file.seek(2 << 20)  # the first image's first byte
                file.write(b"\xfe")
        flush_to_disk(path)

    monkeypatch.setattr(engine, "_flush_to_disk", damage)
    with pytest.raises(BetonError, match="sample 0 is not what was written"):
        write_beton(make_source(), tmp_path / "a.beton", WriteSection(num_workers=1))
    assert listing(tmp_path) == before


@pytest.mark.parametrize("limit_bytes", [1 << 20, 3 << 20, (4 << 20) + 100])
def test_full_disk_is_one_error_and_leaves_nothing(tmp_path, limit_bytes):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limits[1]))
    try:
        with pytest.raises(BetonError, match="cannot write it"):
            write_beton(make_source(), tmp_path / "a.beton", WriteSection(num_workers=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert listing(tmp_path) == {}


def test_too_small_a_disk_is_refused_before_writing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BetonError, match="free"):
        write_beton(make_source(), tmp_path / "new" / "a.beton", WriteSection(num_workers=2))
    assert listing(tmp_path) == {}


def test_file_in_the_place_of_the_folder_is_one_error(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BetonError, match="cannot write it"):
        write_beton(make_source(), tmp_path / "out" / "a.beton", WriteSection(num_workers=2))
    assert listing(tmp_path) == {"out": b"mine"}


def test_image_larger_than_a_page_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ffvit.data.writer.PAGE_BYTES", 2 << 20)
    monkeypatch.setattr("ffvit.data.writer._LARGE_PAGE_BYTES", 2 << 20)
    source = make_source(2, size=(900, 900))
    with pytest.raises(BetonError, match="--max_side"):
        write_beton(source, tmp_path / "a.beton", WriteSection(mode="raw", max_side=0))
    assert listing(tmp_path) == {}


def test_projected_size_is_printed_first_and_about_right(tmp_path, capsys):
    manifest = write_beton(
        make_source(61), tmp_path / "a.beton", WriteSection(mode="raw", num_workers=2), "val"
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


def group_is_gone(group: int, timeout_s: float) -> bool:
    """Wait until no process of a group is left."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_script_leaves_no_file_and_no_process(tmp_path, signal_number):
    data = encode(gradient(1500, 1500), quality=95)
    for number in range(400):
        path = tmp_path / "images" / f"c{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    out = tmp_path / "out"
    # A background job of a shell, as CI may be, ignores SIGINT, and its children inherit that.
    default = ["env", "--default-signal=INT"]
    options = [f"--data_dir={tmp_path / 'images'}", f"--out_dir={out}"]
    process = subprocess.Popen(
        [*default, sys.executable, str(SCRIPT), *options],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with process:
        while not list(out.glob("*.tmp.*")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal_number)
        errors = process.communicate(timeout=20)[1].decode()
    assert "Traceback" not in errors
    if signal_number != signal.SIGKILL:  # which leaves no time to tidy up
        assert process.returncode == 128 + signal_number
        assert list(out.iterdir()) == []
    assert group_is_gone(process.pid, timeout_s=5)


def test_manifest_is_readable_json(tmp_path):
    write_beton(make_source(3), tmp_path / "a.beton", WriteSection(num_workers=1))
    record = json.loads((tmp_path / "a.beton.json").read_text())
    assert record["num_samples"] == 3
