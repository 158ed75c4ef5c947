"""Inspect says what is inside, whatever the beton; and saves an image as it is stored."""

import dataclasses
import io
import json
import re
import shutil

import numpy as np
import pytest
from conftest import NUM_CLASSES, NUM_TRAIN, encode, gradient
from PIL import Image

from ffvit.__main__ import main
from ffvit.data.beton import read_sample
from ffvit.data.engine import WriteJob, store_images
from ffvit.data.images import stored_image
from ffvit.data.inspect import describe_beton, estimate_quality, save_sample
from ffvit.data.manifest import load_manifest, manifest_path
from ffvit.errors import BetonError, ConfigError
from ffvit.jpeg.header import read_header


def store(path, images, labels) -> None:
    """Store images, without a manifest."""
    job = WriteJob(path, "", labels, 1 << 21, manifest=None, identity={})
    store_images(job, lambda first: (image for image in images[first:]))


def write_mixture(path) -> None:
    """Store two JPEGs, one of them damaged, and pixels; without a manifest."""
    images = [
        stored_image(encode(gradient(40, 30), quality=75, subsampling="4:4:4"), (40, 30), True),
        stored_image(b"\xff\xd8" + bytes(50), (8, 8), True),
        stored_image(gradient(7, 5).tobytes(), (7, 5), False),
    ]
    labels = np.array([2, 0, 2])
    store(path, images, labels)


def test_counts_sizes_settings_classes_and_origin_are_shown(tiny_beton):
    text = describe_beton(tiny_beton)
    assert f"{NUM_TRAIN} images of {NUM_CLASSES} classes: {NUM_TRAIN} JPEGs\n" in text
    assert "pages of 2 MiB" in text
    for setting in ("quality +90", "chroma +4:2:0", "coding +baseline", "markers +every 4 MCUs"):
        assert re.search(rf"^  .*{setting}$", text, re.MULTILINE), setting
    assert "classes: 8 images each" in text
    assert re.search(r"^  7 +8  class_7$", text, re.MULTILINE)
    manifest = load_manifest(tiny_beton)
    assert manifest.source in text
    assert "max_side=500" in text
    assert max(map(len, text.splitlines()[2:])) <= max(100, len(manifest.source) + 13)


def test_histogram_counts_every_image_once(tiny_beton):
    blocks = describe_beton(tiny_beton).split("\n\n")
    for title in ("bytes per image", "longer side", "shorter side"):
        block = next(block for block in blocks if block.startswith(title))
        rows = re.findall(r"^ +([\d,]+) to +([\d,]+) +([\d,]+)", block, re.MULTILINE)
        assert sum(int(count) for _, _, count in rows) == NUM_TRAIN
        assert len(rows) <= 11


def test_mixture_without_manifest_is_described(tmp_path):
    write_mixture(tmp_path / "a.beton")
    text = describe_beton(tmp_path / "a.beton")
    assert "3 images of 3 classes: 2 JPEGs, 1 of raw pixels" in text
    assert re.search(r"quality +75\n", text)
    assert re.search(r"chroma +4:4:4\n", text)
    assert re.search(r"damaged +header\n", text)
    assert "so they have no names" in text
    assert "no manifest" in text.splitlines()[-1]


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 95, 100])
def test_quality_is_the_one_that_pillow_was_given(quality):
    header = read_header(encode(gradient(19, 23), quality=quality))
    assert estimate_quality(header.quantization) == str(quality)


def test_tables_of_another_encoder_are_near_a_quality():
    header = read_header(encode(gradient(19, 23), quality=80))
    odd = [divisor + (place % 7 == 0) for place, divisor in enumerate(header.quantization)]
    assert estimate_quality(odd) == "about 80"
    assert estimate_quality(()) == "unknown"


def test_texts_of_a_manifest_cannot_steer_the_terminal(tiny_beton, tmp_path):
    beton = tmp_path / "a.beton"
    shutil.copy(tiny_beton, beton)
    record = dataclasses.asdict(load_manifest(tiny_beton))
    record["source"] = "nice\x1b]0;title\x07 \x9b31m\u202e"
    record["options"] |= {"out_dir": "a\rb", "\x1bkey": 1}
    record["versions"] |= {"ffcv": "\x1b[2J"}
    record["skipped"] = [["a\n.jpg", "\x1b[31m"]]
    manifest_path(beton).write_text(json.dumps(record))
    text = describe_beton(beton)
    assert all(line.isprintable() for line in text.split("\n"))
    assert r"\x1b]0;title" in text


def test_many_classes_are_listed_in_part_unless_all_are_asked_for(tmp_path):
    labels = np.arange(30) % 25
    image = stored_image(encode(gradient(8, 8)), (8, 8), True)
    store(tmp_path / "a.beton", [image] * len(labels), labels)
    text = describe_beton(tmp_path / "a.beton")
    assert "  and 15 more; --all_classes lists them" in text
    assert "\n  24 " not in text
    assert re.search(r"\n  24 +1\n", describe_beton(tmp_path / "a.beton", all_classes=True))


def test_jpeg_is_saved_as_it_is_stored_and_decoded_as_png(tiny_beton, tmp_path, capsys):
    stored, label = read_sample(tiny_beton, 5)
    main(["inspect", str(tiny_beton), "--sample=5", f"--out={tmp_path}/a.jpg"])
    assert (tmp_path / "a.jpg").read_bytes() == stored
    assert f"sample 5 of {tiny_beton}, label {label} (class_{label})" in capsys.readouterr().out
    save_sample(tiny_beton, 5, tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(stored))))


def test_pixels_are_saved_as_png(tmp_path):
    write_mixture(tmp_path / "a.beton")
    save_sample(tmp_path / "a.beton", 2, tmp_path / "a.png")
    saved = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(saved, np.asarray(gradient(7, 5)))


def test_what_cannot_be_saved_is_one_error(tmp_path):
    beton = tmp_path / "a.beton"
    write_mixture(beton)
    with pytest.raises(ConfigError, match=r"--sample=3: expected 0 to 2"):
        save_sample(beton, 3, tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"\.jpg, \.jpeg, \.png"):
        save_sample(beton, 0, tmp_path / "a.beton")
    with pytest.raises(BetonError, match="sample 1 cannot be decoded"):
        save_sample(beton, 1, tmp_path / "a.png")
    with pytest.raises(BetonError, match="cannot write it"):
        save_sample(beton, 0, tmp_path / "none" / "a.png")
    with pytest.raises(SystemExit) as info:
        main(["inspect", str(beton), "--sample=1"])
    assert info.value.code == 2
