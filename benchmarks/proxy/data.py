"""Imagenette as the experiments read it: as betons for us, as class folders for timm.

Of the training images every third one is taken (by name): more would not fit into the time that two
CPU cores give, and an epoch is the unit in which resolutions change.
"""

import fcntl
import shutil
import tarfile
from pathlib import Path

from benchmarks.machine import REPOSITORY
from ffvit.data.sources import open_sources
from ffvit.data.writer import write_beton
from ffvit.errors import SourceError
from ffvit.options import WriteSection

ARCHIVE = Path("../shared/data/imagenette_160.tar")
FOLDER = REPOSITORY / "betons" / "proxy"
IMAGES = FOLDER / "images"
NUM_CLASSES = 10
TRAIN_STRIDE = 3


def beton_path(split: str) -> Path:
    """Say where the beton of a split lies."""
    return FOLDER / f"{split}.beton"


def prepare() -> None:
    """Unpack the images and write both betons; what is there already stays.

    Processes that start together wait for the one that writes.

    Raises:
        SourceError: The archive is not there.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "prepare.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not IMAGES.exists():
            _extract(REPOSITORY / ARCHIVE)
        section = WriteSection(data_dir=str(IMAGES), mode="passthrough", num_workers=1)
        for split, source in open_sources(section).items():
            if not beton_path(split).exists():
                write_beton(source, beton_path(split), section, split)


def _extract(archive: Path) -> None:
    """Lay out the images as train/CLASS/NAME and val/CLASS/NAME, whole or not at all."""
    if not archive.exists():
        raise SourceError(f"{ARCHIVE}: expected Imagenette, found nothing; put it there.")
    partial = IMAGES.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        members = {member.name: member for member in tar.getmembers() if member.isfile()}
        train = sorted(name for name in members if "/train/" in name)
        val = sorted(name for name in members if "/val/" in name)
        for name in train[::TRAIN_STRIDE] + val:
            content = tar.extractfile(members[name])
            assert content is not None
            path = partial.joinpath(*Path(name).parts[1:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
    partial.replace(IMAGES)
