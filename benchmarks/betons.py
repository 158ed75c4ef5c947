"""The betons and JPEG files that are measured: 500 real ImageNet images, stored in several ways.

All hold the same images in the same order. They are written anew by each run, so that none is left
over from another version of the writer.
"""

import dataclasses
import io
import multiprocessing
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import REPOSITORY
from ffvit.data.beton import open_beton, read_sample
from ffvit.data.sources import Source, open_sources
from ffvit.data.writer import storage_order, write_beton
from ffvit.errors import BetonError, SourceError
from ffvit.options import WriteSection

SAMPLE = Path("../shared/data/imagenet_sample.tar")
FOLDER = Path("betons/bench")
NUM_IMAGENET_IMAGES = 1_281_167
STOCK_WRITER_TIMEOUT_S = 300

# What stock ffcv writes (no restart markers), and what we write for the same limits.
OLD, OURS, RAW = "old", "ours", "raw"
MAX_SIDE, QUALITY = 500, 90
_OPTIONS: dict[str, dict[str, Any]] = {
    OURS: {},
    RAW: {"mode": "raw"},
    "side400_q90": {"max_side": 400},
    "side400_q80": {"max_side": 400, "jpeg_quality": 80},
    "short320_q90": {"max_side": 0, "short_side": 320},
    "short320_q80": {"max_side": 0, "short_side": 320, "jpeg_quality": 80},
    "short256_q90": {"max_side": 0, "short_side": 256},
    "short256_q80": {"max_side": 0, "short_side": 256, "jpeg_quality": 80},
}
TITLES = {
    OURS: "longer side 500, q90",
    "side400_q90": "longer side 400, q90",
    "side400_q80": "longer side 400, q80",
    "short320_q90": "shorter side 320, q90",
    "short320_q80": "shorter side 320, q80",
    "short256_q90": "shorter side 256, q90",
    "short256_q80": "shorter side 256, q80",
}
MAIN = (OURS, RAW)
SMALL = tuple(name for name in _OPTIONS if name not in MAIN)


def beton_path(name: str) -> Path:
    """Say where a beton lies."""
    return REPOSITORY / FOLDER / f"{name}.beton"


def jpeg_folder(name: str) -> Path:
    """Say where the JPEG files of a beton lie, one folder per class; a tar of them lies beside."""
    return REPOSITORY / FOLDER / f"{name}_jpegs"


def prepare(with_small: bool) -> dict[str, Any]:
    """Write all betons, and the JPEG files of the old and of our beton.

    Args:
        with_small: Whether to write the betons of smaller images too.

    Returns:
        Image set and betons, for the results.

    Raises:
        SourceError: The sample is not there.
        BetonError: Stock's writer did not end.
    """
    source = prepare_pair()
    others = (RAW, *(SMALL if with_small else ()))
    for name in others:
        write_beton(source, beton_path(name), _section(_OPTIONS[name]), name)
    names = [OLD, OURS, *others]
    return {
        "source": f"{SAMPLE.name}: {len(source)} ImageNet images, one of each of 500 classes",
        "num_images": len(source),
        "betons": {name: _describe(name) for name in names},
    }


def prepare_pair() -> Source:
    """Write stock's beton and ours, and the JPEG files of both; returns the images.

    Raises:
        SourceError: The sample is not there.
        BetonError: Stock's writer did not end.
    """
    section = _section({})
    source = _open_sample(section)
    (REPOSITORY / FOLDER).mkdir(parents=True, exist_ok=True)
    _write_stock(source, section)
    write_beton(source, beton_path(OURS), _section(_OPTIONS[OURS]), OURS)
    for name in (OLD, OURS):
        _extract(name)
    return source


def stored_images(name: str) -> list[bytes]:
    """Read all images of a JPEG beton as they are stored."""
    path = beton_path(name)
    samples = (read_sample(path, index)[0] for index in range(open_beton(path).num_samples))
    return [sample if isinstance(sample, bytes) else sample.tobytes() for sample in samples]


def _section(options: dict[str, Any]) -> WriteSection:
    defaults = {"max_side": MAX_SIDE, "jpeg_quality": QUALITY, "val_fraction": 0.0}
    data_dir = str(REPOSITORY / SAMPLE)
    return WriteSection(**(defaults | options | {"data_dir": data_dir, "split": "train"}))


def _open_sample(section: WriteSection) -> Source:
    if not Path(section.data_dir).exists():
        raise SourceError(
            f"{SAMPLE}: expected the 500 ImageNet images of the benchmarks, found nothing; put "
            "them there."
        )
    return open_sources(section)["train"]


class _Images:
    """What a user of stock ffcv writes from: (PIL image, label) by index."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image = Image.open(io.BytesIO(self._source.read(index)))
        return image.convert("RGB"), int(self._source.labels[index])


def _write_stock(source: Source, section: WriteSection) -> None:
    """Let stock ffcv write, in a process that can be ended: it waits for ever if a worker dies."""
    source = source.select(storage_order(source, section))
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_stock_writer, args=(source, str(beton_path(OLD))))
    process.start()
    process.join(STOCK_WRITER_TIMEOUT_S)
    if process.exitcode != 0:
        process.kill()
        raise BetonError(
            f"{beton_path(OLD)}: expected stock ffcv to write it, but its process "
            f"{'hangs' if process.exitcode is None else f'ended with {process.exitcode}'}; run it "
            "again."
        )


def _stock_writer(source: Source, path: str) -> None:
    from ffcv.fields import IntField, RGBImageField  # noqa: PLC0415 - in its own process only
    from ffcv.writer import DatasetWriter  # noqa: PLC0415

    image = RGBImageField(write_mode="jpg", max_resolution=MAX_SIDE, jpeg_quality=QUALITY)
    writer = DatasetWriter(path, {"image": image, "label": IntField()}, num_workers=2)
    writer.from_indexed_dataset(_Images(source), shuffle_indices=False)


def _extract(name: str) -> None:
    """Lay out a beton's JPEGs as class folders, and as one WebDataset shard."""
    folder = jpeg_folder(name)
    path = beton_path(name)
    with tarfile.open(folder.with_suffix(".tar"), "w") as shard:
        for index, data in enumerate(stored_images(name)):
            label = read_sample(path, index)[1]
            file = folder / f"{label:04d}" / f"{index:05d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            for suffix, content in (("jpg", data), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{index:05d}.{suffix}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))


def _describe(name: str) -> dict[str, Any]:
    path = beton_path(name)
    samples = [read_sample(path, index)[0] for index in range(open_beton(path).num_samples)]
    mean_bytes = float(np.mean([_num_bytes(sample) for sample in samples]))
    options = {"writer": "stock ffcv"}
    if name != OLD:
        section = dataclasses.asdict(_section(_OPTIONS[name]))
        kept = ("mode", "max_side", "short_side", "jpeg_quality", "chroma", "restart_interval")
        options = {"writer": "ffvit", **{key: section[key] for key in kept}}
    return {
        **options,
        "kb_per_image": round(mean_bytes / 1e3, 2),
        "imagenet_gb": round(mean_bytes * NUM_IMAGENET_IMAGES / 1e9, 1),
    }


def _num_bytes(sample: Any) -> int:
    return len(sample) if isinstance(sample, bytes) else int(sample.nbytes)
