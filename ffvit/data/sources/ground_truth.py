"""Labels of a flat validation folder: from a ground-truth file, or from the ILSVRC2012 devkit."""

import dataclasses
import io
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.io

from ffvit.data.sources.base import Indices, class_labels, shown
from ffvit.errors import SourceError

DEVKIT_NAMES = ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12")
_META = "data/meta.mat"
_GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
# The real ones have a megabyte; an archive that unpacks to a terabyte is no devkit.
_MAX_BYTES = 64 << 20
_IMAGE_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Devkit:
    """The two files of ILSVRC2012's development kit that matter here.

    Attributes:
        wordnet_ids: The WordNet id of each of the devkit's own class numbers, which start at 1 and
            are not in WordNet order.
        words: What each WordNet id means.
        ground_truth: The devkit's class number of validation image 1, 2, ...
    """

    wordnet_ids: Mapping[int, str]
    words: Mapping[str, str]
    ground_truth: Sequence[int]


def devkit_beside(folder: Path) -> Path | None:
    """Find the devkit in a folder, as an archive or unpacked."""
    return next((folder / name for name in DEVKIT_NAMES if (folder / name).exists()), None)


def read_devkit(path: Path) -> Devkit:
    """Read ILSVRC2012_devkit_t12, the archive or the unpacked folder.

    Raises:
        SourceError: One of the two files is missing or damaged.
    """
    try:
        files = _devkit_files(path)
        # Nothing in this file is executed: loadmat reads arrays.
        synsets = scipy.io.loadmat(io.BytesIO(files[_META]), squeeze_me=True)["synsets"]
        leaves = [row for row in synsets if int(row["num_children"]) == 0]
        return Devkit(
            wordnet_ids={int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves},
            words={str(row["WNID"]): str(row["words"]) for row in leaves},
            ground_truth=[int(line) for line in files[_GROUND_TRUTH].split()],
        )
    except (OSError, EOFError, tarfile.TarError, KeyError, ValueError, TypeError) as error:
        raise SourceError(
            f"{path}: expected the ILSVRC2012 devkit with {_META} and {_GROUND_TRUTH}, "
            f"but {error or type(error).__name__}; fetch it again."
        ) from None


def labels_by_devkit(devkit: Devkit, file_names: Sequence[str], names: Sequence[str]) -> Indices:
    """Label ILSVRC2012_val_00000001.JPEG, ... by the devkit.

    Args:
        devkit: Read by `read_devkit`.
        file_names: Of the validation images.
        names: WordNet ids of the classes, sorted; a name's first word counts.

    Returns:
        (num_images,) int64 positions in `names`.

    Raises:
        SourceError: An image the devkit does not know, or of a class that is not among `names`.
    """
    classes = []
    for file_name in file_names:
        match = _IMAGE_NUMBER.search(file_name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(devkit.ground_truth):
            raise SourceError(
                f"{file_name}: expected ILSVRC2012_val_00000001.JPEG to "
                f"_{len(devkit.ground_truth):08d}.JPEG, the images that the devkit has labels for."
            )
        classes.append(devkit.wordnet_ids.get(devkit.ground_truth[number - 1], "unknown"))
    return class_labels(classes, [name.split(" ")[0] for name in names], "ILSVRC2012 devkit")


def labels_by_file(path: Path, file_names: Sequence[str], names: Sequence[str]) -> Indices:
    """Label images by a text file: one label per line, or file name and label per line.

    A label is a class name, or its number counted from 0 in the order of `names`.

    Args:
        path: The ground-truth file; the devkit's own is read with its meta file beside it.
        file_names: Of the images, sorted; lines without file names are in this order.
        names: Of the classes.

    Returns:
        (num_images,) int64 positions in `names`.

    Raises:
        SourceError: Unreadable, or not one known label for each image.
    """
    if path.name == _GROUND_TRUTH.rpartition("/")[2] and (path.parent / "meta.mat").exists():
        return labels_by_devkit(read_devkit(path.parent.parent), file_names, names)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot read this ground-truth file ({error}).") from None
    rows = [line.replace(",", " ").split() for line in lines if line.strip()]
    if all(len(row) == 1 for row in rows) and len(rows) == len(file_names):
        tokens = [row[0] for row in rows]
    elif rows and all(len(row) >= 2 for row in rows):
        label_of = {os.path.splitext(os.path.basename(row[0]))[0]: row[1] for row in rows}  # noqa: PTH119, PTH122
        stems = [os.path.splitext(name)[0] for name in file_names]  # noqa: PTH122
        missing = sorted(stem for stem in stems if stem not in label_of)
        if missing:
            raise SourceError(f"{path}: no label for {shown(missing)}; add the lines.")
        tokens = [label_of[stem] for stem in stems]
    else:
        raise SourceError(
            f"{path}: expected {len(file_names)} lines with a label each, or lines with a file "
            f"name and a label, got {len(rows)} lines; check that it belongs to these images."
        )
    if set(tokens) <= set(names) or not all(token.isdecimal() for token in tokens):
        return class_labels(tokens, names, str(path))
    return _numbered(path, np.array([int(token) for token in tokens], dtype=np.int64), len(names))


def _numbered(path: Path, labels: Indices, num_classes: int) -> Indices:
    """Accept class numbers only where they cannot have been counted from 1."""
    if labels.min() != 0 or labels.max() >= num_classes:
        raise SourceError(
            f"{path}: expected class numbers from 0 to {num_classes - 1}, got {labels.min()} to "
            f"{labels.max()}; count from 0 in sorted order of the class folders, or write their "
            "names."
        )
    return labels


def _devkit_files(path: Path) -> dict[str, bytes]:
    """Read the two files from the archive or the folder."""
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in (_META, _GROUND_TRUTH)}
    files = {}
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            for name in (_META, _GROUND_TRUTH):
                if member.isfile() and member.name.endswith("/" + name):
                    extracted = archive.extractfile(member)
                    files[name] = extracted.read(_MAX_BYTES + 1) if extracted else b""
                    if len(files[name]) > _MAX_BYTES:
                        raise ValueError(f"{name} has more than {_MAX_BYTES} bytes")
    return files
