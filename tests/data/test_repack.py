"""A repacked beton has restart markers; its samples, their order and their pixels are the old."""

import dataclasses
import errno
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import NUM_TRAIN, encode, gradient
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.pipeline.compiler import Compiler
from ffcv.writer import DatasetWriter
from PIL import Image

from ffvit.data.beton import load_manifest, manifest_path, open_beton, read_sample, read_tables
from ffvit.data.engine import WriteJob, page_bytes, store_images
from ffvit.data.images import stored_image
from ffvit.data.repack import repack_beton
from ffvit.errors import BetonError, ConfigError
from ffvit.jpeg.header import read_header

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "imagenet_sample.tar"


class Images:
    """Arrays of one batch's size, as stock ffcv's users hand them over, with labels 5, 6, ..."""

    def __init__(self, images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return self.images[index], 5 + index


def write_stock(path: Path, images, **options) -> None:
    """Write a beton with stock ffcv alone."""
    field = RGBImageField(**{"write_mode": "jpg", "jpeg_quality": 90, **options})
    fields = {"image": field, "label": IntField()}
    writer = DatasetWriter(str(path), fields, page_size=1 << 23, num_workers=1)
    writer.from_indexed_dataset(Images(images))


def read_stock(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """Decode a beton with stock ffcv alone, one image per batch, as they differ in size."""
    Compiler.set_enabled(False)  # compiling takes longer than reading
    try:
        pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]}
        order = OrderOption.SEQUENTIAL
        loader = Loader(str(path), 1, num_workers=1, order=order, pipelines=pipelines)
        batches = [(images[0].copy(), int(labels[0, 0])) for images, labels in loader]
    finally:
        Compiler.set_enabled(True)
    return [image for image, _ in batches], [label for _, label in batches]


def store(path: Path, files: list[bytes], shape: tuple[int, int] | None = None) -> None:
    """Store JPEG files as they are, whatever they hold; `shape` is a size for those that lie."""
    images = []
    for data in files:
        width, height = shape[::-1] if shape else Image.open(io.BytesIO(data)).size
        images.append(stored_image(data, (height, width), is_jpeg=True))
    labels = np.arange(len(files), dtype=np.int64)
    job = WriteJob(path, path.stem, labels, page_bytes(0), manifest=None, identity={})
    store_images(job, lambda first: (image for image in images[first:]))


def has_markers(data: bytes) -> bool:
    return read_header(data).restart_interval == 4 and b"\xff\xd0" in data


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def photographs() -> list[np.ndarray]:
    """Make a few images of one size, as stock ffcv's decoder wants them in one file."""
    return [np.asarray(gradient(97, 131, mark=(20 * i, 255, 0))) for i in range(11)]


def test_stock_ffcv_decodes_the_same_pixels_and_labels(tmp_path, photographs):
    write_stock(tmp_path / "old.beton", photographs)
    repack_beton(tmp_path / "old.beton", tmp_path / "new.beton")
    old_images, old_labels = read_stock(tmp_path / "old.beton")
    new_images, new_labels = read_stock(tmp_path / "new.beton")
    assert new_labels == old_labels == list(range(5, 16))
    assert np.array_equal(new_images, old_images)
    for index in range(11):
        assert not has_markers(read_sample(tmp_path / "old.beton", index)[0])
        assert has_markers(read_sample(tmp_path / "new.beton", index)[0])


@pytest.mark.parametrize(
    "kind",
    ["444", "422", "420", "grey", "progressive", "restart", "one_pixel", "odd_size", "cmyk", "rgb"],
)
def test_every_kind_of_jpeg_keeps_its_pixels_tables_and_colours(tmp_path, jpeg_samples, kind):
    data = (jpeg_samples | {"rgb": encode(gradient(37, 53), keep_rgb=True)})[kind]
    store(tmp_path / "old.beton", [data])
    repack_beton(tmp_path / "old.beton", tmp_path / "new.beton")
    repacked, _ = read_sample(tmp_path / "new.beton", 0)
    old, new = (Image.open(io.BytesIO(file)) for file in (data, repacked))
    assert new.mode == old.mode
    assert new.quantization == old.quantization
    assert np.array_equal(np.asarray(new), np.asarray(old))
    header = read_header(repacked)
    assert header.is_baseline
    assert header.restart_interval == 4
    assert dataclasses.replace(header, is_baseline=True, restart_interval=0) == dataclasses.replace(
        read_header(data), is_baseline=True, restart_interval=0
    )


def test_result_has_the_bytes_that_the_writer_would_have_written(tmp_path):
    """Markers added later are those of an encoder that was told of them."""
    options = {"quality": 90, "optimize": False}
    store(tmp_path / "old.beton", [encode(gradient(91, 118), **options)])
    repack_beton(tmp_path / "old.beton", tmp_path / "new.beton", 3)
    expected = encode(gradient(91, 118), restart_marker_blocks=3, **options)
    assert read_sample(tmp_path / "new.beton", 0)[0] == expected


def test_raw_samples_are_copied(tmp_path, photographs):
    write_stock(tmp_path / "old.beton", photographs, write_mode="raw")
    repack_beton(tmp_path / "old.beton", tmp_path / "new.beton")
    for index, image in enumerate(photographs):
        pixels, label = read_sample(tmp_path / "new.beton", index)
        assert np.array_equal(pixels, image)
        assert label == 5 + index


