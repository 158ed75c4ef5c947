"""Fixtures shared by all tests: images on which every shift or swap shows, and their betons."""

import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

NUM_CLASSES = 8
NUM_TRAIN, NUM_VAL = 64, 24
# One colour per class, far apart.
MARK_COLORS = [(255 * (c >> 2 & 1), 255 * (c >> 1 & 1), 255 * (c & 1)) for c in range(NUM_CLASSES)]

# No deadline: the first example may compile, and a busy machine is no failure.
settings.register_profile("ffvit", deadline=None)
settings.load_profile("ffvit")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none, unless one is required."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        if os.environ.get("FFVIT_REQUIRE_GPU") == "1":
            pytest.fail("FFVIT_REQUIRE_GPU=1, but no GPU is available")
        pytest.skip("needs a GPU")


@pytest.fixture(autouse=True)
def restore_random_state() -> Iterator[None]:
    """Start each test from the same random state, and leave none behind."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - ffcv and timm draw from the global generator
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


def gradient(height: int, width: int, mark: tuple[int, int, int] = (255, 0, 0)) -> Image.Image:
    """Make an image that differs along both axes and in each channel, with a mark top left."""
    rows = np.linspace(0, 220, height)[:, None] + np.zeros((1, width))
    columns = np.linspace(0, 220, width)[None] + np.zeros((height, 1))
    pixels = np.stack([columns, rows, 240 - (rows + columns) / 2], axis=2).astype(np.uint8)
    side = max(1, min(height, width) // 3)
    pixels[:side, :side] = mark
    return Image.fromarray(pixels)


def encode(image: Image.Image, file_format: str = "JPEG", **options: object) -> bytes:
    """Encode an image with Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def jpeg_samples() -> dict[str, bytes]:
    """Encode a gradient in every kind of JPEG a decoder may meet, and two files that are none."""
    image = gradient(91, 118)
    samples = {
        "444": encode(image, quality=95, subsampling="4:4:4"),
        "422": encode(image, quality=95, subsampling="4:2:2"),
        "420": encode(image, quality=95, subsampling="4:2:0"),
        "grey": encode(image.convert("L"), quality=95),
        "progressive": encode(image, quality=95, progressive=True),
        "restart": encode(image, quality=95, restart_marker_blocks=3),
        "one_pixel": encode(gradient(1, 1), quality=95),
        "odd_size": encode(gradient(37, 53), quality=95),
        "multiple_of_16": encode(gradient(64, 96), quality=95),
        "wide": encode(gradient(7, 301), quality=95),
        "cmyk": encode(image.convert("CMYK"), quality=95),
        "optimized": encode(image, quality=95, optimize=True),
        "empty": b"",
    }
    return samples | {"truncated": samples["420"][: len(samples["420"]) // 2]}


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write train/ and val/ with 8 class folders; the colour of the corner mark tells the class."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, num_images in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        for number in range(num_images):
            label = number % NUM_CLASSES
            height, width = (int(side) for side in rng.integers(48, 97, 2))
            path = folder / split / f"class_{label}" / f"{number:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            gradient(height, width, MARK_COLORS[label]).save(path, quality=95)
    return folder


@pytest.fixture(scope="session")
def large_images(tmp_path_factory) -> Path:
    """Make images that take long to write."""
    folder = tmp_path_factory.mktemp("large")
    data = encode(gradient(1500, 1500), quality=95)
    for number in range(150):
        path = folder / f"c{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def tiny_betons(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the image folder into one beton per split: {"train": 64 images, "val": 24 images}."""
    from ffvit.data.sources import open_sources  # noqa: PLC0415
    from ffvit.data.writer import write_beton  # noqa: PLC0415
    from ffvit.options import WriteSection  # noqa: PLC0415 - ffcv takes seconds to import

    folder = tmp_path_factory.mktemp("betons")
    section = WriteSection(data_dir=str(image_folder), num_workers=2)
    betons = {}
    for split, source in open_sources(section).items():
        betons[split] = folder / f"{split}.beton"
        write_beton(source, betons[split], section, split)
    return betons


@pytest.fixture(scope="session")
def tiny_beton(tiny_betons: dict[str, Path]) -> Path:
    """Return the beton with the 64 training images of 8 classes."""
    return tiny_betons["train"]


@pytest.fixture(scope="session")
def tiny_val_beton(tiny_betons: dict[str, Path]) -> Path:
    """Return the beton with the 24 validation images of 8 classes."""
    return tiny_betons["val"]


@pytest.fixture
def beton_copy(tiny_beton: Path, tmp_path: Path) -> Path:
    """Copy the beton of the training images, with its manifest, to be damaged."""
    path = tmp_path / "copy.beton"
    path.write_bytes(tiny_beton.read_bytes())
    (tmp_path / "copy.beton.json").write_bytes(
        tiny_beton.with_name(f"{tiny_beton.name}.json").read_bytes()
    )
    return path


@pytest.fixture(scope="session")
def run_folder(tiny_betons: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run's folder as training on the tiny betons leaves it."""
    from trained_run import write_run  # noqa: PLC0415

    return write_run(tmp_path_factory.mktemp("runs") / "tiny", tiny_betons)


@pytest.fixture(scope="session")
def exported_folder(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that `export` writes of it."""
    from ffvit.__main__ import main  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("exported") / "tiny"
    main(["export", str(run_folder), str(folder)])
    return folder
