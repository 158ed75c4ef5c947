"""Tar shards: WebDataset (key.jpg beside key.cls or key.json), or packed class folders."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ffvit.data.sources.archives import Member, byte_range_store, iterate_members, read_member
from ffvit.data.sources.base import Source, is_image, shown
from ffvit.data.sources.folders import (
    ALL_SPLIT_NAMES,
    SPLIT_NAMES,
    VAL_NAMES,
    Listing,
    arrange,
    shared_prefix,
)
from ffvit.data.tables import MAX_CLASSES
from ffvit.errors import SourceError

_LABEL_SUFFIXES = ("cls", "json")
_JSON_KEYS = ("label", "cls", "class_index")

Shard = tuple[Path, str]


def open_shards(path: Path, val_labels: str) -> dict[str, Source]:
    """Open one tar archive, or a folder of them.

    The split is in the shards' names or in those of their folders (train-000.tar, val/000.tar), or
    the archive holds train and val folders; otherwise all is train.

    Raises:
        SourceError: Unreadable archives, or images without labels.
    """
    shards = find_shards(path)
    if not shards:
        raise SourceError(f"{path}: expected tar archives, found none.")
    members = {shard: list(iterate_members(shard)) for shard, _ in shards}
    if any(_is_webdataset(found) for found in members.values()):
        return _open_webdataset(path, shards, members)
    return _open_class_folders(path, shards, members, val_labels)


def find_shards(path: Path) -> list[Shard]:
    """List the tar archives of a folder and its split folders, with the split each name tells."""
    if path.is_file():
        return splits_of_files([path], path.parent)
    files = [f for f in path.glob("*.tar") if f.is_file()]
    files += [f for f in path.glob("*/*.tar") if f.parent.name.lower() in ALL_SPLIT_NAMES]
    return splits_of_files(sorted(files), path)


def splits_of_files(files: Sequence[Path], root: Path) -> list[Shard]:
    """Tell the split of each file from the words of its path below `root`.

    Returns:
        Files with "train", "val", or "" where the words name no split, or several. Files of a test
        split are not among them where there is another to validate on: its labels are often
        withheld.
    """
    words = {
        file: set(re.split(r"[^a-z]+", file.relative_to(root).as_posix().lower())) for file in files
    }
    test_names = set(SPLIT_NAMES["val"]) - VAL_NAMES
    if any(found & VAL_NAMES for found in words.values()):
        words = {file: found for file, found in words.items() if not found & test_names}
    shards = []
    for file, found in words.items():
        splits = [split for split, names in SPLIT_NAMES.items() if found & set(names)]
        shards.append((file, splits[0] if len(splits) == 1 else ""))
    return shards


def _is_webdataset(members: Sequence[Member]) -> bool:
    """Tell by a label file beside an image of the same key; a lone JSON file is only a note."""
    files = {_key_and_suffix(member.name) for member in members}
    keys = {key for key, suffix in files if suffix in _LABEL_SUFFIXES}
    return any(key in keys and is_image(f"{key}.{suffix}") for key, suffix in files)


def _key_and_suffix(name: str) -> tuple[str, str]:
    """Split a member's name at the first dot of its last part, as WebDataset does."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()


def _open_webdataset(
    path: Path, shards: Sequence[Shard], members: Mapping[Path, Sequence[Member]]
) -> dict[str, Source]:
    """Pair images with their labels; classes have numbers but no names here."""
    images: dict[str, list[tuple[int, Member]]] = {}
    labels: dict[str, list[int]] = {}
    for number, (shard, split) in enumerate(shards):
        by_key: dict[str, dict[str, Member]] = {}
        for member in members[shard]:
            key, suffix = _key_and_suffix(member.name)
            by_key.setdefault(key, {})[suffix] = member
        for key, files in by_key.items():
            found = [files[suffix] for suffix in files if is_image(f"{key}.{suffix}")]
            if not found:
                continue  # a shard's own notes
            if len(found) > 1:
                raise SourceError(f"{shard}:{key}: expected one image, found {len(found)}.")
            images.setdefault(split or "train", []).append((number, found[0]))
            labels.setdefault(split or "train", []).append(_label(shard, key, files))
    if not images:
        raise SourceError(f"{path}: expected images beside the labels in its shards, found none.")
    num_classes = 1 + max(max(found) for found in labels.values())
    names = tuple(str(label) for label in range(num_classes))
    files_of_shards = [shard for shard, _ in shards]
    return {
        split: Source(
            store=byte_range_store(files_of_shards, images[split]),
            keys=np.arange(len(images[split]), dtype=np.int64),
            labels=np.array(labels[split], dtype=np.int64),
            label_names=names,
            description=f"WebDataset shards in {path}",
        )
        for split in images
    }


def _label(shard: Path, key: str, files: Mapping[str, Member]) -> int:
    """Read an image's label from key.cls or key.json."""
    suffix = next((suffix for suffix in _LABEL_SUFFIXES if suffix in files), None)
    if suffix is None:
        raise SourceError(f"{shard}:{key}: an image without a .cls or .json file beside it.")
    text = read_member(shard, files[suffix])
    try:
        value = int(text) if suffix == "cls" else _label_of_json(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SourceError(
            f"{shard}:{key}.{suffix}: expected a class number"
            + (f" under one of {shown(_JSON_KEYS)}" if suffix == "json" else "")
            + f", got {text[:40]!r}."
        ) from None
    if not 0 <= value < MAX_CLASSES:
        raise SourceError(
            f"{shard}:{key}.{suffix}: expected a class number from 0 to {MAX_CLASSES - 1}, got "
            f"{value}."
        )
    return value


def _label_of_json(record: Mapping[str, object]) -> int:
    value = next((record[key] for key in _JSON_KEYS if key in record), None)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _open_class_folders(
    path: Path,
    shards: Sequence[Shard],
    members: Mapping[Path, Sequence[Member]],
    val_labels: str,
) -> dict[str, Source]:
    """Read classes off the members' names, and the split if the archive's name does not tell."""
    images: list[tuple[str, int, Member]] = []
    num_ignored = 0
    for number, (shard, split) in enumerate(shards):
        found = sorted((m for m in members[shard] if is_image(m.name)), key=lambda m: m.name)
        num_ignored += len(members[shard]) - len(found)
        prefix = shared_prefix([m.name for m in found], keep=()) if found and split else ""
        top = split + "/" if split else ""
        images += [(top + m.name[len(prefix) :], number, m) for m in found]
    images.sort(key=lambda image: image[0])
    store = byte_range_store([shard for shard, _ in shards], [image[1:] for image in images])
    listing = Listing([image[0] for image in images], num_ignored=num_ignored)
    root = path if path.is_dir() else path.parent
    return arrange(listing, store, str(path), root, val_labels)