def test_manifest_is_carried_over_with_the_new_size_hash_and_interval(tiny_beton, tmp_path):
    new = tmp_path / "new.beton"
    repack_beton(tiny_beton, new, 9)
    old_manifest, manifest = load_manifest(tiny_beton), load_manifest(new)
    assert manifest.options == {**old_manifest.options, "restart_interval": 9}
    assert manifest.beton_bytes == new.stat().st_size
    images = [read_sample(new, index)[0] for index in range(NUM_TRAIN)]
    assert manifest.checksums().tolist() == [zlib.crc32(image) for image in images]
    assert manifest.label_names == old_manifest.label_names
    assert open_beton(new).num_samples == NUM_TRAIN
    for index in range(NUM_TRAIN):
        assert read_sample(new, index)[1] == read_sample(tiny_beton, index)[1]


def test_image_that_is_not_what_its_manifest_says_is_refused(tmp_path, tiny_beton):
    old, new = tmp_path / "old.beton", tmp_path / "new.beton"
    shutil.copy(tiny_beton, old)
    shutil.copy(manifest_path(tiny_beton), manifest_path(old))
    tables = read_tables(old)
    with old.open("r+b") as file:  # a bit of a quantization table: it decodes all the same
        file.seek(int(tables.pointers[7]) + 40)
        byte = file.read(1)[0]
        file.seek(int(tables.pointers[7]) + 40)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(BetonError, match="sample 7 is not what its manifest says"):
        repack_beton(old, new)
    assert not new.exists()


def test_beton_that_cannot_be_read_is_blamed_and_not_the_one_that_is_written(
    tmp_path, tiny_beton, monkeypatch
):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(BetonError, match=rf"^{tiny_beton}: cannot read it \(Input/output error"):
        repack_beton(tiny_beton, tmp_path / "new.beton")
    assert listing(tmp_path) == {}


def test_beton_without_manifest_gets_none_and_replaces_an_older_one(tmp_path, tiny_beton):
    old, new = tmp_path / "old.beton", tmp_path / "new.beton"
    shutil.copy(tiny_beton, old)
    shutil.copy(tiny_beton, new)
    shutil.copy(manifest_path(tiny_beton), manifest_path(new))
    repack_beton(old, new, 7)
    assert read_header(read_sample(new, 3)[0]).restart_interval == 7
    assert sorted(listing(tmp_path)) == ["new.beton", "old.beton"]


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("kind", ["truncated", "no_jpeg", "wrong_size"])
def test_sample_that_cannot_be_transcoded_is_named_and_nothing_is_written(
    tmp_path, jpeg_samples, kind, existing
):
    whole = jpeg_samples["420"]
    bad = {"truncated": whole[:1500], "no_jpeg": b"no JPEG", "wrong_size": jpeg_samples["wide"]}
    store(tmp_path / "old.beton", [whole, whole, bad[kind], whole], (91, 118))
    if existing:
        store(tmp_path / "new.beton", [whole])
    before = listing(tmp_path)
    with pytest.raises(BetonError, match=r"old\.beton: sample 2 cannot be given restart markers"):
        repack_beton(tmp_path / "old.beton", tmp_path / "new.beton")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("link", ["same", "hard", "symbolic"])
def test_beton_is_not_repacked_onto_itself(tmp_path, tiny_beton, link):
    old, new = tmp_path / "old.beton", tmp_path / "new.beton"
    shutil.copy(tiny_beton, old)
    if link == "same":
        new = old
    elif link == "hard":
        new.hardlink_to(old)
    else:
        new.symlink_to(old)
    before = listing(tmp_path)
    with pytest.raises(BetonError, match="expected another file"):
        repack_beton(old, new)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("interval", [0, -1, 65_536])
def test_impossible_interval_is_refused(tmp_path, tiny_beton, interval):
    with pytest.raises(ConfigError, match=f"--restart_interval={interval}"):
        repack_beton(tiny_beton, tmp_path / "new.beton", interval)


@pytest.mark.slow
def test_command_repacks_and_says_what_became_larger(tmp_path, tiny_beton):
    command = [sys.executable, "-m", "ffvit", "repack", str(tiny_beton)]
    options = [str(tmp_path / "new.beton"), "--restart_interval=2"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    assert "every 2 MCUs" in result.stderr
    assert open_beton(tmp_path / "new.beton").num_samples == NUM_TRAIN
    result = subprocess.run(
        [*command, str(tiny_beton)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not SAMPLE.exists(), reason="needs shared/data")
def test_real_images_of_stock_ffcv_keep_their_pixels(tmp_path):
    with tarfile.open(SAMPLE) as tar:
        files = [tar.extractfile(member) for member in tar if member.isfile()]
        images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    write_stock(tmp_path / "old.beton", images, max_resolution=500)
    repack_beton(tmp_path / "old.beton", tmp_path / "new.beton")
    sizes = np.zeros(2)
    for index in range(len(images)):
        old, label = read_sample(tmp_path / "old.beton", index)
        new, new_label = read_sample(tmp_path / "new.beton", index)
        sizes += len(old), len(new)
        assert label == new_label == 5 + index
        assert has_markers(new)
        assert np.array_equal(Image.open(io.BytesIO(old)), Image.open(io.BytesIO(new)))
    assert 1.005 < sizes[1] / sizes[0] < 1.02
