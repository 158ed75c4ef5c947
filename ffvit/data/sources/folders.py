"""Class folders: [split/]class/image, in a file system or in an archive; and a flat val split."""

import dataclasses
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from ffvit.data.sources.base import FileStore, Indices, Source, Store, class_labels, is_image, shown
from ffvit.data.sources.ground_truth import (
    devkit_beside,
    labels_by_devkit,
    labels_by_file,
    read_devkit,
)
from ffvit.errors import ConfigError, SourceError

# Folder names of a split, best first.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "test", "testing"),
}
# Those that mean nothing else; a test split counts as val only where there is no other.
VAL_NAMES = frozenset({"val", "valid", "validation"})
ALL_SPLIT_NAMES = frozenset(name for names in SPLIT_NAMES.values() for name in names)


@dataclasses.dataclass(frozen=True)
class Listing:
    """Image files by relative path.

    Attributes:
        paths: Of the images, with forward slashes, sorted.
        folders: Relative paths of all folders, where they are known; to notice those without
        images.
        num_ignored: Files that are no images.
    """

    paths: Sequence[str]
    folders: frozenset[str] = frozenset()
    num_ignored: int = 0


def open_folders(root: Path, val_labels: str) -> dict[str, Source]:
    """Open class folders: train/ and val/ with class folders, or class folders alone.

    Args:
        root: Folder.
        val_labels: Ground-truth file of a flat val folder; empty: an ILSVRC2012 devkit beside it.

    Returns:
        The splits that are there.

    Raises:
        SourceError: Not laid out like that, or a class folder without images.
    """
    listing = list_images(root)
    return arrange(listing, FileStore(root, listing.paths), str(root), root, val_labels)


def list_images(root: Path) -> Listing:
    """List all images below a folder; links to folders are followed.

    Raises:
        SourceError: A folder that cannot be read, or is reached twice.
    """
    paths: list[str] = []
    folders: set[str] = set()
    seen: set[tuple[int, int]] = set()
    num_ignored = 0
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            status = (root / folder).stat()
            with os.scandir(root / folder) as entries:
                visible = [e for e in entries if not e.name.startswith((".", "__MACOSX"))]
        except OSError as error:
            raise SourceError(
                f"{root / folder}: cannot read this folder ({error.strerror})."
            ) from None
        if (status.st_dev, status.st_ino) in seen:
            raise SourceError(
                f"{root / folder}: reached twice through links; its images would count twice."
            )
        seen.add((status.st_dev, status.st_ino))
        prefix = folder + "/" if folder else ""
        for entry in visible:
            if entry.is_dir():
                folders.add(prefix + entry.name)
                waiting.append(prefix + entry.name)
            elif is_image(entry.name):
                paths.append(prefix + entry.name)
            else:
                num_ignored += 1
    return Listing(sorted(paths), frozenset(folders), num_ignored)


def arrange(
    listing: Listing, store: Store, origin: str, root: Path, val_labels: str
) -> dict[str, Source]:
    """Read splits and classes off the images' paths.

    Args:
        listing: The images; `store` numbers them in the same order.
        store: Where their bytes are.
        origin: Where they come from, for messages.
        root: Where a devkit may lie.
        val_labels: Ground-truth file of a flat val split, or empty.

    Raises:
        SourceError: The paths are not [split/]class/image.
    """
    if not listing.paths:
        found = f"{len(listing.folders)} folders and {listing.num_ignored} other files"
        raise SourceError(f"{origin}: expected images in class folders, found none among {found}.")
    prefix = shared_prefix(listing.paths)
    parts = [path[len(prefix) :].split("/") for path in listing.paths]
    splits, left_out = _by_split(parts, origin)
    depth = 0 if splits.keys() == {""} else 1
    if "" in splits:
        splits = {"train": splits[""]}
    names: tuple[str, ...] = ()
    sources: dict[str, Source] = {}
    for split, keys in splits.items():
        rest = [parts[key][depth:] for key in keys]
        top = prefix + ("/".join(parts[keys[0]][:depth]) + "/" if depth else "")
        where = f"{origin}/{top}".rstrip("/")
        if all(len(part) == 1 for part in rest) and split == "val" and names:
            file_names = [part[0] for part in rest]
            labels, how = _flat_labels(file_names, names, where, root, val_labels)
        else:
            if val_labels and split == "val":
                raise ConfigError(
                    f"--val_labels={val_labels}: {where} has class folders of its own; leave the "
                    "option out."
                )
            classes = _classes(rest, where)
            _refuse_empty_folders(listing.folders, top, set(classes), origin)
            names = names or tuple(sorted(set(classes)))
            labels, how = class_labels(classes, names, where), "class folders"
        notes = f", {listing.num_ignored} other files left out" if listing.num_ignored else ""
        notes += f", images of {shown(left_out)} left out" if left_out else ""
        key_array = np.array(keys, dtype=np.int64)
        sources[split] = Source(store, key_array, labels, names, f"{how} in {where}{notes}")
    return sources


