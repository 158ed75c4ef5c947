"""Small source trees for the tests of the layouts."""

import io
import tarfile
from pathlib import Path

import numpy as np
import scipy.io
from conftest import encode, gradient

from ffvit.data.sources import open_sources
from ffvit.options import WriteSection

# The devkit's class numbers are not in WordNet order.
DEVKIT_IDS = {1: "n03000", 2: "n01000", 3: "n02000"}
WORDS = {"n01000": "tench, Tinca tinca", "n02000": "crane", "n03000": "crane"}


def image_bytes(number: int) -> bytes:
    """Make a small JPEG that no other number gives."""
    return encode(gradient(8 + number % 5, 11 + number, mark=(number, 200, 0)), quality=90)


def write_images(folder: Path, names: list[str], first: int = 0) -> dict[str, bytes]:
    """Write one image per relative path; returns path -> bytes."""
    written = {name: image_bytes(first + number) for number, name in enumerate(names)}
    for name, data in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return written


def tar_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def contents(source) -> dict[str, tuple[bytes, str]]:
    """Map the last part of each image's name to its bytes and the name of its class."""
    return {
        source.name(i).rpartition("/")[2]: (source.read(i), source.label_names[source.labels[i]])
        for i in range(len(source))
    }


def open_all(path: Path, **options: object):
    return open_sources(WriteSection(data_dir=str(path), **options))


def write_devkit(folder: Path, ground_truth: list[int]) -> None:
    """Make ILSVRC2012_devkit_t12.tar.gz: three leaves and one inner node of WordNet."""
    kinds = [("ILSVRC2012_ID", "i4"), ("WNID", "O"), ("words", "O"), ("num_children", "i4")]
    rows = [(number, wnid, WORDS[wnid], 0) for number, wnid in DEVKIT_IDS.items()]
    synsets = np.array([*rows, (4, "n00001", "entity", 3)], dtype=kinds)
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": synsets.reshape(-1, 1)})
    top = "ILSVRC2012_devkit_t12/data/"
    files = {
        top + "meta.mat": buffer.getvalue(),
        top + "ILSVRC2012_validation_ground_truth.txt": "".join(
            f"{number}\n" for number in ground_truth
        ).encode(),
    }
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
