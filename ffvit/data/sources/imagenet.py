"""ILSVRC2012 as it is handed out: the official archives, and Kaggle's folders."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ffvit.data.sources.archives import Member, byte_range_store, iterate_members
from ffvit.data.sources.base import FileStore, Source, class_labels, is_image, shown
from ffvit.data.sources.folders import list_images, open_folders
from ffvit.data.sources.ground_truth import (
    DEVKIT_NAMES,
    Devkit,
    devkit_beside,
    labels_by_devkit,
    read_devkit,
)
from ffvit.errors import SourceError

TRAIN_ARCHIVE = "ILSVRC2012_img_train.tar"
VAL_ARCHIVE = "ILSVRC2012_img_val.tar"
_KAGGLE_IMAGES = "Data/CLS-LOC"
_KAGGLE_SOLUTION = "LOC_val_solution.csv"
_KAGGLE_WORDS = "LOC_synset_mapping.txt"


def open_imagenet(root: Path, split: str) -> dict[str, Source]:
    """Open the official archives, which are read in place: a tar of class tars, and a flat tar.

    Args:
        root: Folder with the archives and, for val, the devkit.
        split: all, train or val: the archives needed.

    Raises:
        SourceError: An archive or the devkit is missing or damaged.
    """
    needed = {"train": TRAIN_ARCHIVE, "val": VAL_ARCHIVE}
    wanted = [name for name in needed if split in ("all", name)]
    missing = [needed[name] for name in wanted if not (root / needed[name]).is_file()]
    devkit_path = devkit_beside(root)
    if "val" in wanted and devkit_path is None:
        missing.append(DEVKIT_NAMES[0])
    if missing:
        raise SourceError(
            f"{root}: expected the ILSVRC2012 archives, but {shown(missing)} is missing; "
            "fetch it, or write one split only with --split."
        )
    devkit = read_devkit(devkit_path) if devkit_path else None
    sources = {}
    if "train" in wanted:
        sources["train"] = _open_train(root / TRAIN_ARCHIVE, devkit)
    if "val" in wanted and devkit:
        sources["val"] = _open_val(root / VAL_ARCHIVE, devkit)
    return sources


def _open_train(archive: Path, devkit: Devkit | None) -> Source:
    members: list[tuple[int, Member]] = []
    classes: list[str] = []
    for class_tar in iterate_members(archive):
        wordnet_id, _, suffix = class_tar.name.rpartition(".")
        if suffix != "tar":
            raise SourceError(f"{archive}: expected class tars, found {class_tar.name!r}.")
        found = [m for m in iterate_members(archive, class_tar.offset) if is_image(m.name)]
        if not found:
            raise SourceError(
                f"{archive}:{class_tar.name}: a class without images; fetch it again."
            )
        members += [(0, member) for member in found]
        classes += [wordnet_id] * len(found)
    ids = sorted(devkit.words if devkit else set(classes))
    return Source(
        store=byte_range_store([archive], members),
        keys=np.arange(len(members), dtype=np.int64),
        labels=class_labels(classes, ids, str(archive)),
        label_names=_with_words(ids, devkit.words if devkit else {}),
        description=f"ILSVRC2012 archive {archive}",
    )


def _open_val(archive: Path, devkit: Devkit) -> Source:
    found = sorted((m for m in iterate_members(archive) if is_image(m.name)), key=lambda m: m.name)
    ids = sorted(devkit.words)
    return Source(
        store=byte_range_store([archive], [(0, member) for member in found]),
        keys=np.arange(len(found), dtype=np.int64),
        labels=labels_by_devkit(devkit, [member.name for member in found], ids),
        label_names=_with_words(ids, devkit.words),
        description=f"ILSVRC2012 archive {archive}",
    )


def kaggle_root(root: Path) -> Path | None:
    """Find the folder that holds Data/CLS-LOC."""
    return next((r for r in (root, root / "ILSVRC") if (r / _KAGGLE_IMAGES).is_dir()), None)


def open_kaggle(root: Path) -> dict[str, Source]:
    """Open Kaggle's layout: ILSVRC/Data/CLS-LOC with class folders in train, a flat val and a CSV.

    Raises:
        SourceError: One of them is missing or does not fit the others.
    """
    inner = kaggle_root(root)
    if inner is None:
        raise SourceError(
            f"{root}: expected Kaggle's ILSVRC/{_KAGGLE_IMAGES}, found no such folder."
        )
    train_dir, val_dir = inner / _KAGGLE_IMAGES / "train", inner / _KAGGLE_IMAGES / "val"
    train = open_folders(train_dir, val_labels="")["train"]
    names = _with_words(train.label_names, _read_words(_beside(root, inner, _KAGGLE_WORDS)))
    solution = _read_solution(_beside(root, inner, _KAGGLE_SOLUTION))
    val_paths = list_images(val_dir).paths
    unlabelled = [path for path in val_paths if Path(path).stem not in solution]
    if unlabelled:
        raise SourceError(f"{val_dir}: {_KAGGLE_SOLUTION} has no label for {shown(unlabelled)}.")
    val_classes = [solution[Path(path).stem] for path in val_paths]
    val = Source(
        store=FileStore(val_dir, val_paths),
        keys=np.arange(len(val_paths), dtype=np.int64),
        labels=class_labels(val_classes, train.label_names, str(val_dir)),
        label_names=names,
        description=f"Kaggle's layout in {val_dir}",
    )
    return {
        "train": dataclasses.replace(
            train, label_names=names, description=f"Kaggle's layout in {train_dir}"
        ),
        "val": val,
    }


def _beside(root: Path, inner: Path, name: str) -> Path:
    """Look for a file in the given folder, in ILSVRC and beside it."""
    places = (root / name, inner / name, inner.parent / name)
    return next((path for path in places if path.is_file()), places[0])


def _read_solution(path: Path) -> dict[str, str]:
    """Map image ids to WordNet ids: `ILSVRC2012_val_00048981,n03995372 85 1 499 272`."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        return {image: prediction.split()[0] for image, prediction in rows[1:]}
    except OSError as error:
        raise SourceError(
            f"{path}: expected Kaggle's labels of val ({error.strerror}); fetch the file."
        ) from None
    except (ValueError, IndexError, UnicodeDecodeError, csv.Error):
        raise SourceError(
            f"{path}: expected lines of image id and prediction string; fetch it again."
        ) from None


def _read_words(path: Path) -> dict[str, str]:
    """Map WordNet ids to their words, where the file is there: it only makes names readable."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}


def _with_words(ids: Sequence[str], words: Mapping[str, str]) -> tuple[str, ...]:
    """Put each WordNet id's words behind it, where they are known."""
    return tuple(f"{i} {words[i]}" if i in words else i for i in ids)