def shared_prefix(paths: Sequence[str], keep: Collection[str] = ALL_SPLIT_NAMES) -> str:
    """Find the leading folders that all images share and that are neither a class nor in `keep`.

    Args:
        paths: Sorted; at least one.
        keep: Folder names (in lower case) that end the prefix.
    """
    first, last = paths[0].split("/"), paths[-1].split("/")  # sorted: what they share, all share
    depth = 0
    while (
        min(len(first), len(last)) > depth + 2
        and first[depth] == last[depth]
        and first[depth].lower() not in keep
    ):
        depth += 1
    return "".join(part + "/" for part in first[:depth])


def _by_split(
    parts: Sequence[Sequence[str]], origin: str
) -> tuple[dict[str, list[int]], list[str]]:
    """Group the images by split, train first ("" without splits); and name folders left out."""
    groups: dict[str, list[int]] = {}
    for key, part in enumerate(parts):
        groups.setdefault(part[0] if len(part) > 1 else "", []).append(key)
    by_name = {name.lower(): name for name in groups}
    chosen = {
        split: next((by_name[name] for name in names if name in by_name), None)
        for split, names in SPLIT_NAMES.items()
    }
    splits = {split: groups[name] for split, name in chosen.items() if name is not None}
    if not splits:
        return {"": list(range(len(parts)))}, []
    others = sorted(name for name in groups if name.lower() not in ALL_SPLIT_NAMES)
    if others:
        raise SourceError(
            f"{origin}: expected train and val folders or class folders, found both: "
            f"{shown([name for name in chosen.values() if name])} beside {shown(others)}; move "
            "one kind elsewhere."
        )
    left_out = sorted(groups.keys() - set(chosen.values()))
    return splits, [name for name in left_out if name is not None]


def _classes(rest: Sequence[Sequence[str]], where: str) -> list[str]:
    """Take each image's class from its path."""
    loose = [part[0] for part in rest if len(part) == 1]
    if loose:
        raise SourceError(
            f"{where}: expected class folders, found {len(loose)} images outside of one, such as "
            f"{loose[0]!r}; move them into class folders."
        )
    return [part[0] for part in rest]


def _refuse_empty_folders(
    folders: frozenset[str], top: str, classes: set[str], origin: str
) -> None:
    """A class folder without images is a mistake, not a class less."""
    below = {f[len(top) :] for f in folders if f.startswith(top)}
    empty = sorted(name for name in below if "/" not in name and name and name not in classes)
    if empty:
        raise SourceError(
            f"{origin}/{top}{empty[0]}: a class folder without images; add some or remove the "
            "folder" + (f" ({len(empty)} such folders)." if len(empty) > 1 else ".")
        )


def _flat_labels(
    file_names: Sequence[str], names: Sequence[str], where: str, root: Path, val_labels: str
) -> tuple[Indices, str]:
    """Label the images of a val split without class folders."""
    if val_labels:
        labels = labels_by_file(Path(val_labels), file_names, names)
        return labels, f"images labelled by {val_labels}"
    devkit = devkit_beside(root)
    if devkit is None:
        raise SourceError(
            f"{where}: {len(file_names)} images without class folders; give their labels by "
            "--val_labels=FILE, or put the ILSVRC2012 devkit beside them."
        )
    return labels_by_devkit(read_devkit(devkit), file_names, names), f"images labelled by {devkit}"
